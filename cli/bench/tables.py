"""The tables that a run prints: a row a server, costs first; Markdown of the same for the documentation."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from mpserve.cli.bench.figures import LIMIT_BUSY, Figure, by_name, name_of
from mpserve.cli.bench.rounds import Load
from mpserve.cli.bench.servers import Server
from mpserve.cli.bench.spread import Spread, number

HEAD = ("server", "load", "cycles a request", "thousand/s", "p50 us", "p99 us", "p99.9 us", "generator busy", "ratio")


def spread(figure: Figure, scale: float = 1.0) -> str:
    """`median (lowest-highest)`."""
    return Spread(figure.median, figure.min, figure.max).text(scale)


def rows_of(figures: list[Figure], servers: Sequence[Server], loads: Sequence[Load]) -> list[list[str]]:
    """A row for each load and server that has figures."""
    known, rows = by_name(figures), []
    for load in loads:
        for server in servers:
            rate = known.get(name_of(server.name, load.name, "rate"))
            if rate is None:
                continue
            latencies = [known[name_of(server.name, load.name, what)] for what in ("p50_us", "p99_us", "p99.9_us")]
            busy = f"{rate.generator_busy:.0%}" + (" its limit" if rate.generator_busy > LIMIT_BUSY else "")
            cost = number(rate.cycles) if rate.cycles is not None else "-"
            ratio = number(rate.ratio) if rate.ratio is not None else "-"
            rows.append([server.label, load.name, cost, spread(rate, 1000), *map(spread, latencies), busy, ratio])
    return rows


def table(title: str, rows: list[list[str]]) -> Table:
    made = Table(title=title, title_justify="left")
    for column, name in enumerate(HEAD):
        made.add_column(name, justify="left" if column < 2 else "right")
    for row in rows:
        made.add_row(*row)
    return made


def markdown(rows: list[list[str]]) -> str:
    rule = ["---", "---", *["---:"] * (len(HEAD) - 2)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [list(HEAD), rule, *rows])
