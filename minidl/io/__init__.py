"""Reading and writing states: names to arrays, in files that execute nothing."""

from .atomic import discard_parts, write_atomically
from .lock import locked
from .states import load, load_with_metadata, save

__all__ = ["discard_parts", "load", "load_with_metadata", "locked", "save", "write_atomically"]
