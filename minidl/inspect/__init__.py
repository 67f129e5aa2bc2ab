"""Looking into networks: what each layer costs and sees, what units answer to and decisions hang on."""

from .summary import Layer, Summary, summary
from .visualize import deconvnet, occlusion

__all__ = ["Layer", "Summary", "deconvnet", "occlusion", "summary"]
