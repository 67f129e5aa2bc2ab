"""Looking inside a trained network, as Zeiler and Fergus did with ZFNet (*Visualizing and Understanding Convolutional
Networks*, 2014): which pixels a unit answers to, and which ones a decision hangs on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import functional as F
from ..autograd import Node, Tensor, is_grad_enabled, no_grad
from ..backend import Array, array_module, to_device
from ..nn import Module
from ..nn.module import dtype_and_device, keeping_modes


def deconvnet(model: Module, image: Any, layer: str, channel: int, position: tuple[int, int] | None = None) -> Tensor:
    """What in `image` (C, H, W) a unit answers to: its activation, carried back to the pixels, (C, H, W).

    The unit is in feature map `channel` of the output of the module named `layer`, as in `state_dict`, at `position` =
    (row, column); by default where the map is largest. All others are set to 0, and each operation on the way is undone
    as in section 2.1: max pooling by its switches, ReLU by a ReLU, convolution by the same filters transposed.
    Response normalisation and dropout are passed by. The model is used in evaluation mode, and left in its own.

    Raises ValueError for a layer, channel or position that is not there, and for operations other than these;
    RuntimeError under `no_grad`, which would keep the way back from being recorded.
    """
    if not is_grad_enabled():
        raise RuntimeError("deconvnet: the way back to the pixels is not recorded under no_grad(); call it outside")
    modules = dict(model.named_modules())
    if layer not in modules:
        raise ValueError(f"deconvnet: there is no layer {layer!r}; choose from {', '.join(filter(None, modules))}")
    pixels, outputs = _pixels(model, image), []
    if pixels.ndim != 3:
        raise ValueError(f"deconvnet: takes one image (C, H, W); got shape {pixels.shape}")
    with keeping_modes(model), modules[layer].register_forward_hook(lambda *call: outputs.append(call[-1])):
        model.eval()(Tensor(pixels[None], requires_grad=True))
    if not outputs:
        raise ValueError(f"deconvnet: layer {layer!r} does not run in evaluation mode")
    output = outputs[0]
    if output.ndim != 4:
        raise ValueError(f"deconvnet: layer {layer!r} gives {output.shape}, not feature maps (N, C, H, W)")
    maps = output.data[0]
    if not 0 <= channel < len(maps):
        raise ValueError(f"deconvnet: layer {layer!r} has channels 0 to {len(maps) - 1}; got {channel}")
    if position is None:
        row, column = divmod(int(maps[channel].argmax()), maps.shape[2])
    else:
        row, column = position
    if not (0 <= row < maps.shape[1] and 0 <= column < maps.shape[2]):
        raise ValueError(f"deconvnet: the maps of layer {layer!r} are {maps.shape[1]} × {maps.shape[2]}; "
                         f"there is no position ({row}, {column})")
    signal = array_module(maps).zeros_like(output.data)
    signal[0, channel, row, column] = maps[channel, row, column]
    source: Any = output.node or output
    while isinstance(source, Node):
        if source.operation not in _UNDO:
            raise ValueError(f"deconvnet: cannot undo {source.operation}; it knows {', '.join(_UNDO)}")
        signal, source = _UNDO[source.operation](source, signal), source.sources[0]
    return Tensor(signal[0])


_UNDO: dict[str, Callable[[Node, Array], Array]] = {
    # The gradient of a convolution is the transposed one, that of a pool follows its switches.
    **dict.fromkeys(("conv2d", "max_pool2d"), lambda node, signal: node.input_gradient(0, signal)),
    "relu": lambda node, signal: array_module(signal).maximum(signal, 0),
    **dict.fromkeys(("local_response_norm", "dropout"), lambda node, signal: signal),
}


def occlusion(
    model: Module, images: Any, labels: Any, size: int, stride: int = 1, value: float = 0.0
) -> np.ndarray:
    """How likely each image is of its class when a square of it is covered, by where the square is (section 4.2).

    `images` (N, C, H, W), `labels` (N); a square of `size` × `size` pixels of `value` moves by `stride`. Gives the
    softmax probabilities (N, ⌊(H − size) / stride⌋ + 1, ⌊(W − size) / stride⌋ + 1). The model is used in evaluation
    mode, and left in its own. Raises ValueError for a square that does not fit, and for labels that are not one
    an image, or no class of the model.
    """
    pixels = _pixels(model, images)
    classes = np.asarray(labels.to("cpu").data if isinstance(labels, Tensor) else labels, np.int64)
    if pixels.ndim != 4 or classes.shape != pixels.shape[:1]:
        raise ValueError(f"occlusion: takes images (N, C, H, W) and their labels (N); got {pixels.shape} and "
                         f"{classes.shape}")
    h, w = pixels.shape[2:]
    if not 1 <= size <= min(h, w) or stride < 1:
        raise ValueError(f"occlusion: a square of {size} pixels, moved by {stride}, does not fit images of {h} × {w}")
    rows, columns = range(0, h - size + 1, stride), range(0, w - size + 1, stride)
    result = np.empty((len(pixels), len(rows), len(columns)), pixels.dtype)
    with keeping_modes(model), no_grad():
        model.eval()
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                covered = pixels.copy()
                covered[:, :, row : row + size, column : column + size] = value
                result[:, i, j] = _likelihoods(model(Tensor(covered)), classes)
    return result


def _likelihoods(output: Any, classes: np.ndarray) -> np.ndarray:
    """The softmax of each image's class."""
    a = F.softmax(output[0] if isinstance(output, tuple) else output, 1).to("cpu").data
    if not ((classes >= 0) & (classes < a.shape[1])).all():
        raise ValueError(f"occlusion: the model tells classes 0 to {a.shape[1] - 1} apart; "
                         f"got labels {classes.tolist()}")
    return a[np.arange(len(classes)), classes]


def _pixels(model: Module, images: Any) -> Array:
    """Images as an array of the dtype and on the device of the model's weights."""
    dtype, device = dtype_and_device(model)
    values = images.data if isinstance(images, Tensor) else np.asarray(images)
    return to_device(values, device).astype(dtype)
