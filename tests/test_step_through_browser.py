"""The page in a real browser, from disk and without a network: what is on display at every step equals the arrays.

`pytest -m browser` runs it where playwright and a Chromium are installed.
"""

import re
import shutil

import numpy as np
import pytest

import minidl as dl
import models
from minidl import functional as F
from minidl import nn
from minidl.data import Fit, digits
from minidl.inspect import step_through

pytestmark = pytest.mark.browser

BY_BUTTON = {"next": "#next", "previous": "#previous", "first": "#first", "last": "#last"}
BY_KEY = {"next": "ArrowRight", "previous": "ArrowLeft", "first": "Home", "last": "End"}


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs a Chromium: none of chromium, chromium-browser and google-chrome is on the PATH")
    with api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def opened(browser, tmp_path):
    """Opens the page of a step-through; at the end there was no error, and nothing was asked for but the file."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, offline=True)
    requested, wrong = [], []

    def open_page(steps):
        steps.save(tmp_path / "backward.html")
        page = context.new_page()
        page.on("request", lambda request: requested.append(request.url))
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto((tmp_path / "backward.html").as_uri())
        page.wait_for_selector("figure")
        return page

    yield open_page
    context.close()
    assert wrong == [] and requested == [(tmp_path / "backward.html").as_uri()] * len(requested)


@pytest.fixture
def lenet():
    """The steps through LeNet-5 on one digit, and beside them the same computed by itself, forward and backward."""
    dl.manual_seed(5)
    image, label = digits(train=False, transform=Fit(32))[7]
    net, x, y = models.lenet5(), dl.tensor(image[None]), dl.tensor(np.array([label]))
    values = [x]
    for layer in (*net.features, *net.classifier):
        values.append(layer(values[-1]))
    values.append(F.cross_entropy(values[-1], y))
    layers = [*net.features, *net.classifier]
    forward, backward = [], []
    for i, layer in enumerate(layers):
        state = [p.data for p in layer.parameters()]
        forward.append(([values[i].data, *state], values[i + 1].data))
    forward.append(([values[-2].data, y.data], values[-1].data))
    for step in dl.backward_steps(values[-1]):
        backward.append((step.gradient, [g for g in step.input_gradients if g is not None]))
    names = ["conv2d", "tanh", "avg_pool2d"] * 2 + ["flatten", "linear", "tanh", "linear", "tanh", "linear"]
    return step_through(lambda: F.cross_entropy(net(x), y)), [*names, "cross_entropy"], forward, backward


def number(text):
    return float(text.replace("−", "-").removesuffix("%"))


def check_figure(page, figure, array):
    """A figure shows the shape and statistics of `array`, and all of its numbers or, under the pointer, one exactly."""
    assert figure.locator("figcaption .shape").inner_text() == ("×".join(map(str, array.shape)) or "()")
    if array.size > 1:
        terms = figure.locator("dt").all_inner_texts()
        said = dict(zip(terms, map(number, figure.locator("dd").all_inner_texts()), strict=True))
        wide = array.astype(np.float64)
        true = {"min": wide.min(), "max": wide.max(), "mean": wide.mean(), "norm": np.linalg.norm(wide),
                "zeros": 100 * np.mean(wide == 0)}
        assert said == {name: pytest.approx(value, rel=6e-4, abs=1e-12) for name, value in true.items()}
    if array.size <= 24:
        shown = [number(text) for text in figure.locator(".numbers span").all_inner_texts()]
        np.testing.assert_allclose(shown, array.ravel(), rtol=6e-3)
        return
    canvas = figure.locator("canvas")
    canvas.scroll_into_view_if_needed()
    seen = []
    for x, y in ((1, 1), (13, 3), (30, 2), (36, 9)):
        canvas.hover(position={"x": x, "y": y})
        if page.locator("#tip").is_visible():  # not between two tiles, or beside the last
            place, value = re.fullmatch(r"\[(.*)\] = (.*)", page.locator("#tip").inner_text()).groups()
            seen.append(tuple(map(int, place.split(", "))))
            assert array.dtype.type(number(value)) == array[seen[-1]]
    assert seen[0] == (0,) * array.ndim and len(set(seen)) > 1
    page.mouse.move(1, 1)


def check_step(page, phase, name, figures):
    assert page.locator("h2").inner_text() == f"{phase.capitalize()} · {name}"
    assert page.locator("body").get_attribute("data-phase") == phase
    for role, arrays in figures.items():
        shown = page.locator(f"figure[data-role={role}]")
        assert shown.count() == len(arrays), role
        for place, array in enumerate(arrays):
            check_figure(page, shown.nth(place), array)


@pytest.mark.parametrize("by", [BY_BUTTON, BY_KEY], ids=["button", "keyboard"])
def test_every_step_of_lenet_shows_what_was_computed(opened, lenet, by):
    steps, names, forward, backward = lenet
    page = opened(steps)

    def move(how):
        if by is BY_BUTTON:
            page.click(by[how])
        else:
            page.keyboard.press(by[how])

    for at, (name, (inputs, output)) in enumerate(zip(names, forward, strict=True)):
        assert page.inner_text("#count") == f"Step {at + 1} of 26"
        check_step(page, "forward", name, {"input": inputs, "output": [output]})
        current = page.locator(".row[aria-current=step]")
        assert current.count() == 1 and name in current.inner_text()
        move("next")
    for at, (name, (gradient, sent)) in enumerate(zip(reversed(names), backward, strict=True)):
        assert page.inner_text("#count") == f"Step {at + 14} of 26"
        inputs, output = forward[12 - at]
        check_step(page, "backward", name, {
            "incoming": [gradient], "outgoing": sent, "input": inputs, "output": [output]})
        if at < 12:
            move("next")
    assert page.is_disabled("#next") and page.is_disabled("#last")
    move("previous")
    assert page.inner_text("#count") == "Step 25 of 26"
    move("first")
    check_step(page, "forward", "conv2d", {"output": [forward[0][1]]})
    assert page.is_disabled("#previous") and page.is_disabled("#first")
    move("last")
    check_step(page, "backward", "conv2d", {"incoming": [backward[-1][0]]})


def test_it_plays_and_pauses_and_the_slider_goes_anywhere(opened, lenet):
    page = opened(lenet[0])
    page.clock.install()
    page.reload()
    page.keyboard.press("Space")
    assert page.get_attribute("#play", "aria-label") == "Pause"
    page.clock.run_for(2500)
    assert page.inner_text("#count") == "Step 3 of 26"
    page.keyboard.press("Space")
    page.clock.run_for(5000)
    assert page.inner_text("#count") == "Step 3 of 26" and page.get_attribute("#play", "aria-label") == "Play"
    page.fill("#slider", "24")
    assert page.inner_text("h2") == "Backward · tanh" and "tanh" in page.get_attribute("#slider", "aria-valuetext")
    page.click("#play")
    page.clock.run_for(5000)
    assert page.inner_text("#count") == "Step 26 of 26" and page.get_attribute("#play", "aria-label") == "Play"


class Residual(nn.Module):
    def __init__(self):
        self.before = nn.Linear(6, 6)
        self.branch = nn.Sequential(nn.Linear(6, 6), nn.ReLU())

    def forward(self, x):
        y = self.before(x)
        return y + self.branch(y)


def test_where_a_value_is_used_twice_the_parts_and_their_sum_are_shown(opened):
    net, x = Residual(), dl.tensor(np.random.default_rng(1).standard_normal((5, 6)))
    net.to("float64")
    page = opened(step_through(lambda: net(x).sum()))
    y = net.before(x)
    steps = list(dl.backward_steps((y + net.branch(y)).sum()))
    parts = [steps[1].input_gradients[0], steps[3].input_gradients[0]]
    page.click(".row:has-text('before')")
    assert page.inner_text("h2") == "Forward · linear"
    page.keyboard.press("End")
    check_step(page, "backward", "linear", {"part": parts, "sum": [parts[0] + parts[1]], "incoming": []})
    assert page.locator(".term > span").all_inner_texts() == ["+", "="]
    page.keyboard.press("ArrowLeft")
    assert "Part 2 of 2" in page.inner_text("figure[data-role=outgoing]")


def test_a_folded_module_is_one_step_and_a_click_opens_it(opened):
    net, x = Residual(), dl.tensor(np.random.default_rng(1).standard_normal((5, 6)).astype(np.float32))
    page = opened(step_through(lambda: net(x).sum()))
    assert page.inner_text("#count") == "Step 1 of 10"
    page.click("#fold")
    assert page.inner_text("#count") == "Step 1 of 8"
    page.keyboard.press("ArrowRight")
    y = net.before(x)
    check_step(page, "forward", "branch", {"input": [y.data], "output": [net.branch(y).data]})
    assert page.locator("td").all_inner_texts()[::4] == ["branch.0.weight", "branch.0.bias"]
    page.click("text=Open it")
    assert page.inner_text("#count") == "Step 2 of 10" and page.inner_text("h2") == "Forward · linear"
    page.click(".row:has-text('branch')")
    assert page.inner_text("h2") == "Forward · branch"
    assert page.get_attribute(".row:has-text('branch')", "aria-expanded") == "false"


def test_a_heat_map_grows_lighter_with_the_numbers_so_that_grey_print_keeps_their_order(opened):
    x = dl.tensor(np.linspace(-1, 1, 99).reshape(11, 9), requires_grad=True)
    page = opened(step_through(lambda: x.sum()))
    light = page.evaluate("""() => {
        const canvas = document.querySelector("canvas"), side = canvas.width / 9, light = [];
        const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        for (let r = 0; r < 11; r++) for (let c = 0; c < 9; c++) {
            const [red, green, blue] = data.slice(4 * ((r * side + 1) * canvas.width + c * side + 1));
            light.push(0.299 * red + 0.587 * green + 0.114 * blue);
        }
        return light;
    }""")
    assert (np.diff(light) > 0).all() and light[0] < 40 and light[-1] > 220
    assert page.locator(".scale span").first.inner_text() == "−1"


def test_of_a_tensor_the_page_says_what_was_not_kept(opened):
    x = dl.tensor([[1.0, np.nan], [np.inf, -4.0]], requires_grad=True)
    page = opened(step_through((x * 2.0).sum()))
    assert page.locator("figure[data-role=input] .numbers span").all_inner_texts() == ["1", "NaN", "Infinity", "−4"]
    assert page.inner_text(".warning") == "2 of 4 entries are not finite; the statistics are of the others."
    assert page.inner_text("figure[data-role=output]").endswith(
        "Step through a function that computes the loss to see them.")


def test_resnet_50_opens_quickly_folded_and_opened_and_nothing_overflows(opened):
    net = models.resnet50()
    x = dl.tensor(np.random.default_rng(0).standard_normal((1, 3, 64, 64)).astype(np.float32))
    steps = step_through(lambda: F.cross_entropy(net(x), dl.tensor([3])))
    assert len(steps.html()) < 4_000_000
    page = opened(steps)
    assert page.inner_text("#count") == "Step 1 of 24"
    assert page.evaluate("performance.getEntriesByType('navigation')[0].duration") < 3000
    page.click("#open")
    assert page.inner_text("#count") == "Step 1 of 352"
    for width in (1280, 900):
        page.set_viewport_size({"width": width, "height": 800})
        for step in (0, 30, 170, 176, 300, 351):
            page.fill("#slider", str(step))
            for part in ("html", "main", "nav"):
                assert page.evaluate(f"(e => e.scrollWidth <= e.clientWidth)(document.querySelector('{part}'))"), part


def test_in_a_notebook_the_page_works_in_its_frame(browser, lenet):
    context = browser.new_context(viewport={"width": 1100, "height": 800}, offline=True)
    page = context.new_page()
    page.set_content(f"<style>figure {{ display: none }}</style>{lenet[0]._repr_html_()}")
    frame = page.frame_locator("iframe")
    frame.locator("#next").click()
    assert frame.locator("h2").inner_text() == "Forward · tanh"
    assert frame.locator("figure").first.is_visible()
    context.close()
