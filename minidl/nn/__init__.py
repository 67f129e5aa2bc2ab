"""Modules: networks are built from these. Names, arguments and `state_dict` keys are PyTorch's."""

from . import init
from .layers import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm1d,
    BatchNorm2d,
    CircularPad2d,
    ConstantPad2d,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Flatten,
    Identity,
    Linear,
    LocalResponseNorm,
    LogSoftmax,
    MaxPool2d,
    ReflectionPad2d,
    ReLU,
    ReplicationPad2d,
    Sigmoid,
    Softmax,
    Tanh,
    ZeroPad2d,
)
from .losses import BCELoss, BCEWithLogitsLoss, CrossEntropyLoss, MSELoss, NLLLoss
from .module import Module, ModuleList, Parameter, Sequential

__all__ = [
    "AdaptiveAvgPool2d", "AvgPool2d", "BCELoss", "BCEWithLogitsLoss", "BatchNorm1d", "BatchNorm2d", "CircularPad2d",
    "ConstantPad2d", "Conv2d", "ConvTranspose2d", "CrossEntropyLoss", "Dropout", "Flatten", "Identity", "Linear",
    "LocalResponseNorm", "LogSoftmax", "MSELoss", "MaxPool2d", "Module", "ModuleList", "NLLLoss", "Parameter", "ReLU",
    "ReflectionPad2d", "ReplicationPad2d", "Sequential", "Sigmoid", "Softmax", "Tanh", "ZeroPad2d", "init",
]
