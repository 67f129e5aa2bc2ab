"""Unit 07, VGG: what one value sees through a stack of layers. Claim F8."""

from __future__ import annotations

import math

from ..definition import Exercise


def receptive_field(layers):
    size, jump = 1, 1
    for kernel, stride in layers:
        size += (kernel - 1) * jump
        jump *= stride
    return size


def _cases(draw):
    yield "no layer: a pixel sees itself", ([],)
    yield "one 3 × 3 convolution", ([(3, 1)],)
    yield "two 3 × 3 convolutions see a 5 × 5", ([(3, 1), (3, 1)],)
    yield "three 3 × 3 convolutions see a 7 × 7", ([(3, 1), (3, 1), (3, 1)],)
    yield "two 2 × 2 pools", ([(2, 2), (2, 2)],)
    yield "a convolution behind a pool", ([(2, 2), (3, 1)],)
    yield "a convolution before a pool", ([(3, 1), (2, 2)],)
    yield "one layer of stride 4, AlexNet's conv1", ([(11, 4)],)
    yield "LeNet-5: CONV-POOL-CONV-POOL", ([(5, 1), (2, 2), (5, 1), (2, 2)],)
    yield "AlexNet, up to the last pool", (
        [(11, 4), (3, 2), (5, 1), (3, 2), (3, 1), (3, 1), (3, 1), (3, 2)],)
    yield "VGG-16, up to the last pool", (
        [(3, 1)] * 2 + [(2, 2)] + [(3, 1)] * 2 + [(2, 2)] + ([(3, 1)] * 3 + [(2, 2)]) * 3,)


def _with_stride_first(layers):
    size, jump = 1, 1
    for kernel, stride in layers:
        jump *= stride
        size += (kernel - 1) * jump
    return size


def _whole_kernels(layers):
    return receptive_field([(kernel + 1, stride) for kernel, stride in layers])


def _from_the_last(layers):
    return receptive_field(layers[::-1])


def _additive_jumps(layers):
    size, jump = 1, 1
    for kernel, stride in layers:
        size += (kernel - 1) * jump
        jump += stride - 1
    return size


RECEPTIVE_FIELD = Exercise(
    "receptive_field(layers (a list of pairs kernel, stride)) -> pixels", receptive_field, _cases,
    {"pixels": {
        "the strides are ignored: behind a stride of 2, one step is two pixels":
            lambda layers: 1 + sum(kernel - 1 for kernel, _ in layers),
        "a layer's own stride counts for its own window: it counts for the layers behind only": _with_stride_first,
        "only the stride of the layer before counts: strides multiply up through all layers before":
            lambda layers: 1 + sum((kernel - 1) * before for (kernel, _), before in
                                   zip(layers, [1, *(stride for _, stride in layers)])),
        "each layer counts with its own stride alone: strides multiply up through all layers before":
            lambda layers: 1 + sum((kernel - 1) * stride for kernel, stride in layers),
        "kernels are multiplied: each adds kernel − 1 steps":
            lambda layers: math.prod(kernel for kernel, _ in layers),
        "kernels are added as they are: each adds kernel − 1, for its first pixel is there already":
            lambda layers: sum(kernel for kernel, _ in layers),
        "each layer adds kernel steps: it adds kernel − 1, for one pixel is there already": _whole_kernels,
        "the first pixel is forgotten: without layers the field is 1, not 0":
            lambda layers: receptive_field(layers) - 1,
        "the list is read from its last layer, as if it came first: it begins at the image": _from_the_last,
        "the strides add up: they multiply, two of 2 make a step of 4 pixels": _additive_jumps,
        "only the last layer counts: it sees through all those before": lambda layers: layers[-1][0] if layers else 1,
        "it is the number of pixels of the square: the length of its side is asked for":
            lambda layers: receptive_field(layers) ** 2,
        "it is the step from one value to the next, the product of the strides":
            lambda layers: math.prod(stride for _, stride in layers),
    }},
)

EXERCISES = (RECEPTIVE_FIELD,)
