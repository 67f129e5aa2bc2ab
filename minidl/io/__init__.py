"""Reading and writing states: names to arrays, in files that execute nothing."""

from .atomic import write_atomically
from .states import load, load_with_metadata, save

__all__ = ["load", "load_with_metadata", "save", "write_atomically"]
