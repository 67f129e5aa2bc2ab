"""LeNet-5's training step, minidl beside PyTorch, in one process.

    python tests/benchmarks/lenet5_step.py [--batch 1 64 256] [--pairs 40]

Forward, cross-entropy, backward and SGD with momentum on a synthetic 32 × 32 batch. The two run in turn, a burst of
steps each; the ratio is the median over the pairs of bursts, with its quartiles. Below 1 minidl is faster.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

import minidl as dl
import models
from minidl import functional as F
from minidl import optim


def minidl_step(images: np.ndarray, labels: np.ndarray) -> Callable[[], None]:
    network = models.lenet5()
    optimizer = optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    x, y = dl.tensor(images), dl.tensor(labels)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()

    return step


def pytorch_step(images: np.ndarray, labels: np.ndarray) -> Callable[[], None]:
    nn = torch.nn
    network = nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10),
    )
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    x, y = torch.tensor(images), torch.tensor(labels)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()

    return step


def burst(step: Callable[[], None], steps: int) -> float:
    """Milliseconds a step."""
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - start) / steps * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 64, 256])
    parser.add_argument("--pairs", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(dl.get_num_threads())
    rng = np.random.default_rng(0)
    print(f"{dl.get_num_threads()} threads, NumPy {np.__version__}, PyTorch {torch.__version__}")
    for batch in options.batch:
        images = rng.standard_normal((batch, 1, 32, 32)).astype(np.float32)
        labels = rng.integers(0, 10, batch)
        ours, theirs = minidl_step(images, labels), pytorch_step(images, labels)
        steps = max(3, 200 // batch)
        burst(ours, steps), burst(theirs, steps)
        pairs = np.array([(burst(ours, steps), burst(theirs, steps)) for _ in range(options.pairs)])
        low, middle, high = np.percentile(pairs[:, 0] / pairs[:, 1], [25, 50, 75])
        mine, other = np.median(pairs, axis=0)
        print(f"batch {batch:3d}: minidl {mine:6.2f} ms   PyTorch {other:6.2f} ms   "
              f"ratio {middle:.2f} ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
