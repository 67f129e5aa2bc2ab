"""Cross-entropy on a GPU: a few kernels instead of one an operation, and none that the CPU waits for."""

from __future__ import annotations

import cupy

SUM_EXP = cupy.ReductionKernel(
    "T z, T largest", "T total", "exp(z - largest)", "a + b", "total = a", "0", "minidl_sum_exp"
)
LOG_SOFTMAX = cupy.ElementwiseKernel(
    "T z, T largest, T total", "T log_a", "log_a = z - largest - log(total)", "minidl_log_softmax"
)
LABEL_LOSSES = cupy.ElementwiseKernel(
    "raw T log_a, int64 label, int64 ignored, int64 classes, int64 depth", "T loss",
    """
    const long long n = i / depth, d = i % depth;
    const bool known = label >= 0 && label < classes;
    loss = label == ignored ? T(0) : known ? T(-log_a[(n * classes + label) * depth + d]) : T(nan(""));
    """,
    "minidl_label_losses",
)
LABEL_LOSSES_GRADIENT = cupy.ElementwiseKernel(
    "T g, T log_a, int64 label, int64 ignored, int64 classes, int64 depth", "T dz",
    "dz = label == ignored ? T(0) : T(g * (exp(log_a) - T(i / depth % classes == label)))",
    "minidl_label_losses_gradient",
)


def log_softmax(z: cupy.ndarray, axes: tuple[int, ...]) -> cupy.ndarray:
    """log aⱼ = zⱼ − log Σₖ e^{zₖ} along `axes`."""
    if not z.size:
        return z.copy()
    largest = z.max(axis=axes, keepdims=True)
    return LOG_SOFTMAX(z, largest, SUM_EXP(z, largest, axis=axes, keepdims=True))


def label_losses(log_a: cupy.ndarray, labels: cupy.ndarray, ignored: int) -> cupy.ndarray:
    """−log aⱼ of the label j of each sample (N, D), from log_a (N, C, D); 0 for the label `ignored`.

    NaN for a label that is no class: to raise an error, the CPU would have to wait for the labels.
    """
    classes, depth = log_a.shape[1:]
    labels = labels.astype("int64", copy=False)
    return LABEL_LOSSES(cupy.ascontiguousarray(log_a), labels, ignored, classes, depth)


def label_losses_gradient(
    g: cupy.ndarray, log_a: cupy.ndarray, labels: cupy.ndarray, ignored: int
) -> cupy.ndarray:
    """g (a − y) for the one-hot y of the labels (N, D): ∂L/∂z (N, C, D) of z, whose `log_softmax` is log_a."""
    labels = labels.astype("int64", copy=False)[:, None]
    return LABEL_LOSSES_GRADIENT(g, log_a, labels, ignored, *log_a.shape[1:])
