"""Convolution as a matrix product over im2col, and its transpose. Claim D8.

im2col writes every window of the image as a column, so that convolution is Y = W · im2col(X) with W
of shape (K, C·KH·KW). The three gradients follow from that one line:

    ∂L/∂W = G · im2col(X)ᵀ      ∂L/∂X = col2im(Wᵀ · G)      ∂L/∂b = Σ G over images and positions

where col2im, the adjoint of im2col, adds each column entry back to the pixel it was read from:
⟨im2col(X), C⟩ = ⟨X, col2im(C)⟩. The kernels do the same a tile at a time.
"""

from __future__ import annotations

from numbers import Integral

from ..arrays import ARRAY, NUMBERS
from ..autograd import differentiable
from ..backend import Array
from ..kernels import kernels_of
from ..kernels import windows as geometry
from ..kernels.windows import Windows
from .arguments import Pair, check_fits, check_images, pair


@differentiable(input=NUMBERS, weight=NUMBERS, bias=NUMBERS)
def conv2d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
):
    """y = W ∗ x + b     ∂L/∂x = col2im(Wᵀ g)     ∂L/∂W = g im2col(x)ᵀ     ∂L/∂b = Σ g

    `input` (N, C, H, W) or (C, H, W), `weight` (K, C/groups, KH, KW), `bias` (K) → (N, K, OH, OW) with
    OH = ⌊(H + 2·padding − dilation·(KH − 1) − 1) / stride⌋ + 1. `padding` may be ``"valid"`` (none) or
    ``"same"`` (OH = H, for stride 1). Cross-correlation, as in PyTorch and the papers: the kernel is not flipped.
    Raises ValueError for shapes and options that do not fit, TypeError for dtypes that differ.
    """
    images = check_images("conv2d", input)
    c = images.shape[1]
    if weight.ndim != 4:
        raise ValueError(f"conv2d: weight must be (K, C/groups, KH, KW); got shape {weight.shape}")
    _check_channels("conv2d", groups, input_channels=c, output_channels=len(weight))
    if weight.shape[1] * groups != c:
        raise ValueError(f"conv2d: input has {c} channels, but weight {weight.shape} with groups={groups} expects "
                         f"{weight.shape[1] * groups}")
    windows = _windows("conv2d", weight.shape[2:], stride, padding, dilation)
    windows = check_fits("conv2d", input, windows)
    _check_bias("conv2d", bias, len(weight))
    kernels = kernels_of(input)
    y = kernels.conv2d(images, weight, windows, groups, bias)
    shape, batch, size = input.shape, y.shape, images.shape[2:]  # the gradients need no more than these of x and y

    def gradient_input(g):
        return kernels.conv2d_input_gradient(g.reshape(batch), weight, size, windows, groups).reshape(shape)

    def gradient_weight(g):
        return kernels.conv2d_weight_gradient(g.reshape(batch), images, windows, groups)

    def gradient_bias(g):
        return kernels.conv2d_bias_gradient(g.reshape(batch))

    return y.reshape(input.shape[:-3] + y.shape[1:]), (gradient_input, gradient_weight, gradient_bias)


@differentiable(input=NUMBERS, weight=NUMBERS, bias=NUMBERS)
def conv_transpose2d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
):
    """y = col2im(Wᵀ x) + b     ∂L/∂x = W ∗ g     ∂L/∂W = x im2col(g)ᵀ     ∂L/∂b = Σ g

    The adjoint of `conv2d` with the same weight: what there is ∂L/∂x is here the value. `input` (N, C, H, W)
    or (C, H, W), `weight` (C, K/groups, KH, KW), `bias` (K) → (N, K, OH, OW) with
    OH = (H − 1)·stride − 2·padding + dilation·(KH − 1) + output_padding + 1, where `output_padding`, smaller
    than stride or dilation, chooses among the sizes that conv2d maps to H.
    Raises ValueError for shapes and options that do not fit, TypeError for dtypes that differ.
    """
    images = check_images("conv_transpose2d", input)
    c = images.shape[1]
    if weight.ndim != 4 or len(weight) != c:
        raise ValueError(f"conv_transpose2d: input has {c} channels, so weight must be ({c}, K/groups, KH, KW); "
                         f"got shape {weight.shape}")
    channels = weight.shape[1] * groups
    _check_channels("conv_transpose2d", groups, input_channels=c, output_channels=channels)
    padding = pair("conv_transpose2d", "padding", padding, 0)
    windows = _windows("conv_transpose2d", weight.shape[2:], stride, padding, dilation)
    extra = pair("conv_transpose2d", "output_padding", output_padding, 0)
    if any(e >= max(s, d) for e, s, d in zip(extra, windows.stride, windows.dilation)):
        raise ValueError(f"conv_transpose2d: output_padding {extra} must be smaller than stride {windows.stride} "
                         f"or dilation {windows.dilation}")
    # The extra rows and columns undo padding at the end; what no window covers beyond that is zero.
    (top, _), (left, _) = windows.padding
    windows = windows._replace(padding=((top, max(top - extra[0], 0)), (left, max(left - extra[1], 0))))
    covered = tuple((m - 1) * s + reach - sum(around) for m, s, reach, around in
                    zip(images.shape[2:], windows.stride, windows.reach, windows.padding))
    beyond = max(extra[0] - top, 0), max(extra[1] - left, 0)
    if covered[0] + beyond[0] < 1 or covered[1] + beyond[1] < 1:
        raise ValueError(f"conv_transpose2d: padding {padding} leaves nothing of the output")
    _check_bias("conv_transpose2d", bias, channels)
    kernels = kernels_of(input)
    y = kernels.conv2d_input_gradient(images, weight, covered, windows, groups)
    if any(beyond):
        y = geometry.extend(y, beyond)
    if bias is not None:
        y += bias[:, None, None]

    shape, batch = input.shape, y.shape

    def covered_part(g):
        return g.reshape(batch)[:, :, : covered[0], : covered[1]]

    def gradient_input(g):
        return kernels.conv2d(covered_part(g), weight, windows, groups).reshape(shape)

    def gradient_weight(g):
        return kernels.conv2d_weight_gradient(images, covered_part(g), windows, groups)

    def gradient_bias(g):
        return kernels.conv2d_bias_gradient(g.reshape(batch))

    return y.reshape(input.shape[:-3] + y.shape[1:]), (gradient_input, gradient_weight, gradient_bias)


@differentiable(input=ARRAY, widen=True)
def im2col(input: Array, kernel_size: Pair, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1):
    """Every window as a column     ∂L/∂x = col2im(g)

    (N, C, H, W) → (N, C·KH·KW, OH·OW), zero outside the image; PyTorch's `unfold`. Claim D8.
    Raises ValueError for a kernel larger than the padded image, or options that make no sense.
    """
    kernel, padding = pair("im2col", "kernel_size", kernel_size, 1), pair("im2col", "padding", padding, 0)
    windows = _windows("im2col", kernel, stride, padding, dilation)
    images = check_images("im2col", input)
    windows = check_fits("im2col", input, windows)
    columns = geometry.im2col(images, windows)
    n, c, kh, kw, oh, ow = columns.shape
    shape, size = input.shape, images.shape[2:]

    def gradient(g):
        return geometry.col2im(g.reshape(n, c, kh, kw, oh, ow), size, windows).reshape(shape)

    return columns.reshape(*input.shape[:-3], c * kh * kw, oh * ow), (gradient,)


@differentiable(columns=ARRAY, widen=True)
def col2im(
    columns: Array, output_size: Pair, kernel_size: Pair, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1
):
    """Each column entry added to the pixel it came from     ∂L/∂columns = im2col(g)

    (N, C·KH·KW, OH·OW) → (N, C, H, W) with `output_size` = (H, W); the adjoint of `im2col`, PyTorch's `fold`.
    Raises ValueError for columns that such an image does not have.
    """
    kernel, padding = pair("col2im", "kernel_size", kernel_size, 1), pair("col2im", "padding", padding, 0)
    windows = _windows("col2im", kernel, stride, padding, dilation)
    size = pair("col2im", "output_size", output_size, 1)
    (kh, kw), (oh, ow) = windows.kernel, windows.output_size(size)
    if columns.ndim not in (2, 3) or columns.shape[-2] % (kh * kw) or columns.shape[-1] != oh * ow:
        raise ValueError(f"col2im: columns must be (N, C·{kh * kw}, {oh * ow}) for output_size {size}; "
                         f"got {columns.shape}")
    lead, c = columns.shape[:-2], columns.shape[-2] // (kh * kw)
    n = lead[0] if lead else 1
    image = geometry.col2im(columns.reshape(n, c, kh, kw, oh, ow), size, windows)

    def gradient(g):
        return geometry.im2col(g.reshape(image.shape), windows).reshape(columns.shape)

    return image.reshape(*lead, c, *size), (gradient,)


def _windows(operation: str, kernel: tuple[int, int], stride: Pair, padding: Pair | str, dilation: Pair) -> Windows:
    stride, dilation = pair(operation, "stride", stride, 1), pair(operation, "dilation", dilation, 1)
    if isinstance(padding, str):
        if padding not in ("same", "valid") or (padding == "same" and stride != (1, 1)):
            raise ValueError(f"{operation}: padding must be numbers, 'valid', or 'same' with stride 1; "
                             f"got {padding!r} with stride {stride}")
        vertical, horizontal = (d * (k - 1) if padding == "same" else 0 for k, d in zip(kernel, dilation))
        around = (vertical // 2, vertical - vertical // 2), (horizontal // 2, horizontal - horizontal // 2)
    else:
        vertical, horizontal = pair(operation, "padding", padding, 0)
        around = (vertical, vertical), (horizontal, horizontal)
    if min(kernel) < 1:
        raise ValueError(f"{operation}: the kernel must be at least 1 × 1; got {tuple(kernel)}")
    return Windows((kernel[0], kernel[1]), stride, around, dilation)


def _check_channels(operation: str, groups: int, input_channels: int, output_channels: int) -> None:
    if not isinstance(groups, Integral) or groups < 1 or input_channels % groups or output_channels % groups:
        raise ValueError(f"{operation}: groups={groups} must divide the {input_channels} input channels and the "
                         f"{output_channels} output channels")


def _check_bias(operation: str, bias: Array | None, channels: int) -> None:
    if bias is not None and bias.shape != (channels,):
        raise ValueError(f"{operation}: bias must have shape ({channels},), one value an output channel; "
                         f"got {bias.shape}")
