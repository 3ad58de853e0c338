"""The table "Beside Linux" of `docs/tcp.md`: every difference between the two stacks that the scripts show, and its reason."""

import re
from collections import defaultdict
from pathlib import Path

from view import Difference

PAGE = Path(__file__).parents[2] / "docs" / "tcp.md"
SECTION = "## Beside Linux"
NOTHING = "nothing"
LINUX = "6.18"  # whose TCP the table is about


def listed() -> dict[str, list[tuple[Difference, str]]]:
    """The differences listed for each script, each with its reason."""
    section = PAGE.read_text().partition(SECTION)[2].partition("\n## ")[0]
    found: dict[str, list[tuple[Difference, str]]] = defaultdict(list)
    for line in section.splitlines():
        if re.match(r"\| (?!script)[a-z]", line):
            script, step, linux, ours, why = (cell.strip() for cell in line.strip("|").split("|"))
            found[script].append((Difference(step.strip("`"), _lines(linux), _lines(ours)), why))
    return found


def row(script: str, difference: Difference) -> str:
    """A line of the table, its reason still to be found."""
    cells = (script, f"`{difference.step}`", _cell(difference.linux), _cell(difference.ours), "?")
    return f"| {' | '.join(cells)} |"


def _lines(cell: str) -> tuple[str, ...]:
    return tuple(re.findall("`([^`]+)`", cell))


def _cell(lines: tuple[str, ...]) -> str:
    return "; ".join(f"`{line}`" for line in lines) or NOTHING
