"""The README's example runs and prints what the README shows; its files and commands exist."""

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pytest

import minidl
import models

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_example_prints_what_is_shown_and_its_loss_can_be_stepped_through():
    shown = re.search(r"```\n\n```\n(cross_entropy.*?)```", README, re.DOTALL)
    printed, room = io.StringIO(), {}
    with contextlib.redirect_stdout(printed):
        exec(PYTHON[0], room)
    assert shown is not None and printed.getvalue() == shown[1]
    imported, expression = PYTHON[1].strip().splitlines()
    exec(imported, room)
    assert eval(expression, room)._repr_html_().startswith("<iframe")


@pytest.mark.usefixtures("blank_weights")
def test_the_networks_are_counted_as_shown():
    *counting, weights = PYTHON[2].strip().splitlines()
    room: dict = {}
    exec("\n".join(counting), room)
    assert room["counted"].total_params == 60_965_224 and 'weights="imagenet"' in weights


def test_the_table_of_networks_says_their_parameters():
    table = README[README.index("## The networks") : README.index("All take `num_classes`")]
    for name in models.available():
        family = re.sub(r"\d+$", "", name)
        assert f"`{name}`" in table or (f"`{family}" in table and f"`{name.removeprefix(family)}`" in table)


def test_the_algorithm_that_ran_is_as_shown():
    room: dict = {"minidl": minidl}
    exec(PYTHON[3], room)
    assert f"# {room['ran']!r}" in PYTHON[3]


def test_the_recipe_gives_an_operation_that_passes_gradcheck():
    room: dict = {}
    exec(PYTHON[4], room)
    assert eval(PYTHON[5].partition("\n")[0], {"minidl": minidl, **room}) is True
    np.testing.assert_allclose(room["softplus"](np.zeros(1)).data, np.log(2))


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:minidl|models|tests)/[\w/.]+)`", README))))
def test_every_file_that_is_named_exists(path):
    assert (ROOT / path).exists()
