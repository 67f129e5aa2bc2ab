"""The tests themselves: each one runs, and each one can fail.

Respected libraries have had a test named `text_constant`, a test class defined twice, and hundreds of `assert True`.
"""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from minidl import functional as F
from minidl.autograd import OPERATIONS

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "tests").glob("*.py"))
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)


def definitions(path):
    return [node for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, (ast.FunctionDef, ast.ClassDef))]


@every_file
def test_no_name_is_defined_twice(path):
    twice = [name for name, count in Counter(node.name for node in definitions(path)).items() if count > 1]
    assert not twice


@every_file
def test_a_function_that_asserts_is_a_test_or_is_used(path):
    everything = "\n".join(file.read_text(encoding="utf-8") for file in FILES)
    for node in definitions(path):
        asserts = any(isinstance(inner, ast.Assert) for inner in ast.walk(node))
        decorators = "".join(map(ast.unparse, node.decorator_list))
        if asserts and not node.name.startswith(("test_", "Test")) and "fixture" not in decorators:
            uses = len(re.findall(rf"\b{node.name}\b", everything))
            assert uses > 1, f"{node.name} looks like a test, but nothing runs it"


@every_file
def test_no_assertion_is_of_a_constant(path):
    constants = [node.lineno for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                 if isinstance(node, ast.Assert) and isinstance(node.test, ast.Constant)]
    assert not constants


@every_file
def test_every_test_checks_something(path):
    """A test asserts, expects an exception, or calls a helper that says by its name that it checks."""
    for node in definitions(path):
        if node.name.startswith("test_"):
            source = ast.unparse(node)
            assert re.search(r"\bassert|raises|check|agree|gradcheck|refuse", source), node.name


def test_every_formula_stands_once():
    """One function an operation: what a tensor's method runs is what students read in functional/."""
    sources = (ROOT / "minidl" / "functional").glob("*.py")
    decorated = re.compile(r"@differentiable(?:\([^)]*\))?\ndef (\w+)")
    written = [name for file in sources for name in decorated.findall(file.read_text(encoding="utf-8"))]
    assert sorted(written) == sorted(OPERATIONS)
    assert all(getattr(F, name, operation) is operation for name, operation in OPERATIONS.items())
