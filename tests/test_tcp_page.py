"""`docs/tcp.md`: every test that a row names is there, and no requirement of RFC 9293's appendix B is left out."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "tcp.md").read_text().partition("## Beside Linux")[0]  # whose rows tests/differential reads
REQUIREMENT = re.compile(r"(?:MUST|SHLD|MAY|REC)-\d+")
LINES = [line for line in PAGE.splitlines() if line.startswith("| ")]
LISTED = [line for line in LINES if REQUIREMENT.match(line, 2)]
ROWS = [line for line in LINES if line not in LISTED and not re.match(r"\| (RFC, section|option|requirement) ", line)]
MISSING = PAGE[PAGE.index("## Missing") :]
APPENDIX_B = {
    f"{kind}-{number}"
    for kind, most in (("MUST", 69), ("SHLD", 31), ("MAY", 18), ("REC", 1))
    for number in range(1, most + 1)
}


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


@cache
def names_of(file: str) -> set[str]:
    """The test functions of a file, named as the page does."""
    folder = ROOT / "tests" if "/" in file else ROOT / "tests" / "dataplane" / "tcp"
    tree = ast.parse((folder / f"{file}.py").read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def assert_is_there(named: str) -> None:
    file, _, test = named.partition("::")
    assert test in names_of(file), named


def test_there_are_rows() -> None:
    assert len(ROWS) > 100


@pytest.mark.parametrize("row", ROWS)
def test_the_test_of_a_row_exists(row: str) -> None:
    source, what, named = cells(row)
    assert source and what
    assert_is_there(named)


def test_each_requirement_has_one_row() -> None:
    numbers = [cells(row)[0] for row in LISTED]
    assert len(numbers) == len(set(numbers)) and set(numbers) == APPENDIX_B


@pytest.mark.parametrize("row", LISTED)
def test_a_requirement_has_its_tests_or_the_reason(row: str) -> None:
    number, what, met, last = cells(row)
    assert number and what and met in ("yes", "no", "does not apply")
    if met == "yes":
        for named in last.split(", "):
            assert_is_there(named)
    else:
        assert last and "::" not in last


def test_what_is_missing_is_what_is_not_met() -> None:
    """A MAY that is not met is nobody's loss."""
    unmet = {number for number, _, met, _ in map(cells, LISTED) if met == "no" and not number.startswith("MAY")}
    assert unmet == {number for number in REQUIREMENT.findall(MISSING) if not number.startswith("MAY")}
