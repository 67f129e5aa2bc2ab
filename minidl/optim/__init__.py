"""Optimizers, schedules of the learning rate, and gradient clipping. Names and arguments are PyTorch's."""

from .clipping import clip_grad_norm_, clip_grad_value_
from .optimizer import Optimizer
from .schedules import CosineAnnealingLR, LRScheduler, MultiStepLR, OneCycleLR, ReduceLROnPlateau, StepLR
from .sgd import SGD

__all__ = [
    "SGD",
    "CosineAnnealingLR",
    "LRScheduler",
    "MultiStepLR",
    "OneCycleLR",
    "Optimizer",
    "ReduceLROnPlateau",
    "StepLR",
    "clip_grad_norm_",
    "clip_grad_value_",
]
