"""gradcheck: it accepts the gradient of every operation, rejects each of their mutants, and explains a failure."""

import inspect

import numpy as np
import pytest
from cases import VALUES, mentions

import minidl as dl
import minidl.functional as F
from minidl import autograd
from minidl.autograd import OPERATIONS, differentiable
from minidl.check import GradcheckError, NondifferentiableError


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def distinct(*shape, seed=0):
    return VALUES["distinct"](np.random.default_rng(seed), shape)


def positive(*shape, seed=0):
    return VALUES["positive"](np.random.default_rng(seed), shape)


def probability(*shape, seed=0):
    return VALUES["probability"](np.random.default_rng(seed), shape)


# Every operation: a call, and inputs far from kinks; each has at least two axes where the operation allows it,
# and a gradient that differs from its transpose


def dropout(x):
    dl.manual_seed(0)
    return F.dropout(x, 0.3)


def operation(name, **options):
    return lambda *tensors: OPERATIONS[name](*tensors, **options)


IMAGES, FILTERS, LABELS = normal(2, 2, 4, 3), normal(2, 2, 3, 2, seed=1), dl.tensor([2, 0, 1])
MATRICES, BROADCAST = (normal(2, 3), normal(2, 3, seed=1)), (normal(2, 3), positive(1, 3, seed=1))

CALLS = {
    "abs": (operation("abs"), distinct(2, 3)),
    "adaptive_avg_pool2d": (operation("adaptive_avg_pool2d", output_size=(3, 2)), IMAGES),
    "add": (operation("add"), *BROADCAST),
    "avg_pool2d": (operation("avg_pool2d", kernel_size=(2, 3), stride=1, padding=1), IMAGES),
    "batch_norm": (
        lambda x, weight, bias: F.batch_norm(x, None, None, weight, bias, training=True),
        *(IMAGES, positive(2), normal(2)),
    ),
    "binary_cross_entropy": (
        lambda p: F.binary_cross_entropy(p, dl.tensor(probability(2, 3, seed=1))),
        probability(2, 3),
    ),
    "binary_cross_entropy_with_logits": (
        lambda z: F.binary_cross_entropy_with_logits(z, dl.tensor(probability(2, 3, seed=1))),
        normal(2, 3),
    ),
    "clone": (operation("clone"), normal(2, 3)),
    "col2im": (operation("col2im", output_size=(4, 3), kernel_size=2, padding=1), normal(1, 8, 20)),
    "concatenate": (operation("concatenate", dim=1), normal(2, 3), normal(2, 2, seed=1)),
    "conv2d": (operation("conv2d", stride=(1, 2), padding=1), IMAGES, FILTERS, normal(2)),
    "conv_transpose2d": (operation("conv_transpose2d", stride=(2, 1), padding=1), IMAGES, FILTERS, normal(2)),
    "cross_entropy": (lambda z: F.cross_entropy(z, LABELS, label_smoothing=0.1), normal(3, 4)),
    "div": (operation("div"), *BROADCAST),
    "dropout": (dropout, normal(3, 4)),
    "exp": (operation("exp"), normal(2, 3)),
    "flatten": (operation("flatten", start_dim=1), normal(2, 3, 2)),
    "getitem": (operation("getitem", index=([0, 2, 2], slice(1, None))), normal(3, 4)),
    "im2col": (operation("im2col", kernel_size=2, padding=1), IMAGES),
    "linear": (operation("linear"), normal(3, 4), normal(2, 4, seed=1), normal(2)),
    "local_response_norm": (operation("local_response_norm", size=3, alpha=1.0), normal(2, 4, 3)),
    "log": (operation("log"), positive(2, 3)),
    "log_softmax": (operation("log_softmax", dim=1), normal(2, 3)),
    "matmul": (operation("matmul"), normal(2, 3), normal(2, 3, 4, seed=1)),
    "max": (operation("max", axis=1), distinct(3, 4)),
    "max_pool2d": (operation("max_pool2d", kernel_size=2, stride=1, padding=1), distinct(2, 2, 4, 3)),
    "mean": (operation("mean", axis=1), normal(2, 3)),
    "min": (operation("min", axis=0), distinct(3, 4)),
    "mse_loss": (operation("mse_loss"), *MATRICES),
    "mul": (operation("mul"), *BROADCAST),
    "neg": (operation("neg"), normal(2, 3)),
    "nll_loss": (lambda x: F.nll_loss(x, LABELS), normal(3, 4)),
    "pad_constant": (operation("pad_constant", amounts=[(1, 0), (2, -1)], value=0.5), normal(2, 3)),
    "pad_from_input": (operation("pad_from_input", amounts=[(1, 0), (2, 1)], mode="reflect"), normal(2, 3)),
    "pow": (operation("pow"), positive(2, 3), normal(2, 3)),
    "relu": (operation("relu"), distinct(2, 3)),
    "reshape": (operation("reshape", shape=(3, 2)), normal(2, 3)),
    "sigmoid": (operation("sigmoid"), normal(2, 3)),
    "softmax": (operation("softmax", dim=1), normal(2, 3)),
    "sqrt": (operation("sqrt"), positive(2, 3)),
    "sub": (operation("sub"), *BROADCAST),
    "sum": (operation("sum", axis=1), normal(2, 3)),
    "tanh": (operation("tanh"), normal(2, 3)),
    "to": (operation("to", dtype=np.float64), normal(2, 3)),
    "transpose": (operation("transpose", axes=(1, 0, 2)), normal(2, 3, 2)),
    "var": (operation("var", axis=1, ddof=1), normal(2, 3)),
}


def test_no_operation_is_missing_here():
    assert set(CALLS) == set(OPERATIONS)


@pytest.mark.parametrize("name", CALLS)
def test_every_operation_is_accepted(name):
    call, *inputs = CALLS[name]
    assert call(*(dl.tensor(x, requires_grad=True) for x in inputs)).node.operation == name
    assert dl.gradcheck(call, inputs) is True


# Mutants


def mutant(call, index, wrong):
    """`call`, with `wrong(right gradient, g, *inputs)` recorded in place of the right gradient of input `index`."""

    def mutated(*tensors):
        result = call(*tensors)
        if result.node is not None:
            place = next(i for i, source in enumerate(result.node.sources) if source is tensors[index])
            right, arrays = result.node.gradients[place], [tensor.data for tensor in tensors]
            gradients = list(result.node.gradients)
            gradients[place] = lambda g: wrong(right(g), g, *arrays)
            result.node.gradients = gradients
        return result

    return mutated


def without_its_largest_entry(gradient):
    gradient = gradient.copy()
    gradient.flat[np.abs(gradient).argmax()] = 0
    return gradient


MUTATIONS = {
    "1.01 times": lambda gradient: gradient * 1.01,
    "twice": lambda gradient: gradient * 2,
    "sign flipped": lambda gradient: -gradient,
    "zeroed": lambda gradient: gradient * 0,
    "transposed": lambda gradient: gradient.T.reshape(gradient.shape),
    "a term missing": without_its_largest_entry,
}


@pytest.mark.parametrize(
    "name, index, mutation",
    [
        pytest.param(name, index, mutation, id=f"{name}, input {index} {mutation}")
        for name, (_, *inputs) in CALLS.items()
        for index, x in enumerate(inputs)
        for mutation in MUTATIONS
        if mutation != "transposed" or np.count_nonzero(np.greater(x.shape, 1)) > 1
    ],
)
def test_every_mutant_of_every_gradient_is_rejected(name, index, mutation):
    call, *inputs = CALLS[name]
    wrong = mutant(call, index, lambda right, g, *arrays: MUTATIONS[mutation](right))
    with pytest.raises(GradcheckError, match=f"input {index}"):
        dl.gradcheck(wrong, inputs)


def normalized(x):
    """x̂ of a batch norm over channels, and the standard deviations it was divided by."""
    axes = (0, 2, 3)
    deviations = np.sqrt(x.var(axis=axes, keepdims=True) + 1e-5)
    return (x - x.mean(axis=axes, keepdims=True)) / deviations, deviations


def batch_norm_gradient(g, x, weight, mean_g=1, mean_gx=1):
    """The gradient of a batch norm, with a factor for each of the terms that one forgets."""
    axes, (x, deviations) = (0, 2, 3), normalized(x)
    forgettable = mean_g * g.mean(axis=axes, keepdims=True) + mean_gx * x * (g * x).mean(axis=axes, keepdims=True)
    return weight.reshape(1, -1, 1, 1) / deviations * (g - forgettable)


def softmax(z):
    return F.softmax(dl.tensor(z), 1).data


SLIPS = {
    "batch_norm: both means missing": ("batch_norm", 0, lambda right, g, x, w, b: batch_norm_gradient(g, x, w, 0, 0)),
    "batch_norm: mean(g) missing": ("batch_norm", 0, lambda right, g, x, w, b: batch_norm_gradient(g, x, w, 0, 1)),
    "batch_norm: mean(g x̂) missing": ("batch_norm", 0, lambda right, g, x, w, b: batch_norm_gradient(g, x, w, 1, 0)),
    "softmax: Σ g a missing": ("softmax", 0, lambda right, g, z: g * softmax(z)),
    "log_softmax: Σ g missing": ("log_softmax", 0, lambda right, g, z: g),
    "log_softmax: Σ g is 1": ("log_softmax", 0, lambda right, g, z: g - softmax(z)),
    "linear: bias averaged": ("linear", 2, lambda right, g, x, w, b: g.mean(axis=0)),
    "tanh: no square": ("tanh", 0, lambda right, g, x: g * (1 - np.tanh(x))),
    "sigmoid: half of it": ("sigmoid", 0, lambda right, g, x: g / (1 + np.exp(-x))),
    "relu: never silent": ("relu", 0, lambda right, g, x: g),
    "mean: a sum": ("mean", 0, lambda right, g, x: np.broadcast_to(g[:, None], x.shape)),
    "var: no ddof": ("var", 0, lambda right, g, x: right * 2 / 3),
    "div: no minus": ("div", 1, lambda right, g, a, b: (g * a / b**2).sum(axis=0, keepdims=True)),
}


def test_with_nothing_forgotten_it_is_accepted():
    call, *inputs = CALLS["batch_norm"]
    assert dl.gradcheck(mutant(call, 0, lambda right, g, x, w, b: batch_norm_gradient(g, x, w)), inputs)


@pytest.mark.parametrize("name, index, slip", SLIPS.values(), ids=SLIPS)
def test_the_slips_of_a_derivation_are_rejected(name, index, slip):
    call, *inputs = CALLS[name]
    with pytest.raises(GradcheckError, match=f"input {index}"):
        dl.gradcheck(mutant(call, index, slip), inputs)


# What a failure says


def scaled(factor):
    return lambda right, g, *arrays: right * factor


def explanation(wrong, call, *inputs, index=0):
    with pytest.raises(GradcheckError) as failure:
        dl.gradcheck(mutant(call, index, wrong), inputs)
    return str(failure.value)


@pytest.mark.parametrize(
    "wrong, words",
    [
        (scaled(-1), "sign is flipped"),
        (scaled(3), "3 times the right one"),
        (scaled(0.25), "0.25 times the right one"),
        (scaled(0), "zero everywhere"),
        (lambda right, g, x: right.T, "transpose"),
    ],
    ids=["flipped", "tripled", "a quarter", "zeroed", "transposed"],
)
def test_a_failure_names_the_likely_mistake(wrong, words):
    assert words in explanation(wrong, lambda x: x.exp(), normal(3, 3))


def test_a_failure_of_no_known_kind_guesses_nothing():
    message = explanation(lambda right, g, x: right + x, lambda x: x.exp(), normal(3, 3))
    assert message.endswith("9 of 9 checked entries differ.")


def test_a_failure_names_the_worst_entry_of_the_input_that_owns_it():
    def wrong_at_two_places(right, g, a, b):
        right = right.copy()
        right[0, 1] += 1
        right[1, 2] += 100
        return right

    a, b = MATRICES
    message = explanation(wrong_at_two_places, lambda a, b: a * b, a, b, index=1)
    c = np.random.default_rng(0).standard_normal(a.shape)  # the cotangent of the default seed
    right = (c * a)[1, 2]
    assert f"{right + 100:.8g}" in message and f"{right:.6g}"[:-1] in message
    assert "input 1" in message and "(1, 2)" in message and "2 of 6" in message


def test_a_failure_names_the_parameter_of_the_function(monkeypatch):
    monkeypatch.setattr(autograd, "OPERATIONS", dict(OPERATIONS))  # what is registered here ends here

    @autograd.differentiable
    def careless(image, filters):
        """image · filters"""
        return image * filters, (lambda g: g * filters, lambda g: g * filters)

    with pytest.raises(GradcheckError, match=r"input 1 \(filters\)"):
        dl.gradcheck(careless, MATRICES)


def test_of_several_wrong_inputs_the_worst_is_named():
    slightly = mutant(lambda a, b: a * b, 0, scaled(1.01))
    with pytest.raises(GradcheckError, match="input 1"):
        dl.gradcheck(mutant(slightly, 1, scaled(50)), MATRICES)


@pytest.mark.parametrize("bad", [np.nan, np.inf], ids=str)
def test_a_gradient_that_is_not_finite_is_rejected_where_it_is(bad):
    def wrong_at_one_place(right, g, x):
        right = right.copy()
        right[1, 2] = bad
        return right

    message = explanation(wrong_at_one_place, lambda x: x.exp(), normal(2, 3))
    assert all(words in message for words in ("input 0", "(1, 2)", str(bad), "1 of 6"))


def test_a_function_that_is_not_finite_is_called_so():
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match="not finite at this point"):
        dl.gradcheck(F.log, np.array([-1.0]))


# Kinks


def at(*values):
    return np.array(values)


@pytest.mark.parametrize(
    "function, x",
    [
        pytest.param(F.relu, at(1.0, 0.0), id="relu at 0"),
        pytest.param(F.abs, at(0.0, 1.0), id="abs at 0"),
        pytest.param(lambda x: x.max(), at(1.0, 2.0, 2.0), id="a tie for the maximum"),
        pytest.param(lambda x: x.min(axis=1), at([1.0, 2.0], [3.0, 3.0]), id="a tie for the minimum"),
        pytest.param(lambda x: F.max_pool2d(x, 2), np.ones((1, 2, 2)), id="a tie in a window"),
        pytest.param(lambda x: F.relu(x) * 1e-3, at(0.0), id="a small kink"),
        pytest.param(lambda x: F.relu(x) + x * 100, at(0.0), id="a kink on a slope"),
    ],
)
def test_a_kink_is_called_a_kink(function, x):
    with pytest.raises(NondifferentiableError, match=mentions("kink", "input 0", "slope")):
        dl.gradcheck(function, x)


def test_a_kink_says_where_it_is():
    with pytest.raises(NondifferentiableError, match=mentions("input 1 (b)", "(0, 1)")):
        dl.gradcheck(lambda a, b: a * b.relu(), [normal(1, 2), at([1.0, 0.0])])


@pytest.mark.parametrize("distance", [1e-9, 1e-8, 1e-7, 3e-7, 9e-7, 1e-6, 3e-6, 9e-6, 1.1e-5, 1e-4], ids=str)
@pytest.mark.parametrize("side", [1, -1], ids=["right", "left"])
def test_a_right_gradient_next_to_a_kink_is_never_called_wrong(distance, side):
    try:
        assert dl.gradcheck(F.relu, at(side * distance))
    except NondifferentiableError:
        assert distance < 1e-5  # the step of finite differences


@pytest.mark.parametrize(
    "function, x",
    [
        pytest.param(F.relu, at(1e-4, -1e-4), id="relu near 0"),
        pytest.param(lambda x: x.max(), at(1.0, 1.0001), id="nearly a tie"),
        pytest.param(lambda x: 1 / x, at(0.01, -0.01), id="1/x at 0.01"),
        pytest.param(F.log, at(0.01), id="log at 0.01"),
        pytest.param(F.sqrt, at(0.01), id="sqrt at 0.01"),
        pytest.param(lambda x: (x * 50).tanh(), at(0.01, 0.02), id="a steep tanh"),
        pytest.param(lambda x: x * x, at(0.0), id="the bottom of a parabola"),
        pytest.param(lambda x: x * x * x, at(0.0), id="an inflection"),
        pytest.param(lambda x: x * x, at(1e4, -1e-4), id="large and small numbers"),
        pytest.param(lambda x: x * 1e-9, at(1.0), id="a tiny slope"),
        pytest.param(lambda x: x * 1e9, at(1.0), id="a huge slope"),
        pytest.param(lambda x: (x * 0).relu() + x, at(1.0), id="a kink that nothing crosses"),
        pytest.param(lambda x: x + 1e6, at(0.3), id="a large constant"),
        pytest.param(lambda x: (x * 1e4).tanh(), at(0.0), id="a very steep tanh, whose left and right slopes agree"),
        pytest.param(lambda x: (x - 1e6).tanh(), at(1e6), id="a tanh far away, within one step"),
    ],
)
def test_a_smooth_point_is_accepted(function, x):
    assert dl.gradcheck(function, x)


NEAR_THE_END = [
    pytest.param(F.log, at(1e-6, 1.0), id="log at 1e-6"),
    pytest.param(F.log, at(1e-5), id="log at one step from 0"),
    pytest.param(F.log, at(2e-5), id="log at 2e-5"),
    pytest.param(lambda x: (x + 1e-6).log(), at(0.0), id="log at 1e-6 from an input of 0"),
    pytest.param(F.sqrt, at(1e-6, 1.0), id="sqrt at 1e-6"),
    pytest.param(F.sqrt, at(2e-5), id="sqrt at 2e-5"),
    pytest.param(lambda x: x**1.5, at(3e-7), id="x ** 1.5 at 3e-7"),
    pytest.param(lambda x: 1 / x, at(1e-5, -1e-5), id="1/x at one step from the pole"),
    pytest.param(lambda x: 1 / x, at(7e-6, -7e-6), id="1/x where the step crosses the pole"),
    pytest.param(lambda x: 1 / (x * x), at(5e-6), id="1/x² as far behind the pole as before"),
]


@pytest.mark.parametrize("function, x", NEAR_THE_END)
def test_next_to_the_end_of_a_domain_the_right_gradient_passes_and_a_wrong_one_does_not(function, x):
    assert dl.gradcheck(function, x)
    with pytest.raises(GradcheckError, match="1.01 times the right one"):
        dl.gradcheck(lambda x: function(mutant(lambda x: x * 1.0, 0, scaled(1.01))(x)), x)


@pytest.mark.parametrize(
    "function, x, words",
    [
        pytest.param(F.log, 1e-14, ("not finite next to", "end of its domain"), id="log at 1e-14"),
        pytest.param(lambda x: x**1.5, 0.0, ("not finite next to", "end of its domain"), id="x ** 1.5 at 0"),
        pytest.param(F.log, 2e-10, ("bends too sharply", "slope"), id="log at 2e-10"),
        pytest.param(lambda x: x + 1e12, 1.0, ("do not settle", "Rounding hides the slope"), id="a huge constant"),
    ],
)
def test_where_finite_differences_find_no_slope_no_gradient_is_called_wrong(function, x, words):
    with pytest.raises(NondifferentiableError, match=mentions("input 0", "(0,)", "move the point", *words)):
        dl.gradcheck(function, at(x))


# What may be checked


def test_a_random_function_is_refused():
    with pytest.raises(ValueError, match=mentions("two calls", "deterministic", "manual_seed")):
        dl.gradcheck(lambda x: F.dropout(x), normal(4, 5))


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x: dl.tensor(x.data * 2), id="computed from .data"),
        pytest.param(lambda x: (x * 2).detach(), id="detached"),
        pytest.param(dl.no_grad()(lambda x: x * 2), id="under no_grad"),
    ],
)
def test_a_function_that_records_nothing_is_refused(function):
    with pytest.raises(GradcheckError, match=mentions(".data", "no_grad")):
        dl.gradcheck(function, normal(3))


def test_a_cut_path_to_one_of_the_inputs_is_rejected():
    with pytest.raises(GradcheckError, match=mentions("input 1", "zero everywhere", "cut")):
        dl.gradcheck(lambda a, b: a * b.detach(), MATRICES)


def test_an_input_that_does_not_matter_is_accepted():
    assert dl.gradcheck(lambda a, b: a * 2, MATRICES)


@pytest.mark.parametrize("result", [3.0, None, (), np.ones(3)], ids=repr)
def test_a_function_that_returns_no_tensor_is_refused(result):
    with pytest.raises(ValueError, match="must return a tensor"):
        dl.gradcheck(lambda x: result, normal(3))


@pytest.mark.parametrize("inputs", [[], np.arange(3), [dl.tensor([1, 2]), None]], ids=repr)
def test_nothing_to_differentiate_is_an_error(inputs):
    with pytest.raises(ValueError, match="none of the inputs holds floats"):
        dl.gradcheck(lambda *tensors: dl.tensor(1.0), inputs)


def test_a_gradient_that_changes_g_is_found_out():
    """Its values are right, and those of whatever else gets the same g are not."""
    @differentiable
    def square(x):
        """x²     ∂L/∂x = 2 g x"""
        def gradient(g):
            g *= 2
            return g * x

        return x * x, (gradient,)

    with pytest.raises(GradcheckError, match="square changes g in place"):
        dl.gradcheck(square, dl.tensor([1.0, 2.0]))


def test_a_gradient_function_that_returns_nothing_is_named():
    @differentiable
    def forgetful(x):
        """x     ∂L/∂x = g"""
        return x * 1.0, (lambda g: None,)

    with pytest.raises(RuntimeError, match="the gradient of forgetful for input 0 must be an array.*None"):
        dl.gradcheck(forgetful, dl.tensor([1.0]))


def test_all_outputs_are_checked():
    def both(x):
        return x.exp(), x * 2

    assert dl.gradcheck(both, normal(2, 3))
    assert dl.gradcheck(lambda x: [x.exp(), x.argmax()], normal(2, 3))  # one without a gradient
    for wrong in (
        lambda x: (mutant(lambda x: x.exp(), 0, scaled(1.01))(x), x * 2),
        lambda x: (x.exp(), mutant(lambda x: x * 2, 0, scaled(1.01))(x)),
    ):
        with pytest.raises(GradcheckError, match="input 0"):
            dl.gradcheck(wrong, normal(2, 3))


def test_single_precision_is_checked_in_double():
    seen = set()

    def square(x):
        seen.add(x.dtype)
        return x * x

    assert dl.gradcheck(square, dl.tensor([1.0, 2.0])) and dl.gradcheck(square, np.ones(2, np.float16))
    assert seen == {np.dtype(np.float64)}


def test_the_inputs_themselves_are_left_alone():
    x = dl.tensor(normal(3), requires_grad=True)
    before = x.data.copy()
    assert dl.gradcheck(lambda x: x * x, x)
    assert x.grad is None and np.array_equal(x.data, before)


def test_numbers_are_checked_and_all_else_is_passed_on():
    labels, options = dl.tensor([0, 2]), {"reduction": "sum"}

    def loss(z, labels, times, options):
        assert isinstance(options, dict) and labels.dtype == np.int64
        return F.cross_entropy(z, labels, **options) * times

    assert dl.gradcheck(loss, (normal(2, 3), labels, 1.5, options))
    with pytest.raises(GradcheckError, match=r"input 2 \(times\)"):
        dl.gradcheck(lambda z, labels, times: F.cross_entropy(z, labels) * times.item(), (normal(2, 3), labels, 1.5))


def test_with_tensors_that_need_a_gradient_only_they_are_checked():
    z, weights = dl.tensor(normal(3, 2), requires_grad=True), dl.tensor(np.float32([1, 2]))
    seen = set()

    def loss(z, labels, weights, times):
        seen.update([weights.dtype, weights.requires_grad, type(times)])
        return F.cross_entropy(z, labels, weights) * times

    assert dl.gradcheck(loss, (z, dl.tensor([0, 1, 1]), weights, 1.5))
    assert seen == {np.dtype(np.float64), False, float}
    assert dl.gradcheck(lambda a, b: a * b.detach(), (dl.tensor(normal(3), requires_grad=True), normal(3)))
    with pytest.raises(GradcheckError, match="input 1"):
        dl.gradcheck(mutant(lambda a, b: a * b, 1, scaled(2)), (normal(3), dl.tensor(normal(3), requires_grad=True)))


def test_an_input_without_a_gradient_function_says_how_to_leave_it_out():
    inputs = normal(3, 2), dl.tensor([0, 1, 1]), at(1.0, 2.0)
    with pytest.raises(RuntimeError, match=mentions("cross_entropy", "'weight'", "to check only some",
                                                    "requires_grad=True")):
        dl.gradcheck(F.cross_entropy, inputs)


def test_an_empty_input_is_accepted():
    assert dl.gradcheck(lambda x: x * 2, np.ones((0, 3)))


def test_of_a_large_input_entries_are_drawn_and_one_direction_through_all():
    calls, directions = [], set()

    def count(x):
        calls.append(1)
        directions.add(tuple(np.flatnonzero(x.data - large)))
        return x * 2

    large = normal(200, 200)
    assert dl.gradcheck(count, large, max_entries=20)
    assert len(calls) < 100
    changed = [len(direction) for direction in directions]
    assert changed.count(1) == 20 and changed.count(large.size) == 1


def test_a_mistake_between_the_drawn_entries_shows_along_the_random_direction():
    def one_entry_wrong(right, g, x):
        right = right.copy()
        right[17, 3] += 1e-2
        return right

    wrong = mutant(lambda x: x * 2, 0, one_entry_wrong)
    with pytest.raises(GradcheckError, match=mentions("random direction", "1 of 6")):
        dl.gradcheck(wrong, normal(100, 100), max_entries=5)


def test_another_seed_draws_another_cotangent():
    def messages(seed):
        with pytest.raises(GradcheckError) as failure:
            dl.gradcheck(mutant(lambda x: x.exp(), 0, scaled(2)), normal(2), seed=seed)
        return str(failure.value)

    assert messages(0) == messages(0) != messages(1)


def test_the_tolerance_can_be_loosened():
    wrong = mutant(lambda x: x.exp(), 0, scaled(1.01))
    assert dl.gradcheck(wrong, normal(3), rtol=0.1)


def test_the_defaults_are_strict():
    defaults = {name: p.default for name, p in inspect.signature(dl.gradcheck).parameters.items()}
    assert defaults["rtol"] <= 1e-6 and defaults["atol"] <= 1e-8
    slightly = mutant(lambda x: x.exp(), 0, scaled(1 + 1e-5))
    with pytest.raises(GradcheckError):
        dl.gradcheck(slightly, normal(3))
