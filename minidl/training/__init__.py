"""Training: the loop, what a run keeps on disk, and how models are trained by default."""

from .configuration import Configuration
from .curves import draw_curves
from .preset import Preset
from .run import Run
from .trainer import Diverged, Evaluation, Trainer, evaluate

__all__ = ["Configuration", "Diverged", "Evaluation", "Preset", "Run", "Trainer", "draw_curves", "evaluate"]
