"""Pictures for the notebooks: images and filters, windows and fields, curves and bars.

Each function returns a `Picture`, a matplotlib figure that shows itself in a notebook. They read on white and on dark
ground, and in grey: what differs in colour differs in brightness, dash or hatching too.
Matplotlib is imported when the first is drawn; without it they raise ModuleNotFoundError, naming the extra to install.
"""

from .arrays import feature_maps, filters, heatmap, images
from .depth import errors_by_depth, gradients_by_depth
from .graphs import bars, curves, function, lines
from .windows import columns, receptive_field

__all__ = [
    "bars", "columns", "curves", "errors_by_depth", "feature_maps", "filters", "function", "gradients_by_depth",
    "heatmap", "images", "lines", "receptive_field",
]
