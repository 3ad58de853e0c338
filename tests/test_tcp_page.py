"""`docs/tcp.md`: every row names a test, and every test that it names is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "tcp.md").read_text().partition("## Beside Linux")[0]  # whose rows tests/differential reads
ROWS = [line for line in PAGE.splitlines() if re.match(r"\| (?!RFC, section)[^-]|\| - ", line)]


def test_there_are_rows() -> None:
    assert len(ROWS) > 50


@pytest.mark.parametrize("row", ROWS)
def test_the_test_of_a_row_exists(row: str) -> None:
    *_, what, named = (cell.strip() for cell in row.strip("|").split("|"))
    assert what
    file, _, test = named.partition("::")
    folder = ROOT / "tests" if "/" in file else ROOT / "tests" / "dataplane" / "tcp"
    tree = ast.parse((folder / f"{file}.py").read_text())
    assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
