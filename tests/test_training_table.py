"""Tables of measurements: they come back digit by digit, and damage is named with the path."""

import math

import pytest

from minidl.training.table import read_table, write_table

COLUMNS = {"epoch": int, "layer": str, "norm": float}
ROWS = [{"epoch": 0, "layer": "conv1, first", "norm": 0.1 + 0.2}, {"epoch": 1, "layer": 'a "b"\n', "norm": math.inf}]


@pytest.mark.parametrize("columns", [None, COLUMNS])
def test_rows_come_back_digit_by_digit(tmp_path, columns):
    write_table(tmp_path / "a.csv", ROWS)
    assert read_table(tmp_path / "a.csv", columns) == ROWS


@pytest.mark.parametrize("content, complaint", [
    (b"epoch,layer,norm\n1,a\n", "its rows are not all as long as the first"),
    (b"epoch,layer,norm\n1,a,2,3\n", "its rows are not all as long as the first"),
    (b"epoch,layer,norm\n1,a,\xff\n", "not a table"),
    (b'epoch,layer,norm\n1,"' + b"x" * 200_000, "not a table"),
    (b"epoch,norm,layer\n1,2,a\n", r"it has the columns \['epoch', 'norm', 'layer'\]; expected \['epoch', 'layer', "),
    (b"", r"it has the columns \[\]; expected"),
    (b"epoch,layer,norm\n1.5,a,2\n", "epoch is '1.5', not a whole number"),
    (b"epoch,layer,norm\n1,a,x\n", "norm is 'x', not a number"),
    (b"epoch,layer,norm\n" + b"9" * 5000 + b",a,1\n", "epoch is '999"),
], ids=lambda value: str(value)[:40])
def test_a_damaged_table_is_refused_with_its_path(tmp_path, content, complaint):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=complaint) as caught:
        read_table(path, COLUMNS)
    assert str(caught.value).startswith(f"{path} is damaged: ") and len(str(caught.value)) < 400


def test_no_rows_are_no_table(tmp_path):
    with pytest.raises(ValueError, match="no rows to write"):
        write_table(tmp_path / "a.csv", [])
    assert not list(tmp_path.iterdir())
