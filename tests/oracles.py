"""Every operation once more, as naive loops in float64: slow, and easy to believe.

Nothing here imports minidl, and no trick of it is used: no strides, no matrix products, no broadcasting of windows.
Signatures and meanings are PyTorch's. Letters as in the lecture: N images, C channels, F filters, H × W pixels,
KH × KW kernels, OH × OW outputs; n, c, f, i, j and (kh, kw) count them, g is the gradient of the loss by the output.
"""

import functools
import math

import numpy as np


def pair(value):
    """PyTorch's shorthand: one number stands for both axes."""
    return tuple(value) if isinstance(value, tuple | list) else (value, value)


def batched(operation):
    """Let an operation on (N, C, H, W) take a single image (C, H, W) as well."""

    @functools.wraps(operation)
    def on_any(x, *args, **options):
        return operation(x, *args, **options) if x.ndim == 4 else operation(x[None], *args, **options)[0]

    return on_any


# Convolution


def window_starts(size, kernel, stride, dilation):
    return range(0, size - dilation * (kernel - 1), stride)


def conv2d_windows(padded, weight, stride, dilation, groups):
    """For every output (n, f, i, j): the index, into the padded input, of the C/groups × KH × KW values it reads."""
    (filters, depth, kh, kw), (sh, sw), (dh, dw) = weight.shape, pair(stride), pair(dilation)
    for n in range(len(padded)):
        for f in range(filters):
            first = f // (filters // groups) * depth
            for i, top in enumerate(window_starts(padded.shape[2], kh, sh, dh)):
                for j, left in enumerate(window_starts(padded.shape[3], kw, sw, dw)):
                    window = np.ix_(
                        [first + c for c in range(depth)],
                        [top + k * dh for k in range(kh)],
                        [left + k * dw for k in range(kw)],
                    )
                    yield (n, f, i, j), (n, *window)


def conv2d_margins(weight, padding, dilation):
    """What is added (before, after) along H and along W; `same` puts the odd one after, as PyTorch does."""
    if padding == "same":
        spare = [d * (k - 1) for d, k in zip(pair(dilation), weight.shape[2:], strict=True)]
        return [(s // 2, s - s // 2) for s in spare]
    return [(p, p) for p in pair(0 if padding == "valid" else padding)]


@batched
def conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    padded = np.pad(x, [(0, 0), (0, 0), *conv2d_margins(weight, padding, dilation)])
    (sh, sw), (dh, dw), (kh, kw) = pair(stride), pair(dilation), weight.shape[2:]
    rows, columns = (len(window_starts(*axis)) for axis in zip(padded.shape[2:], (kh, kw), (sh, sw), (dh, dw)))
    out = np.zeros((len(x), len(weight), rows, columns))
    for (n, f, i, j), window in conv2d_windows(padded, weight, stride, dilation, groups):
        out[n, f, i, j] = np.sum(padded[window] * weight[f]) + (0 if bias is None else bias[f])
    return out


def conv2d_gradients(x, weight, g, stride=1, padding=0, dilation=1, groups=1):
    """∂L/∂x, ∂L/∂w and ∂L/∂b for one g of the output's shape, x batched."""
    (top, bottom), (left, right) = conv2d_margins(weight, padding, dilation)
    padded = np.pad(x, [(0, 0), (0, 0), (top, bottom), (left, right)])
    grad_padded, grad_weight, grad_bias = np.zeros(padded.shape), np.zeros(weight.shape), np.zeros(len(weight))
    for (n, f, i, j), window in conv2d_windows(padded, weight, stride, dilation, groups):
        grad_padded[window] += g[n, f, i, j] * weight[f]
        grad_weight[f] += g[n, f, i, j] * padded[window]
        grad_bias[f] += g[n, f, i, j]
    height, width = x.shape[2:]
    return grad_padded[:, :, top : top + height, left : left + width], grad_weight, grad_bias


@batched
def conv_transpose2d(x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """Each input value paints the kernel, scaled by it, on the output; `padding` is cut off the painting's border."""
    (channels, depth, kh, kw), (count, _, height, width) = weight.shape, x.shape
    (sh, sw), (ph, pw), (dh, dw), (oh, ow) = pair(stride), pair(padding), pair(dilation), pair(output_padding)
    rows, columns = (height - 1) * sh + dh * (kh - 1) + 1 + oh, (width - 1) * sw + dw * (kw - 1) + 1 + ow
    out = np.zeros((count, depth * groups, rows, columns))
    for n, c, f, i, j, a, b in np.ndindex(count, channels, depth, height, width, kh, kw):
        group = c // (channels // groups)
        out[n, group * depth + f, i * sh + a * dh, j * sw + b * dw] += x[n, c, i, j] * weight[c, f, a, b]
    if bias is not None:
        for f in range(depth * groups):
            out[:, f] += bias[f]
    return out[:, :, ph : rows - ph, pw : columns - pw]


def im2col_taps(shape, kernel_size, stride, padding, dilation):
    """Each entry (n, row, column) of the matrix of columns, and the entry of the padded image that it copies."""
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = map(pair, (kernel_size, stride, padding, dilation))
    count, channels, height, width = shape
    rows = len(window_starts(height + 2 * ph, kh, sh, dh))
    columns = len(window_starts(width + 2 * pw, kw, sw, dw))
    for n, c, a, b, i, j in np.ndindex(count, channels, kh, kw, rows, columns):
        yield (n, (c * kh + a) * kw + b, i * columns + j), (n, c, i * sh + a * dh, j * sw + b * dw)


def im2col_shape(shape, kernel_size, stride, padding, dilation):
    kernel, strides, paddings, dilations = map(pair, (kernel_size, stride, padding, dilation))
    sizes = (size + 2 * p for size, p in zip(shape[2:], paddings, strict=True))
    places = math.prod(len(window_starts(*axis)) for axis in zip(sizes, kernel, strides, dilations))
    return shape[0], shape[1] * math.prod(kernel), places


@batched
def im2col(x, kernel_size, stride=1, padding=0, dilation=1):
    ph, pw = pair(padding)
    padded = np.pad(x, [(0, 0), (0, 0), (ph, ph), (pw, pw)])
    columns = np.zeros(im2col_shape(x.shape, kernel_size, stride, padding, dilation))
    for entry, pixel in im2col_taps(x.shape, kernel_size, stride, padding, dilation):
        columns[entry] = padded[pixel]
    return columns


def col2im(columns, output_size, kernel_size, stride=1, padding=0, dilation=1):
    if columns.ndim == 2:
        return col2im(columns[None], output_size, kernel_size, stride, padding, dilation)[0]
    (height, width), (ph, pw) = pair(output_size), pair(padding)
    channels = columns.shape[1] // math.prod(pair(kernel_size))
    padded = np.zeros((len(columns), channels, height + 2 * ph, width + 2 * pw))
    shape = len(columns), channels, height, width
    for entry, pixel in im2col_taps(shape, kernel_size, stride, padding, dilation):
        padded[pixel] += columns[entry]
    return padded[:, :, ph : ph + height, pw : pw + width]


def linear(x, weight, bias=None):
    out = np.zeros((*x.shape[:-1], len(weight)))
    for place in np.ndindex(*x.shape[:-1]):
        for f in range(len(weight)):
            out[(*place, f)] = sum(x[place] * weight[f]) + (0 if bias is None else bias[f])
    return out


# Pooling


def pool_positions(size, kernel, stride, padding, dilation=1, ceil_mode=False):
    """For each output along one axis, the positions its window covers; those outside 0 … size − 1 are padding."""
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    last = math.ceil(room / stride) if ceil_mode else room // stride
    if ceil_mode and last * stride >= size + padding:
        last -= 1  # PyTorch's rule: the last window starts inside the input or its left padding
    return [[o * stride - padding + k * dilation for k in range(kernel)] for o in range(last + 1)]


def pool_windows(shape, kernel_size, stride, padding, dilation=1, ceil_mode=False):
    """Both axes' `pool_positions`; the stride of a pool is its kernel unless said otherwise."""
    stride = kernel_size if stride is None else stride
    kernel, strides, paddings, dilations = map(pair, (kernel_size, stride, padding, dilation))
    return [pool_positions(*axis, ceil_mode) for axis in zip(shape[-2:], kernel, strides, paddings, dilations)]


def inside(positions, size):
    return [p for p in positions if 0 <= p < size]


def max_pool2d_winners(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """For every output (n, c, i, j), the input entry that wins: the first, row by row, of the largest values."""
    count, channels, height, width = x.shape
    rows, columns = pool_windows(x.shape, kernel_size, stride, padding, dilation, ceil_mode)
    for n, c, i, j in np.ndindex(count, channels, len(rows), len(columns)):
        winner = None
        for row in inside(rows[i], height):
            for column in inside(columns[j], width):
                if winner is None or x[n, c, row, column] > x[winner]:
                    winner = n, c, row, column
        yield (n, c, i, j), winner


@batched
def max_pool2d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    rows, columns = pool_windows(x.shape, kernel_size, stride, padding, dilation, ceil_mode)
    out = np.full((*x.shape[:2], len(rows), len(columns)), -np.inf)
    for place, winner in max_pool2d_winners(x, kernel_size, stride, padding, dilation, ceil_mode):
        out[place] = x[winner]
    return out


def max_pool2d_gradient(x, g, **options):
    grad = np.zeros(x.shape)
    for place, winner in max_pool2d_winners(x, **options):
        grad[winner] += g[place]
    return grad


def avg_pool2d_shares(
    shape, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
):
    """For every output (n, c, i, j): the input entries it sums, and the number it divides the sum by."""
    count, channels, height, width = shape
    rows, columns = pool_windows(shape, kernel_size, stride, padding, 1, ceil_mode)
    ph, pw = pair(padding)
    for n, c, i, j in np.ndindex(count, channels, len(rows), len(columns)):
        entries = [(n, c, row, column) for row in inside(rows[i], height) for column in inside(columns[j], width)]
        # a ceiling may push the window past the padding: what lies beyond it is never counted
        within = sum(p < height + ph for p in rows[i]) * sum(p < width + pw for p in columns[j])
        yield (n, c, i, j), entries, divisor_override or (within if count_include_pad else len(entries))


@batched
def avg_pool2d(x, kernel_size, stride=None, padding=0, ceil_mode=False, **options):
    rows, columns = pool_windows(x.shape, kernel_size, stride, padding, 1, ceil_mode)
    out = np.zeros((*x.shape[:2], len(rows), len(columns)))
    for place, entries, divisor in avg_pool2d_shares(x.shape, kernel_size, stride, padding, ceil_mode, **options):
        out[place] = sum(x[entry] for entry in entries) / divisor
    return out


def avg_pool2d_gradient(x, g, **options):
    grad = np.zeros(x.shape)
    for place, entries, divisor in avg_pool2d_shares(x.shape, **options):
        for entry in entries:
            grad[entry] += g[place] / divisor
    return grad


@batched
def adaptive_avg_pool2d(x, output_size):
    """Output i of OH averages rows ⌊i H / OH⌋ to ⌈(i + 1) H / OH⌉ − 1, and columns likewise."""
    (height, width), wanted = x.shape[2:], pair(output_size)
    rows, columns = (size if out is None else out for out, size in zip(wanted, (height, width), strict=True))
    out = np.zeros((*x.shape[:2], rows, columns))
    for n, c, i, j in np.ndindex(*out.shape):
        top, bottom = math.floor(i * height / rows), math.ceil((i + 1) * height / rows)
        left, right = math.floor(j * width / columns), math.ceil((j + 1) * width / columns)
        out[n, c, i, j] = np.mean(x[n, c, top:bottom, left:right])
    return out


# Normalisation


def local_response_norm(x, size, alpha=1e-4, beta=0.75, k=1.0):
    """x / (k + alpha/size · Σ x²)^beta over `size` channels around each, of which ⌊size/2⌋ before it."""
    out, channels = np.zeros(x.shape), x.shape[1]
    for c in range(channels):
        total = np.zeros(x[:, c].shape)
        for neighbour in inside(range(c - size // 2, c - size // 2 + size), channels):
            total += x[:, neighbour] ** 2
        out[:, c] = x[:, c] / (k + alpha / size * total) ** beta
    return out


def batch_norm(x, running_mean=None, running_var=None, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    """Updates the running statistics where they are: with the unbiased variance, though it divides by the biased."""
    out = np.zeros(x.shape)
    for c in range(x.shape[1]):
        values = x[:, c]
        if training:
            count = values.size
            mean = values.sum() / count
            squares = ((values - mean) ** 2).sum()
            variance = squares / count
            if running_mean is not None:
                running_mean[c] = (1 - momentum) * running_mean[c] + momentum * mean
                running_var[c] = (1 - momentum) * running_var[c] + momentum * squares / (count - 1)
        else:
            mean, variance = running_mean[c], running_var[c]
        scale, shift = 1 if weight is None else weight[c], 0 if bias is None else bias[c]
        out[:, c] = (values - mean) / math.sqrt(variance + eps) * scale + shift
    return out


# Activations


def relu(x):
    return np.where(x > 0, x, 0.0)


def sigmoid(x):
    return np.array([1 / (1 + math.exp(-v)) if v >= 0 else math.exp(v) / (1 + math.exp(v)) for v in x.flat]).reshape(
        x.shape
    )


def tanh(x):
    return np.array([math.tanh(v) for v in x.flat]).reshape(x.shape)


def log_softmax(x, dim):
    rows = np.moveaxis(x, dim, -1)
    out = np.zeros(rows.shape)
    for place in np.ndindex(*rows.shape[:-1]):
        top = max(rows[place])
        out[place] = rows[place] - top - math.log(sum(math.exp(v - top) for v in rows[place]))
    return np.moveaxis(out, -1, dim)


def softmax(x, dim):
    return np.exp(log_softmax(x, dim))


# Losses


def reduce(losses, reduction):
    return {"none": lambda: losses, "sum": losses.sum, "mean": losses.mean}[reduction]()


def nll_loss(log_p, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    """−Σ_c w_c y_c log p_c, y from a class index or a distribution; the mean of class indices weighs each by w."""
    log_p = log_p if log_p.ndim == 1 else np.moveaxis(log_p, 1, -1)
    classes = log_p.shape[-1]
    weight = np.ones(classes) if weight is None else weight
    by_index = np.issubdtype(target.dtype, np.integer)
    y = target if by_index or target.ndim == 1 else np.moveaxis(target, 1, -1)
    losses, shares = np.zeros(log_p.shape[:-1]), np.zeros(log_p.shape[:-1])
    for place in np.ndindex(*losses.shape):
        if by_index and y[place] == ignore_index:
            continue
        wanted = np.eye(classes)[y[place]] if by_index else y[place]
        wanted = (1 - label_smoothing) * wanted + label_smoothing / classes
        losses[place] = -sum(weight * wanted * log_p[place])
        shares[place] = weight[y[place]] if by_index else 1
    return losses.sum() / shares.sum() if reduction == "mean" else reduce(losses, reduction)


def cross_entropy(x, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    log_p = log_softmax(x, 0 if x.ndim == 1 else 1)
    return nll_loss(log_p, target, weight, ignore_index, reduction, label_smoothing)


def binary_cross_entropy(x, target, weight=None, reduction="mean"):
    """−(y log x + (1 − y) log(1 − x)), the logarithms cut at −100 as PyTorch cuts them."""
    losses = np.zeros(x.shape)
    for place in np.ndindex(*x.shape):
        log_x, log_rest = (max(math.log(p), -100) if p > 0 else -100 for p in (x[place], 1 - x[place]))
        losses[place] = -(target[place] * log_x + (1 - target[place]) * log_rest)
    return reduce(losses if weight is None else losses * weight, reduction)


def binary_cross_entropy_with_logits(x, target, weight=None, reduction="mean", pos_weight=None):
    positive = np.broadcast_to(1.0 if pos_weight is None else pos_weight, x.shape)
    losses = np.zeros(x.shape)
    for place in np.ndindex(*x.shape):
        log_yes, log_no = (-max(-v, 0) - math.log1p(math.exp(-abs(v))) for v in (x[place], -x[place]))  # log σ(±x)
        losses[place] = -(positive[place] * target[place] * log_yes + (1 - target[place]) * log_no)
    return reduce(losses if weight is None else losses * weight, reduction)


def mse_loss(x, target, reduction="mean"):
    losses = np.array([(a - b) ** 2 for a, b in zip(x.flat, target.flat, strict=True)]).reshape(x.shape)
    return reduce(losses, reduction)


# Shapes


def pad(x, pad, mode="constant", value=None):
    """`pad` lists (before, after) from the last axis backwards; a negative entry crops."""
    margins = [(0, 0)] * (x.ndim - len(pad) // 2) + [tuple(pad[i : i + 2]) for i in range(0, len(pad), 2)][::-1]
    out = np.zeros([size + before + after for size, (before, after) in zip(x.shape, margins, strict=True)])
    for place in np.ndindex(*out.shape):
        source = [p - before for p, (before, _) in zip(place, margins, strict=True)]
        if mode == "constant" and not all(0 <= p < size for p, size in zip(source, x.shape, strict=True)):
            out[place] = value or 0
        else:
            out[place] = x[tuple(PAD_SOURCES[mode](p, size) for p, size in zip(source, x.shape, strict=True))]
    return out


PAD_SOURCES = {
    "constant": lambda p, size: p,
    "reflect": lambda p, size: -p if p < 0 else 2 * (size - 1) - p if p >= size else p,
    "replicate": lambda p, size: min(max(p, 0), size - 1),
    "circular": lambda p, size: p % size,
}
