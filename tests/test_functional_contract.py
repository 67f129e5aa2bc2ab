"""What every operation keeps, whatever it computes: PyTorch's signature, the dtype, its arguments, frozen inputs."""

import inspect

import cases
import numpy as np
import pytest
from cases import assert_close, gradients, mentions

import minidl as dl
from minidl import functional as F

WINDOW = "stride=1, padding=0, dilation=1"

SIGNATURES = {
    "conv2d": f"(input, weight, bias=None, {WINDOW}, groups=1)",
    "conv_transpose2d": "(input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1)",
    "im2col": f"(input, kernel_size, {WINDOW})",
    "col2im": f"(columns, output_size, kernel_size, {WINDOW})",
    "max_pool2d": "(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False)",
    "avg_pool2d": "(input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, "
    "divisor_override=None)",
    "adaptive_avg_pool2d": "(input, output_size)",
    "local_response_norm": "(input, size, alpha=0.0001, beta=0.75, k=1.0)",
    "batch_norm": "(input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-05)",
    "linear": "(input, weight, bias=None)",
    "dropout": "(input, p=0.5, training=True, inplace=False)",
    "relu": "(input, inplace=False)",
    "sigmoid": "(input)",
    "tanh": "(input)",
    "softmax": "(input, dim)",
    "log_softmax": "(input, dim)",
    "cross_entropy": "(input, target, weight=None, *, ignore_index=-100, reduction='mean', label_smoothing=0.0)",
    "nll_loss": "(input, target, weight=None, *, ignore_index=-100, reduction='mean')",
    "binary_cross_entropy": "(input, target, weight=None, *, reduction='mean')",
    "binary_cross_entropy_with_logits": "(input, target, weight=None, *, reduction='mean', pos_weight=None)",
    "mse_loss": "(input, target, *, reduction='mean')",
    "pad": "(input, pad, mode='constant', value=None)",
    "cat": "(tensors, dim=0)",
}

RNG = np.random.default_rng(0)
IMAGE, FILTERS, PER_CHANNEL = RNG.standard_normal((2, 3, 5, 4)), RNG.standard_normal((3, 3, 2, 3)), RNG.random(3) + 0.5
SCORES, SHARES = RNG.standard_normal((4, 3)), RNG.uniform(0.1, 0.9, (4, 3))
LABELS = np.array([2, 0, 1, 1])


def constant(array, like):
    """An array that is no leaf, of the dtype of the tensor beside it."""
    return dl.tensor(array.astype(like.dtype))


def dropout(x):
    dl.manual_seed(0)
    return F.dropout(x, 0.3)


# an ordinary call of every operation: the tensors that carry gradients are the arguments
CALLS = {
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1), IMAGE, FILTERS, PER_CHANNEL),
    "conv_transpose2d": (lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2), IMAGE, FILTERS, PER_CHANNEL),
    "im2col": (lambda x: F.im2col(x, (2, 3), padding=1), IMAGE),
    "col2im": (lambda x: F.col2im(x.reshape(x.shape[0], 12, 5), (2, 6), (2, 2)), IMAGE),
    "max_pool2d": (lambda x: F.max_pool2d(x, 3, stride=2, padding=1), IMAGE),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, (2, 3), padding=1, ceil_mode=True), IMAGE),
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, (2, 3)), IMAGE),
    "local_response_norm": (lambda x: F.local_response_norm(x, 2, alpha=1.0), IMAGE),
    "batch_norm": (
        lambda x, w, b: F.batch_norm(
            x, constant(np.zeros(3), x), constant(np.ones(3), x), w, b, training=len(x.data) > 0
        ),
        IMAGE,
        PER_CHANNEL,
        PER_CHANNEL,
    ),
    "linear": (F.linear, SCORES, FILTERS[:2, :, 0, 0], PER_CHANNEL[:2]),
    "dropout": (dropout, IMAGE),
    "relu": (F.relu, IMAGE),
    "sigmoid": (F.sigmoid, IMAGE),
    "tanh": (F.tanh, IMAGE),
    "softmax": (lambda x: F.softmax(x, 1), IMAGE),
    "log_softmax": (lambda x: F.log_softmax(x, -1), IMAGE),
    "cross_entropy": (lambda x: F.cross_entropy(x, dl.tensor(LABELS), constant(PER_CHANNEL, x)), SCORES),
    "nll_loss": (lambda x: F.nll_loss(x, dl.tensor(LABELS)), SCORES),
    "binary_cross_entropy": (lambda x: F.binary_cross_entropy(x, constant(SHARES, x)), SHARES),
    "binary_cross_entropy_with_logits": (
        lambda x: F.binary_cross_entropy_with_logits(x, constant(SHARES, x), pos_weight=constant(PER_CHANNEL, x)),
        SCORES,
    ),
    "mse_loss": (F.mse_loss, SCORES, SHARES),
    "pad": (lambda x: F.pad(x, (1, 2, 0, 1), value=0.5), IMAGE),
    "cat": (lambda x, y: F.cat([x, y], 1), IMAGE, IMAGE[:, :2]),
}

every_operation = pytest.mark.parametrize("name", SIGNATURES)


@every_operation
def test_signature_is_pytorchs(name):
    signature = inspect.signature(getattr(F, name))
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    assert str(inspect.Signature(bare)) == SIGNATURES[name]


@every_operation
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_is_kept(name, dtype):
    function, *arrays = CALLS[name]
    tensors = [cases.leaf(array.astype(dtype)) for array in arrays]
    result = function(*tensors)
    assert result.dtype == dtype
    result.backward(dl.tensor(np.ones(result.shape, dtype)))
    assert [tensor.grad.dtype for tensor in tensors] == [dtype] * len(tensors)


@every_operation
def test_float32_is_as_good_as_it_can_be(name):
    """The same gradients as in float64, up to float32's rounding."""
    function, *arrays = CALLS[name]
    singles = gradients(function, *(array.astype(np.float32) for array in arrays))
    for single, double in zip(singles, gradients(function, *arrays), strict=True):
        assert_close(single, double, 1e-4)


@every_operation
def test_views_of_tensors_are_as_good_as_copies(name):
    """Each input transposed and reversed in memory, and put right by tensor operations just before the call."""

    def scrambled(array):
        return np.ascontiguousarray(np.flip(array).T)

    def put_right(tensor):
        return tensor.T[(slice(None, None, -1),) * len(tensor.shape)]

    function, *arrays = CALLS[name]
    found = gradients(lambda *tensors: function(*map(put_right, tensors)), *map(scrambled, arrays))
    for gradient, expected in zip(found, gradients(function, *arrays), strict=True):
        assert_close(gradient, scrambled(expected))


@every_operation
def test_only_what_asks_for_a_gradient_gets_one(name):
    function, *arrays = CALLS[name]
    assert not function(*map(dl.tensor, arrays)).requires_grad
    expected = gradients(function, *arrays)
    for chosen in range(len(arrays)):
        tensors = [dl.tensor(array, requires_grad=i == chosen) for i, array in enumerate(arrays)]
        result = function(*tensors)
        result.backward(dl.tensor(cases.cotangent(result.shape)))
        assert_close(tensors[chosen].grad.data, expected[chosen])
        assert all(tensor.grad is None for tensor in tensors if tensor is not tensors[chosen])


@every_operation
def test_arguments_are_left_alone(name):
    function, *arrays = CALLS[name]
    tensors = [cases.leaf(array.copy()) for array in arrays]
    result = function(*tensors)
    g = cases.cotangent(result.shape)
    started = dl.tensor(g.copy())
    result.backward(started)
    for array, tensor in zip([*arrays, g], [*tensors, started], strict=True):
        assert_close(tensor.data, array, 0)


@pytest.mark.parametrize("name", [name for name in CALLS if "loss" not in name and "entropy" not in name])
def test_an_empty_batch_passes_through(name):
    """Results and gradients of no images; what the batch shares gets a gradient of zeros."""
    function, batch, *shared = CALLS[name]
    shared = [array[:0] for array in shared] if name == "cat" else shared
    first, *rest = gradients(function, batch[:0], *shared)
    assert first.shape == (0, *batch.shape[1:])
    assert not any(gradient.any() for gradient in rest)


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d", "linear"])
@pytest.mark.parametrize("other", [0, 1, 2], ids=["input", "weight", "bias"])
def test_two_precisions_are_refused(name, other):
    """As PyTorch refuses them: one float64 array would silently double the memory and the time of a network."""
    function, *arrays = CALLS[name]
    arrays[other] = arrays[other].astype(np.float32)
    with pytest.raises(TypeError, match=mentions("float32", "float64")):
        function(*map(dl.tensor, arrays))


@every_operation
def test_objects_are_refused(name):
    function, *arrays = CALLS[name]
    with pytest.raises(TypeError, match="object"):
        function(*(dl.tensor(array.astype(object)) for array in arrays))


@pytest.mark.parametrize("name", ["conv2d", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "im2col"])
def test_one_image_needs_no_batch(name):
    function, batch, *rest = CALLS[name]
    together, alone = (function(*map(dl.tensor, (image, *rest))) for image in (batch[:1], batch[0]))
    assert_close(alone.data, together.data[0])
