"""Data: real images, the transforms that prepare them, and the loader that serves them in batches."""

from .catalog import open_dataset
from .cifar import CIFAR10_CLASSES, cifar10
from .collate import default_collate
from .dataset import ArrayDataset, BatchDataset, Dataset, Subset
from .digits import digits
from .download import cache_folder, download
from .folder import ImageFolder
from .idx import read_idx
from .imagenet import IMAGENET_MEAN, IMAGENET_STD, imagenet_classes
from .images import read_gray, read_rgb
from .loader import DataLoader
from .mnist import fashion_mnist, mnist
from .photographs import (
    CenterCrop,
    PCAJitter,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResize,
    RandomResizedCrop,
    Resize,
    TenCrop,
)
from .transforms import Compose, Fit, Normalize, RandomShift, Transform

__all__ = [
    "CIFAR10_CLASSES",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "ArrayDataset",
    "BatchDataset",
    "CenterCrop",
    "Compose",
    "DataLoader",
    "Dataset",
    "Fit",
    "ImageFolder",
    "Normalize",
    "PCAJitter",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomResize",
    "RandomResizedCrop",
    "RandomShift",
    "Resize",
    "Subset",
    "TenCrop",
    "Transform",
    "cache_folder",
    "cifar10",
    "default_collate",
    "digits",
    "download",
    "fashion_mnist",
    "imagenet_classes",
    "mnist",
    "open_dataset",
    "read_gray",
    "read_idx",
    "read_rgb",
]
