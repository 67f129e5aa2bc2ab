"""Step-through: what the page holds is what the arrays hold, from a function or a tensor; and nothing else moves."""

import base64
import html.parser
import json
import re

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import minidl as dl
import models
from minidl import functional as F
from minidl import nn
from minidl.autograd import OPERATIONS, differentiable
from minidl.cli import main
from minidl.data import Fit, digits
from minidl.inspect import StepThrough, step_through
from minidl.inspect.excerpt import excerpt, shown_shape
from minidl.inspect.formula import parse, typeset


def page_of(steps):
    found = re.search(r'<script type="application/json" id="pass">(.*?)</script>', steps.html(), re.DOTALL)
    return json.loads(found[1])


def decoded(shown):
    values = np.frombuffer(base64.b64decode(shown["entries"]), f"<{shown['kind']}").reshape(shown["shown"])
    return values


def assert_shows(shown, array):
    """Statistics of all of `array`, and of each longer axis entries ⌊i·n/m⌋."""
    assert tuple(shown["shape"]) == array.shape and shown["dtype"] == str(array.dtype)
    picked = array[np.ix_(*(np.arange(m) * n // m for n, m in zip(array.shape, shown["shown"], strict=True)))]
    np.testing.assert_array_equal(decoded(shown), picked)
    if array.size:
        wide = array.astype(np.float64)
        for name, value in {"min": wide.min(), "max": wide.max(), "mean": wide.mean(), "norm": np.linalg.norm(wide),
                            "zeros": np.mean(wide == 0)}.items():
            assert shown[name] == pytest.approx(value, rel=1e-12, abs=1e-12), name


@pytest.fixture
def lenet():
    """LeNet-5 and one digit: the network, and the loss as a function."""
    dl.manual_seed(3)
    image, label = digits(train=False, transform=Fit(32))[4]
    net, x, y = models.lenet5(), dl.tensor(image[None]), dl.tensor(np.array([label]))
    return net, x, lambda: F.cross_entropy(net(x), y)


def inputs_of(page, operation):
    return {given["argument"]: page["values"][given["value"]] for given in operation["inputs"]}


# A function: everything is there

def test_every_value_and_gradient_on_the_page_is_that_of_the_arrays(lenet):
    net, x, loss = lenet
    values, y = [], x
    for layer in (*net.features, *net.classifier):
        y = layer(y)
        values.append(y)
    page = page_of(step_through(loss))
    computed = loss()
    steps = list(dl.backward_steps(computed))
    operations = page["operations"]
    assert [operation["name"] for operation in operations] == [step.operation for step in reversed(steps)]
    for operation, value, step in zip(operations, [*values, computed], reversed(steps), strict=True):
        result = page["values"][operation["result"]]
        assert_shows(result["data"], value.data)
        assert_shows(result["gradient"], step.gradient)
        assert operation["walked"] and result["kind"] == "result"
        sent = [page["values"][given["value"]]["gradient"] for given in operation["inputs"]]
        for shown, gradient in zip(sent, step.input_gradients, strict=False):
            assert (shown is None) == (gradient is None)
            if gradient is not None:
                assert_shows(shown, gradient)
    weight = inputs_of(page, operations[7])["weight"]
    assert weight["name"] == "classifier.1.weight" and weight["data"]["shown"] == [90, 90]
    assert_shows(weight["data"], net.classifier[1].weight.data)
    assert operations[7]["path"] == "classifier.1" and operations[7]["kind"] == "Linear"
    assert [(m["label"], m["parent"]) for m in page["modules"]] == [("LeNet5", -1), ("features", 0), ("classifier", 0)]


def test_the_label_is_shown_as_the_whole_number_that_it_is(lenet):
    page = page_of(step_through(lenet[2]))
    target = inputs_of(page, page["operations"][-1])["target"]
    assert target["kind"] == "constant" and target["gradient"] is None and target["dtype"] == "int64"
    assert decoded(target["data"]).tolist() == [digits(train=False).labels[4]]


def test_the_page_of_lenet_is_below_two_megabytes_and_loads_nothing(lenet):
    page = step_through(lenet[2]).html()
    assert len(page.encode()) < 2_000_000
    loads = []

    class Loader(html.parser.HTMLParser):
        def handle_starttag(self, tag, attributes):
            loads.extend((tag, name) for name, _ in attributes if name in ("src", "href", "srcset", "action"))

    Loader().feed(page)
    assert not loads and "http" not in page and "url(" not in page and "import" not in page and "fetch(" not in page


def test_gradients_and_weights_stay_as_they_were(lenet):
    net, _, loss = lenet
    loss().backward()
    before = [(p.grad, p.grad.data.copy(), p.data.copy()) for p in net.parameters()]
    step_through(loss)
    step_through(loss())
    for parameter, (grad, gradient, values) in zip(net.parameters(), before, strict=True):
        assert parameter.grad is grad and (grad.data == gradient).all() and (parameter.data == values).all()
    assert not any(module._forward_hooks for module in net.modules())


def test_without_gradients_before_there_are_none_after_even_if_the_walk_fails(lenet):
    net, x, loss = lenet
    step_through(loss)
    with pytest.raises(RuntimeError, match="changed in place"):
        step_through(lambda: spoiled(net.features[0], x))
    assert all(parameter.grad is None for parameter in net.parameters())


def spoiled(convolution, x):
    result = (convolution(x) * convolution.bias.reshape(6, 1, 1)).sum()
    with dl.no_grad():
        convolution.bias += 1
    return result


# Several uses of one value

def test_the_parts_of_a_gradient_and_their_sum_are_shown():
    x = dl.tensor([1.0, -2.0, 3.0], requires_grad=True)

    def loss():
        y = x * 2.0
        return (y * y + F.relu(y) + x).sum()

    page = page_of(step_through(loss))
    mul, square, relu, *_ = page["operations"]
    y = page["values"][mul["result"]]
    assert [(part["operation"], part["position"]) for part in y["contributions"]] == [(2, 0), (1, 0), (1, 1)]
    parts = [decoded(part["gradient"]) for part in y["contributions"]]
    np.testing.assert_array_equal(parts, [[1, 0, 1], [2, -4, 6], [2, -4, 6]])
    np.testing.assert_array_equal(decoded(y["gradient"]), np.sum(parts, axis=0))
    leaf = page["values"][mul["inputs"][0]["value"]]
    assert leaf["kind"] == "leaf" and len(leaf["contributions"]) == 2
    np.testing.assert_array_equal(decoded(leaf["gradient"]), 2 * np.sum(parts, axis=0) + 1)
    assert mul["options"] == "b=2.0" and [given["argument"] for given in mul["inputs"]] == ["a"]
    text = step_through(loss).text()
    assert "part from 3 relu" in text and "∂L/∂a out, part 2 of 2" in text and "their sum" in text


def test_a_weight_that_is_used_twice_gets_the_sum():
    layer, x = nn.Linear(2, 2), dl.tensor([[1.0, 2.0]])
    page = page_of(step_through(lambda: layer(layer(x)).sum()))
    layer(layer(x)).sum().backward()
    weight = inputs_of(page, page["operations"][0])["weight"]
    assert weight is inputs_of(page, page["operations"][1])["weight"]
    assert weight["name"] == "weight" and len(weight["contributions"]) == 2
    np.testing.assert_array_equal(decoded(weight["gradient"]), layer.weight.grad.data)


# A tensor: what the graph still holds

def test_of_a_tensor_structure_leaves_and_gradients_are_there_and_the_rest_is_said_not_to_be(lenet):
    net, _, loss = lenet
    kept, held = page_of(step_through(loss)), page_of(step_through(loss()))
    for full, bare in zip(kept["operations"], held["operations"], strict=True):
        assert (full["name"], full["formula"], full["symbol"]) == (bare["name"], bare["formula"], bare["symbol"])
        theirs, ours = kept["values"][full["result"]], held["values"][bare["result"]]
        assert theirs["gradient"] == ours["gradient"] and theirs["shape"] == ours["shape"]
        assert (ours["data"] is None) == (bare["name"] != "cross_entropy")
        for name, value in inputs_of(held, bare).items():
            known = inputs_of(kept, full)[name]
            assert value["gradient"] == known["gradient"] and value["shape"] == known["shape"]
            assert value["data"] == (known["data"] if name in ("weight", "bias") else None)
    assert held["modules"] == [] and held["title"] == "cross_entropy"
    text = str(step_through(loss()))
    assert "not kept" in text and "a function that computes the loss" in text
    assert "not kept" not in str(step_through(loss))


def test_what_was_computed_before_the_function_ran_is_shown_as_far_as_it_is_known():
    x = dl.tensor([1.0, 2.0], requires_grad=True)
    middle = (x * 3.0).exp()
    page = page_of(step_through(lambda: (middle * x).sum()))
    assert [operation["name"] for operation in page["operations"]] == ["mul", "exp", "mul", "sum"]
    assert page["values"][page["operations"][0]["result"]]["data"] is None
    np.testing.assert_array_equal(decoded(page["values"][page["operations"][1]["result"]]["data"]), middle.data)
    assert len(page["values"][page["operations"][0]["inputs"][0]["value"]]["contributions"]) == 2


def test_a_graph_is_walked_once():
    loss = (dl.tensor([1.0], requires_grad=True) * 2.0).sum()
    step_through(loss)
    with pytest.raises(RuntimeError, match="a second time"):
        step_through(loss)


@pytest.mark.parametrize("loss, error, said", [
    (3.0, TypeError, "a loss tensor, or a function without arguments that computes it; got float"),
    (lambda: (1, 2), TypeError, "must return the loss, one tensor; got tuple"),
    (dl.tensor(1.0, requires_grad=True), ValueError, "it is a leaf"),
    (lambda: dl.tensor([1.0]) * 2.0, RuntimeError, "needs no gradient"),
    (lambda: dl.tensor([1.0, 2.0], requires_grad=True) * 2.0, RuntimeError, "shape \\(2,\\) needs gradient="),
])
def test_what_is_no_loss_is_refused(loss, error, said):
    with pytest.raises(error, match=said):
        step_through(loss)


def test_several_numbers_take_a_gradient():
    x = dl.tensor([1.0, 2.0], requires_grad=True)
    page = page_of(step_through(lambda: x * 2.0, gradient=np.array([1.0, 10.0])))
    np.testing.assert_array_equal(decoded(page["values"][page["operations"][0]["inputs"][0]["value"]]["gradient"]),
                                  [2, 20])


# Awkward values

@pytest.mark.parametrize("array", [
    np.zeros((0, 3), np.float32), np.array(2.5), np.array([[-1.5]], np.float32), np.array([np.nan, np.inf, -np.inf]),
    np.array([1.0, np.nan, 3.0], np.float16), np.arange(6).reshape(2, 3).T.astype(np.float32)[:, ::-1],
    np.array([1e300, 1e300]), np.array([0.1], np.float64)])
def test_any_array_is_shown(array):
    x = dl.tensor(array, requires_grad=True)
    steps = step_through(lambda: (x * 2.0).sum())
    page = page_of(steps)
    shown = page["values"][page["operations"][0]["inputs"][0]["value"]]["data"]
    np.testing.assert_array_equal(decoded(shown), array)
    finite = array[np.isfinite(array)].astype(float)
    assert shown["notFinite"] == array.size - finite.size
    assert shown["min"] == (finite.min() if finite.size else None)
    assert steps.text().count(" mul\n") == 2


def test_a_single_number_stays_one_number():
    assert str(excerpt(np.array(0.5), 10)) == "0.5" and str(excerpt(np.zeros((0, 2)), 10)) == "no entries"
    assert str(excerpt(np.array([np.nan, np.nan]), 10)) == "2 not finite"
    assert str(excerpt(np.array([0.0, 4.0, np.inf]), 10)).endswith("mean 2, norm 4, 50% zeros, 1 not finite")


@given(arrays.array_shapes(min_dims=0, max_dims=5, max_side=9), st.integers(1, 300))
def test_an_excerpt_has_as_many_entries_as_fit_along_equal_axes(shape, limit):
    shown = shown_shape(shape, limit)
    assert np.prod(shown) <= limit or max(shown, default=1) == 1
    most = max(shown, default=0)
    assert all(m == min(n, most) for n, m in zip(shape, shown, strict=True))
    if shown != shape:
        assert np.prod([min(n, most + 1) for n in shape]) > limit
    array = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    assert_shows(excerpt(array, limit).as_json(), array)


# Modules, and whole networks

def test_modules_of_several_operations_fold_and_a_repeated_one_does_so_each_time():
    class Twice(nn.Module):
        def __init__(self):
            self.block = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
            self.last = nn.Linear(2, 1)

        def forward(self, x):
            return self.last(self.block(self.block(x))) + x[:, :1]

    net = Twice()
    page = page_of(step_through(lambda: net(dl.tensor([[1.0, 2.0]])).sum()))
    assert [(m["path"], m["kind"], m["parent"]) for m in page["modules"]] == [
        ("", "Twice", -1), ("block", "Sequential", 0), ("block", "Sequential", 0)]
    assert [(o["label"], o["name"], o["module"]) for o in page["operations"]] == [
        ("0", "linear", 1), ("1", "tanh", 1), ("0", "linear", 2), ("1", "tanh", 2), ("last", "linear", 0),
        ("", "getitem", 0), ("", "add", 0), ("", "sum", -1)]
    assert [o["walked"] for o in page["operations"]] == [True] * 5 + [False, True, True]  # the input needs no gradient


def test_a_loss_module_and_an_error_that_was_caught_leave_the_paths_right():
    class Careful(nn.Module):
        def __init__(self):
            self.wrong, self.right = nn.Linear(3, 1), nn.Linear(2, 4)

        def forward(self, x):
            try:
                return self.wrong(x)
            except ValueError:
                return self.right(x)

    net, criterion = Careful(), nn.CrossEntropyLoss()
    steps = step_through(lambda: criterion(net(dl.tensor([[1.0, 2.0]])), dl.tensor([3])))
    assert [operation["path"] for operation in page_of(steps)["operations"]] == ["right", "CrossEntropyLoss"]
    assert steps.trace.title == "Careful, CrossEntropyLoss"


def test_googlenet_gives_its_heads_their_part():
    net = models.googlenet(num_classes=4)
    x, y = dl.tensor(np.random.default_rng(0).standard_normal((1, 3, 80, 80)).astype(np.float32)), dl.tensor([2])
    page = page_of(step_through(lambda: net.criterion(net(x), y)))
    assert {"inception3a", "aux1", "aux2"} <= {module["path"] for module in page["modules"]}
    assert all(operation["walked"] for operation in page["operations"])
    joined = next(operation for operation in page["operations"] if operation["name"] == "concatenate")
    assert [given["symbol"] for given in joined["inputs"]] == [f"<i>x</i><sub>{n}</sub>" for n in "1234"]
    assert all(given["formulas"] for given in joined["inputs"])


def test_of_a_large_network_less_is_shown_of_each_array_so_that_the_page_stays_small():
    net = models.resnet20()
    x = dl.tensor(np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32))
    steps = step_through(lambda: F.cross_entropy(net(x), dl.tensor([2, 7])))
    assert steps.trace.limit < 8192 and len(steps.html()) < 4_500_000
    shortened = page_of(steps)["values"][0]["data"]
    assert_shows(shortened, x.data)
    assert shortened["shown"] != shortened["shape"]


def test_what_a_function_draws_at_random_is_drawn_once():
    x = dl.tensor(np.ones(50, np.float32), requires_grad=True)
    dl.manual_seed(1)
    page = page_of(step_through(lambda: F.dropout(x, 0.5).sum()))
    dl.manual_seed(1)
    np.testing.assert_array_equal(decoded(page["values"][page["operations"][0]["result"]]["data"]),
                                  F.dropout(x, 0.5).data)


# The other forms

def test_the_text_shows_every_step_with_its_formula_and_shapes(lenet):
    text = step_through(lenet[2]).text()
    forward, backward = text.split("\nBackward\n")
    assert text.startswith("LeNet5: 13 operations, loss ")
    assert re.findall(r"^ *(\d+)  ", forward, re.M) == [str(n) for n in range(1, 14)]
    assert re.findall(r"^ *(\d+)  ", backward, re.M) == [str(n) for n in range(13, 0, -1)]
    assert "  4  features.3 · conv2d\n     y = W ∗ x + b\n" in forward
    assert re.search(r"W features\.3\.weight +16×6×5×5 +min -0\.", forward)
    assert re.search(r"∂L/∂W = g im2col\(x\)ᵀ\n     ∂L/∂W out +16×6×5×5 ", backward)
    assert backward.count("∂L/∂x out") == 11  # the image needs none, the loss has ∂L/∂z


def test_the_graph_is_drawn_for_mermaid_and_graphviz(lenet):
    steps = step_through(lenet[2])
    mermaid, dot = steps.mermaid().splitlines(), steps.dot().splitlines()
    assert mermaid[0] == "flowchart TD" and dot[0] == "digraph {" and dot[-1] == "}"
    assert mermaid.count("    end") == 2 and mermaid.count("  end") == 1
    assert '      o3["features.3 · conv2d"]' in mermaid and '  o2 -->|"1×6×14×14"| o3' in mermaid
    assert '    subgraph cluster_m1 { label="features · Sequential"' in dot
    assert '  o2 -> o3 [label="1×6×14×14"]' in dot
    assert sum(" -> " in line for line in dot) == sum("-->" in line for line in mermaid) == 12 + 10 + 2


def test_names_cannot_break_out_of_the_page_or_the_drawings():
    hostile = '</script><b>"&\'--x'
    net = nn.Sequential({hostile: nn.Linear(2, 2), "tanh": nn.Tanh()})
    steps = step_through(lambda: net(dl.tensor([[1.0, 2.0]])).sum())
    assert page_of(steps)["operations"][0]["path"] == hostile
    assert steps.html().count("</script>") == 2 and hostile not in steps.html()
    assert steps.mermaid().splitlines()[2].count('"') == 2 and "<" not in steps.mermaid()
    assert '[label="</script><b>\\"&\'--x · linear"]' in steps.dot()
    (frame,) = re.findall(r"^<iframe srcdoc='([^']*)'", steps._repr_html_())
    assert html.unescape(frame) == steps.html()


def test_a_saved_page_replaces_the_old_one_whole(tmp_path, lenet):
    steps = step_through(lenet[2])
    assert isinstance(steps, StepThrough) and repr(steps) == "<StepThrough of LeNet5: 13 operations>"
    steps.save(tmp_path / "backward.html")
    assert (tmp_path / "backward.html").read_text(encoding="utf-8") == steps.html()
    with pytest.raises(OSError, match="could not write"):
        steps.save(tmp_path / "missing" / "backward.html")
    assert [path.name for path in tmp_path.iterdir()] == ["backward.html"]


def test_an_operation_of_the_readers_own_is_shown_with_its_formula():
    @differentiable
    def cube(input, weight):
        """w x³     ∂L/∂x = 3 g w x²     ∂L/∂w = g x³"""
        return weight * input**3, (lambda g: 3 * g * weight * input**2, lambda g: g * input**3)

    x, w = dl.tensor([2.0], requires_grad=True), dl.tensor([3.0], requires_grad=True)
    (operation,) = page_of(step_through(lambda: cube(x, w)))["operations"]
    assert [given["formulas"][:1] for given in operation["inputs"]][0] == [typeset("∂L/∂x = 3 g w x²")]
    (bare,) = page_of(step_through(cube(x, w)))["operations"]
    assert [given["argument"] for given in bare["inputs"]] == ["x₁", "x₂"]


# Formulas

@pytest.mark.parametrize("text, plain", [
    ("∂L/∂x = g where x > 0", "{∂L|∂x} = g where x &gt; 0"),
    ("−g a / b²", "−{g a|b^2}"),
    ("1 / (1 + e⁻ˣ)", "{1|1 + e^−^x}"),
    ("e^{zⱼ} / Σₖ e^{zₖ}", "{e^z_j|Σ_k e^z_k}"),
    ("y (1 − y) ≤ 1/4 (claim D5)", "y (1 − y) ≤ {1|4} (claim D5)"),
    ("γ / √(σ² + ε) · (g − x̂)", "{γ|√(σ^2 + ε)} · (g − x̂)"),
    ("(1/(n − ddof)) Σ", "({1|n − ddof}) Σ"),
    ("x[i] / (a", "{x[i]|a}"),
])
def test_formulas_are_set_as_mathematics(text, plain):
    marked = typeset(text)
    marked = re.sub(r"</?i>", "", re.sub(r"<sup>(.*?)</sup>", r"^\1", re.sub(r"<sub>(.*?)</sub>", r"_\1", marked)))
    marked = marked.replace("</sup>", "").replace("<sup>", "^")
    marked = re.sub(r'<span class="fraction"><span>(.*?)</span><span class="slash">/</span><span>(.*?)</span></span>',
                    r"{\1|\2}", marked)
    assert marked == plain


def test_variables_are_italic_and_words_are_not():
    assert typeset("y = max of `a` & x̂") == "<i>y</i> = max of <code>a</code> &amp; <i>x̂</i>"
    assert typeset("where a place a") == "where a place <i>a</i>"


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_every_formula_names_the_gradient_of_each_input(name):
    formula = parse(OPERATIONS[name].__doc__.partition("\n\n")[0].replace("\n    ", "\n"))
    assert formula.value and formula.gradients
    assert all(gradient.startswith("∂L/∂") and " = " in gradient for gradient in formula.gradients)
    well_formed = html.parser.HTMLParser()
    well_formed.feed("".join(map(typeset, (formula.value, *formula.gradients))))
    assert typeset(formula.value).count("<i>") == typeset(formula.value).count("</i>")


# The command

def test_the_command_writes_the_page_of_a_digit(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["step-through", "lenet5"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("lenet5 on test image 0 of digits, labelled 5: 13 operations forward, 13 back; "
                          "open backward.html (0.4 MB)")
    assert "LeNet5" in (tmp_path / "backward.html").read_text(encoding="utf-8")


def test_the_command_prints_the_steps_of_a_run(tmp_path, capsys):
    folder = str(tmp_path / "run")
    assert main(["train", "lenet5", "--epochs", "1", "--quiet", "--out", folder]) == 0
    capsys.readouterr()
    assert main(["step-through", folder, "--text", "--index", "2"]) == 0
    trained = capsys.readouterr().out
    assert main(["step-through", "lenet5", "--text", "--index", "2"]) == 0
    fresh = capsys.readouterr().out
    losses = [float(re.search(r"operations, loss ([\d.]+)", text)[1]) for text in (trained, fresh)]
    assert losses[0] < losses[1] and "labelled 9" in trained
    weights = dl.load(f"{folder}/best.safetensors")["features.0.bias"].data
    assert f"norm {np.linalg.norm(weights):.4g}" in trained


@pytest.mark.parametrize("arguments, complaint", [
    (["lenet5", "--index", "355"], "--index counts the 355 test images of digits from 0; got 355"),
    (["lenet6"], "there is no model 'lenet6'; did you mean lenet5"),
    (["runs/none"], "there is no run in runs/none"),
    (["lenet5", "--best"], "--best is for runs"),
])
def test_a_mistake_is_one_line(arguments, complaint, capsys):
    assert main(["step-through", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and complaint in err and err.count("\n") == 1
