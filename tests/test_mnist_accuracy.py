"""What the lecture's LeNet-5 reaches with the command line's own settings. Slow: it trains on all of MNIST."""

from pathlib import Path

import pytest

from minidl.cli import main

MNIST = Path(__file__).parents[2] / "shared" / "data" / "mnist"

pytestmark = pytest.mark.slow


def accuracy_of(capsys, *arguments):
    assert main(["train", "lenet5", "--quiet", *arguments]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    return float(last.removeprefix("test accuracy ").partition("%")[0])


def test_lenet5_reaches_98_9_percent_on_mnist_in_five_epochs(tmp_path, capsys):
    if not MNIST.is_dir():
        pytest.skip("skipped: data not found")
    assert accuracy_of(capsys, "--data", f"mnist:{MNIST}", "--epochs", "5", "--out", str(tmp_path / "run")) >= 98.9


@pytest.mark.parametrize("variant, percent", [("lecture", 98.0), ("1998", 97.0)])
def test_lenet5_learns_the_bundled_digits(tmp_path, capsys, variant, percent):
    assert accuracy_of(capsys, "--option", f"variant={variant}", "--out", str(tmp_path / "run")) >= percent
