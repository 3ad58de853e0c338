"""The page: one self-contained HTML file, with the plots in it, the tables behind them, and where they come from."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 2rem auto; max-width: 56rem; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.25rem; margin-top: 3rem; border-top: 1px solid #ddd; padding-top: 1.5rem }
p.question { font-weight: 600 } p.limits, footer, .about { color: #555; font-size: 0.9rem }
figure { margin: 1rem 0 } svg { max-width: 100%; height: auto }
details { margin: 0.5rem 0 } table { border-collapse: collapse; font-size: 0.85rem; display: block; overflow-x: auto }
th, td { padding: 0.2rem 0.6rem; border-bottom: 1px solid #eee; text-align: right; white-space: nowrap }
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left }
""".strip()


@dataclass(frozen=True)
class Table:
    """Shown when it is asked for, under its name."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    name: str = "Figures"


@dataclass(frozen=True)
class Section:
    """One experiment, or some of a kind, as the page shows it. `plots` are SVG."""

    title: str
    question: str
    plots: Sequence[str]
    reading: str
    limits: str
    tables: Sequence[Table]


def page(about: Mapping[str, str], sections: Sequence[Section], notes: Sequence[str]) -> str:
    machine = "; ".join(f"{name} {value}" for name, value in about.items())
    parts = [
        "<!doctype html>",
        f'<html lang="en"><meta charset="utf-8"><title>mpserve: the papers\' experiments</title><style>{STYLE}</style>',
        '<meta name="viewport" content="width=device-width">',
        "<h1>mpserve: the papers' experiments, on this machine</h1>",
        f'<p class="about">{html.escape(machine)}</p>',
        "<p>Each figure is the median of the rounds, its bar the lowest and highest. Server and generator have a core each. "
        "A rate at which the generator was busy for more than 80 % is marked: it may be the generator's.</p>",
        *(_section(section) for section in sections),
        *([f"<h2>Notes</h2><ul>{''.join(f'<li>{html.escape(note)}</li>' for note in notes)}</ul>"] if notes else []),
        "<footer><p>Written by <code>mpserve bench paper</code>; the raw data lies beside this file.</p></footer></html>",
    ]
    return "\n".join(parts) + "\n"


def _section(section: Section) -> str:
    return "\n".join(
        (
            f"<h2>{html.escape(section.title)}</h2>",
            f'<p class="question">{html.escape(section.question)}</p>',
            *(f"<figure>{plot}</figure>" for plot in section.plots),
            *([] if section.plots else ["<p>Nothing was measured.</p>"]),
            f"<p>{html.escape(section.reading)}</p>",
            f'<p class="limits">{html.escape(section.limits)}</p>',
            *map(_table, section.tables),
        )
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.head)
    rows = "\n".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    name = html.escape(table.name)
    return f"<details><summary>{name}</summary><table><tr>{head}</tr>\n{rows}</table></details>"
