"""Data: real images, the transforms that prepare them, and the loader that serves them in batches."""

from .catalog import open_dataset
from .dataset import ArrayDataset, BatchDataset, Dataset
from .digits import digits
from .download import cache_folder, download
from .idx import read_idx
from .loader import DataLoader
from .mnist import fashion_mnist, mnist
from .transforms import Compose, Fit, Normalize, RandomShift, Transform

__all__ = [
    "ArrayDataset",
    "BatchDataset",
    "Compose",
    "DataLoader",
    "Dataset",
    "Fit",
    "Normalize",
    "RandomShift",
    "Transform",
    "cache_folder",
    "digits",
    "download",
    "fashion_mnist",
    "mnist",
    "open_dataset",
    "read_idx",
]
