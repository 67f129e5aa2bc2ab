"""A forward and backward pass as one CUDA graph: the GPU runs all its kernels by itself, without Python in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..autograd import Tensor
from ..backend import DeviceError, generator, gpu

Compute = Callable[..., tuple[Tensor, ...]]


class CapturedPass:
    """``pass_(*inputs)`` does what ``compute(*inputs)``, which ends in ``backward()``, does to `parameters`.

    `inputs` are tensors on a GPU, and `compute` returns a tuple of tensors. The first call runs `compute`; the first
    that repeats the shapes and dtypes of the one before captures it. From then on calls with these launch the graph,
    and others run `compute`. Every `.grad` is that of this call alone. Gradients are written to the same memory in each
    launch; what is returned is the caller's.

    `compute` must do the same each time: no random numbers, no choice by values, no waiting for the GPU. Raises
    ValueError for random numbers, DeviceError for parameters on the CPU, and what CUDA raises for the rest.
    """

    def __init__(self, compute: Compute, parameters: Sequence[Tensor]):
        self.compute, self.parameters = compute, list(parameters)
        if any(parameter.device == "cpu" for parameter in self.parameters):
            raise DeviceError("a pass can be captured on a GPU only; the parameters are on the CPU: model.to('gpu')")
        self._seen: Any = None
        self._graph: Any = None

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        kinds = [(x.shape, x.dtype, x.device) for x in inputs]
        if self._seen != kinds:
            if self._graph is None:
                self._seen = kinds  # the next of this kind finds all kernels compiled
            return self._compute(inputs)
        if self._graph is None:
            self._capture(inputs)
        for held, x in zip(self._inputs, inputs):
            held.data[...] = x.data
        self._graph.launch()
        for parameter, gradient in zip(self.parameters, self._gradients):
            parameter.grad = gradient
        return tuple(Tensor(x.data.copy()) for x in self._outputs)

    def _compute(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        for parameter in self.parameters:
            parameter.grad = None
        return self.compute(*inputs)

    def _capture(self, inputs: Sequence[Tensor]) -> None:
        cupy, device = gpu(inputs[0].device)
        random = generator().bit_generator.state
        self._inputs = [Tensor(x.data.copy()) for x in inputs]
        self._memory = cupy.cuda.MemoryPool()  # of its own: nobody else gets what a launch will write to
        stream = cupy.cuda.Stream(non_blocking=True)
        with device, stream, cupy.cuda.using_allocator(self._memory.malloc):
            stream.begin_capture()
            try:
                self._outputs = [x.detach() for x in self._compute(self._inputs)]
            finally:
                graph = stream.end_capture()
        if generator().bit_generator.state != random:
            generator().bit_generator.state = random
            raise ValueError("a pass that draws random numbers, as dropout does, cannot be captured: "
                             "it would draw the same each time")
        self._gradients = [parameter.grad for parameter in self.parameters]
        self._graph = graph
