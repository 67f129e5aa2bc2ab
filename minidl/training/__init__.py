"""Training: the loop, what a run keeps on disk, and how models are trained by default."""

from .capture import CapturedPass
from .configuration import Configuration
from .evaluation import Evaluation, Predictions, ensemble, evaluate, predict, score
from .preset import Preset
from .run import Run
from .trainer import Diverged, Trainer

__all__ = [
    "CapturedPass", "Configuration", "Diverged", "Evaluation", "Predictions", "Preset", "Run", "Trainer",
    "ensemble", "evaluate", "predict", "score",
]
