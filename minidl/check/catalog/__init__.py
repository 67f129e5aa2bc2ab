"""The exercises: a file a unit of the lecture, and in it a reference, cases and a table of mistakes an exercise."""

from __future__ import annotations

from ..definition import Exercise
from . import alexnet, by_hand, convolution, googlenet, lenet, losses, resnet, vanishing, vgg, zfnet

UNITS: dict[str, tuple[Exercise, ...]] = {
    "01 autograd by hand": by_hand.EXERCISES,
    "02 losses": losses.EXERCISES,
    "03 convolution": convolution.EXERCISES,
    "04 LeNet-5": lenet.EXERCISES,
    "05 AlexNet": alexnet.EXERCISES,
    "06 ZFNet": zfnet.EXERCISES,
    "07 VGG": vgg.EXERCISES,
    "08 GoogLeNet": googlenet.EXERCISES,
    "09 vanishing gradients": vanishing.EXERCISES,
    "10 ResNet": resnet.EXERCISES,
}

EXERCISES = {exercise.name: exercise for entries in UNITS.values() for exercise in entries}
"""By name, in the order of the lecture."""
