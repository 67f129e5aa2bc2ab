"""PyTorch's own samples of every operation that minidl shares, from the tables that PyTorch tests itself with.

A sample agrees (value, dtype, shape, and gradients of a random cotangent) or is refused for a reason that `REFUSED`
names; a call that PyTorch refuses is refused here too, or `ACCEPTED` says why not. How many of each is printed.

The samples are in `torch.testing._internal`, which needs the package expecttest beside PyTorch.
"""

import collections
import inspect
import operator
import re
import warnings

import cases
import numpy as np
import pytest

import minidl as dl
from minidl import functional as F

pytestmark = pytest.mark.slow

# PyTorch's arguments on the left, minidl's call on the right
PEERS = {
    "abs": lambda x: x.abs(),
    "neg": lambda x: -x,
    "exp": lambda x: x.exp(),
    "log": lambda x: x.log(),
    "sqrt": lambda x: x.sqrt(),
    "sigmoid": lambda x: x.sigmoid(),
    "tanh": lambda x: x.tanh(),
    "clone": lambda x: x.clone(),
    "nn.functional.relu": F.relu,
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div no_rounding_mode": lambda x, y: x / y,
    "true_divide": lambda x, y: x / y,
    "pow": lambda x, y: x**y,
    "__radd__": lambda x, y: y + x,
    "__rsub__": lambda x, y: y - x,
    "__rmul__": lambda x, y: y * x,
    "__rdiv__": lambda x, y: y / x,
    "__rpow__": lambda x, y: y**x,
    "__rmatmul__": lambda x, y: y @ x,
    "matmul": lambda x, y: x @ y,
    "mm": lambda x, y: x @ y,
    "mv": lambda x, y: x @ y,
    "dot": lambda x, y: x @ y,
    **{name: getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    "sum": lambda x, dim=None, keepdim=False: x.sum(axis=axes(dim), keepdims=keepdim),
    "mean": lambda x, dim=None, keepdim=False: x.mean(axis=axes(dim), keepdims=keepdim),
    "var": lambda x, dim=None, unbiased=True, keepdim=False, correction=None: x.var(
        axis=axes(dim), ddof=unbiased if correction is None else correction, keepdims=keepdim
    ),
    "var unbiased": lambda x, unbiased: x.var(ddof=int(unbiased)),
    "amax": lambda x, dim=None, keepdim=False: x.max(axis=axes(dim), keepdims=keepdim),
    "amin": lambda x, dim=None, keepdim=False: x.min(axis=axes(dim), keepdims=keepdim),
    "max reduction_no_dim": lambda x: x.max(),
    "min reduction_no_dim": lambda x: x.min(),
    "max reduction_with_dim": lambda x, dim, keepdim=False: x.max(axis=dim, keepdims=keepdim),
    "min reduction_with_dim": lambda x, dim, keepdim=False: x.min(axis=dim, keepdims=keepdim),
    "argmax": lambda x, dim=None: x.argmax(dim),
    "item": lambda x: x.item(),
    "reshape": lambda x, shape: x.reshape(shape),
    "flatten": lambda x, start_dim=0, end_dim=-1: x.flatten(start_dim, end_dim),
    "ravel": lambda x: x.flatten(),
    "permute": lambda x, dims: x.transpose(dims),
    "__getitem__": lambda x, index: x[index],
    "cat": F.cat,
    "to": lambda x, *where, memory_format: x.to(*(value for value in where if not isinstance(value, bool))),
    **{f"nn.functional.pad {mode}": F.pad for mode in ("constant", "reflect", "replicate", "replicate_negative",
                                                       "circular")},
    "nn.functional.linear": F.linear,
    "nn.functional.conv2d": F.conv2d,
    "nn.functional.conv_transpose2d": F.conv_transpose2d,
    "nn.functional.unfold": lambda x, kernel_size, dilation=1, padding=0, stride=1: F.im2col(
        x, kernel_size, stride, padding, dilation
    ),
    "nn.functional.max_pool2d": lambda x, return_indices, **options: F.max_pool2d(x, **options),
    "nn.functional.avg_pool2d": F.avg_pool2d,
    "nn.functional.adaptive_avg_pool2d": F.adaptive_avg_pool2d,
    "nn.functional.local_response_norm": F.local_response_norm,
    "nn.functional.batch_norm": F.batch_norm,
    "nn.functional.dropout": lambda x, p=0.5, training=True: dropout(x, p, training),
    "softmax": F.softmax,
    "log_softmax": F.log_softmax,
    "nn.functional.cross_entropy": F.cross_entropy,
    "nn.functional.nll_loss": F.nll_loss,
    "nn.functional.binary_cross_entropy": F.binary_cross_entropy,
    "nn.functional.binary_cross_entropy_with_logits": F.binary_cross_entropy_with_logits,
    "nn.functional.mse_loss": F.mse_loss,
}
DTYPES = ["float64", "float32", "float16", "int64", "uint8", "bool"]
TOLERANCES = {"float64": (1e-7, 1e-7), "float32": (1.3e-6, 1e-5), "float16": (2e-3, 1e-5)}
"""Relative (to each number and to the largest one) and absolute: PyTorch's own, except for float16's relative one."""
REFUSALS = (TypeError, ValueError, IndexError, RuntimeError)

REFUSED = [  # operation, pattern of the message, reason
    ("add|sub", "keyword argument 'alpha'", "a keyword that Python's operators do not have"),
    ("argmax", "keyword argument 'keepdim'", "a keyword that minidl does not have"),
    ("__rpow__", "negative", "whole numbers to negative powers"),
    ("to", "tensor", "another tensor, to take its device and dtype"),
    ("cat", r"not an axis of tensors of shape \(0,\)", "nothing, which PyTorch joins with any shape"),
    ("nn.functional.pad .*", r"mode '\w+' cannot fill .*-\d", "cropping in a mode that fills"),
    ("nn.functional.avg_pool2d", r"got \(\d?,?\)", "a tuple of one number, or of none, for two axes"),
    ("nn.functional.avg_pool2d|nn.functional.local_response_norm", r'int64.*to\("float32"\)',
     "averages of whole numbers, which PyTorch truncates"),
    ("nn.functional.batch_norm", r"got shape \(0,\)", "batches without a channel axis"),
    ("nn.functional.(cross_entropy|nll_loss)", "mean loss is undefined", "a mean over no samples"),
    ("nn.functional.dropout", "random", "random numbers"),
]
ACCEPTED = [  # operation, pattern of PyTorch's message, reason
    ("pow|__r(add|sub|mul|div|pow)__|eq|ne|lt|le|gt|ge", "^$", "a number in front, which Python's operators allow"),
    ("mean", "could not infer output dtype. Input", "the mean of whole numbers, as in NumPy"),
]


def axes(dim):
    """PyTorch's `dim` as NumPy's `axis`: an empty list means all axes."""
    return tuple(dim) or None if isinstance(dim, (list, tuple)) else dim


def dropout(x, p, training):
    if training and 0 < p < 1:
        raise RuntimeError("the random numbers are others than PyTorch's")
    return F.dropout(x, p, training)


# The samples


def infos():
    """PyTorch's table by name and variant."""
    torch = cases.pytorch()
    try:
        from torch.testing._internal.common_methods_invocations import op_db
    except ImportError as error:
        pytest.skip(f"PyTorch's samples cannot be imported: {error}")
    assert torch.get_num_threads() == 1
    return {f"{info.name} {info.variant_test_name}".strip(): info for info in op_db}


def converted(value):
    """PyTorch's tensors and dtypes as minidl's, at any depth; memory is laid out as theirs."""
    torch = cases.pytorch()
    if isinstance(value, torch.Tensor):
        return dl.Tensor(value.detach().resolve_conj().numpy().copy("K"), requires_grad=value.requires_grad)
    if isinstance(value, (tuple, list)):
        return type(value)(map(converted, value))
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    return str(value) if isinstance(value, torch.device) else value


def tensors_in(value, kind):
    """All tensors in nested lists, in order."""
    if isinstance(value, (tuple, list)):
        return [tensor for part in value for tensor in tensors_in(part, kind)]
    return [value] if isinstance(value, kind) else []


def parts(sample):
    return [sample.input, list(sample.args), list(sample.kwargs.values())]


def pytorchs(info, sample):
    """The value, the gradients of a random cotangent, and the other tensors after the call, as arrays."""
    torch = cases.pytorch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = info(sample.input, *sample.args, **sample.kwargs)
    result = result[0] if isinstance(result, tuple) else result
    tensors, gradients = tensors_in(parts(sample), torch.Tensor), []
    if isinstance(result, torch.Tensor) and result.requires_grad:
        leaves = [x for x in tensors if x.requires_grad]
        g = torch.tensor(cases.cotangent(tuple(result.shape))).to(result.dtype)
        gradients = torch.autograd.grad(result, leaves, g, allow_unused=True, materialize_grads=True)
    after = [x for x in tensors if not x.requires_grad]
    return [np.asarray(x.detach() if isinstance(x, torch.Tensor) else x) for x in (result, *gradients, *after)]


def minidls(name, sample):
    """The same of minidl, from the sample as it was before the call."""
    first, arguments, values = converted(parts(sample))
    options = dict(zip(sample.kwargs, values))
    inspect.signature(PEERS[name]).bind(first, *arguments, **options)
    result = PEERS[name](first, *arguments, **options)
    tensors = tensors_in([first, arguments, values], dl.Tensor)
    if isinstance(result, dl.Tensor) and result.requires_grad:
        result.backward(dl.tensor(cases.cotangent(result.shape).astype(result.dtype)))
        gradients = [np.zeros(x.shape, x.dtype) if x.grad is None else x.grad.data for x in tensors if x.requires_grad]
    else:
        gradients = []
    after = [x.data for x in tensors if not x.requires_grad]
    return [x.data if isinstance(x, dl.Tensor) else np.asarray(x) for x in (result, *gradients, *after)]


def as_float64(sample):
    torch = cases.pytorch()
    return sample.transform(lambda x: x.detach().double().requires_grad_(x.requires_grad)
                            if isinstance(x, torch.Tensor) and x.is_floating_point() else x)


def difference(ours, theirs, precise):
    """What is not the same within PyTorch's tolerance for the dtype; for float16, rounded float64 will do as well."""
    for our, *rights in zip(ours, theirs, precise, strict=True):
        shape, dtype = rights[0].shape, rights[0].dtype
        if (our.shape, our.dtype) != (shape, dtype):
            return f"{our.dtype} of {our.ndim} axes instead of {dtype} of {len(shape)}"
        if not any(close(our, right) for right in rights):
            return f"another number of {dtype}"
    return None


def close(ours, right):
    relative, absolute = TOLERANCES.get(ours.dtype.name, (0, 0))
    with np.errstate(all="ignore"):
        ours, right = ours.astype(float), right.astype(ours.dtype).astype(float)
        largest = np.abs(right[np.isfinite(right)]).max(initial=0)
        return np.allclose(ours, right, relative, relative * largest + absolute, equal_nan=True)


def reason_in(table, name, message):
    return next((reason for operation, pattern, reason in table
                 if re.fullmatch(operation, name) and re.search(pattern, message)), None)


# What becomes of them

tally = collections.Counter()


@pytest.fixture(scope="module", autouse=True)
def counts(request):
    """Prints how many samples agreed, and how many were refused for which reason."""
    yield
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print()
        for outcome, count in tally.most_common():
            print(f"{count:6} {outcome}")


def outcome_of(name, info, sample):
    """One of "agreed", "refused" and the reason, "wrong" and what is."""
    try:
        with np.errstate(all="ignore"):
            ours = minidls(name, sample)
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        reason = reason_in(REFUSED, name, message)
        return f"refused: {reason}" if reason else f"wrong: {message}"
    precise = as_float64(sample)  # before the call, which moves running statistics
    theirs = pytorchs(info, sample)
    half = any(x.dtype == np.float16 for x in theirs)
    wrong = difference(ours, theirs, pytorchs(info, precise) if half else theirs)
    return f"wrong: {wrong}" if wrong else "agreed"


@pytest.mark.parametrize("name", PEERS)
def test_samples_agree(name):
    torch, info, wrong = cases.pytorch(), infos()[name], collections.Counter()
    for dtype in DTYPES:
        kind = getattr(torch, dtype)
        if kind in info.supported_dtypes("cpu"):
            with_gradient = info.supports_autograd and kind in info.supported_backward_dtypes("cpu")
            for sample in info.sample_inputs("cpu", kind, requires_grad=with_gradient):
                outcome = outcome_of(name, info, sample)
                if outcome.startswith("wrong"):
                    wrong[f"{dtype}: {outcome[:150]}"] += 1
                tally[outcome.partition(":")[0] if outcome.startswith("wrong") else outcome] += 1
    assert not wrong, "\n".join(f"{count} × {what}" for what, count in wrong.items())


@pytest.mark.parametrize("name", PEERS)
def test_errors_are_errors(name):
    info, wrong = infos()[name], []
    for bad in info.error_inputs("cpu") if info.error_inputs_func else ():
        try:
            minidls(name, bad.sample_input)
            reason = reason_in(ACCEPTED, name, str(bad.error_regex))
            outcome = f"errors accepted: {reason}" if reason else f"wrong: accepted {bad}"
        except Exception as error:
            clear = isinstance(error, REFUSALS) and str(error)
            outcome = "errors refused" if clear else f"wrong: {type(error).__name__} {error}"
        tally["wrong" if outcome.startswith("wrong") else outcome] += 1
        wrong += [outcome] * outcome.startswith("wrong")
    assert not wrong, "\n".join(wrong)
