"""`python -m benchmarks.tables`: bytes a connection, what 65,536 of them take in a process, what finding one costs."""

import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks.tables import lookup
from benchmarks.tables.sizes import ABOUT, TableSize, table_sizes
from benchmarks.web import machine
from benchmarks.web.cores import cycles_per_second
from mpserve.cli.bench.spread import Spread, number
from mpserve.dataplane.jit import warm

REPOSITORY = Path(__file__).parents[2]
RESULTS = REPOSITORY / "benchmarks" / "results" / "tables.json"
KINDS = {"stack": "the stack alone", "worker": "with the Worker and its sockets"}
BUDGET = 100_000_000  # bytes that 65,536 idle connections may take, besides mbufs
Sample = dict[str, Any]


def opened(kind: str, connections: int) -> Sample:
    """In a process of its own."""
    argv = [sys.executable, "-m", "benchmarks.tables.opened", kind, str(connections)]
    done = subprocess.run(argv, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def sizes_table(sizes: list[TableSize]) -> Table:
    """What grows, table by table; the rest in one row, but for the blocks, whose memory is there only once used."""
    shown = Table("table", "", "bytes a connection", "MB")
    grown = [size for size in sizes if size.each]
    for size in grown:
        shown.add_row(size.name, ABOUT.get(size.name, "list"), f"{size.each:g}", f"{size.bytes / 1e6:.2f}")
    shown.add_row("together", "", f"{sum(s.each for s in grown):g}", f"{sum(s.bytes for s in grown) / 1e6:.2f}")
    fixed = [size for size in sizes if not size.each]
    rest = sum(size.bytes for size in fixed if size.name != "block_data")
    shown.add_row("all others", "bounded otherwise", "0", f"{rest / 1e6:.2f}")
    blocks = next(size for size in fixed if size.name == "block_data")
    shown.add_row(blocks.name, "pages come when they are used", "0", f"{blocks.bytes / 1e6:.2f}")
    return shown


def opened_table(samples: list[Sample]) -> Table:
    shown = Table(
        "", "connections", "process grown by, MB", "of it mbufs, MB", "besides, MB", "bytes each", "blocks, MB"
    )
    for sample in samples:
        besides = sample["grown_bytes"] - sample["mbuf_bytes"]
        shown.add_row(
            KINDS[sample["kind"]],
            str(sample["connections"]),
            *(f"{value / 1e6:.1f}" for value in (sample["grown_bytes"], sample["mbuf_bytes"], besides)),
            f"{besides / sample['connections']:.0f}",
            f"{sample['block_bytes'] / 1e6:.1f}",
        )
    return shown


def lookups_table(samples: list[Sample], hertz: float) -> Table:
    shown = Table("connections", "key", *(f"{way}, {unit}" for way in lookup.WAYS for unit in ("ns", "cycles")))
    for connections, there in dict.fromkeys((s["connections"], s["there"]) for s in samples):
        cells = []
        for way in lookup.WAYS:
            found = [s for s in samples if (s["connections"], s["there"], s["way"]) == (connections, there, way)]
            spread = Spread.of(s["ns"] for s in found)
            cells += [spread.text(), number(spread.median * hertz / 1e9)]
        shown.add_row(f"{connections:,}", "in the table" if there else "not in it", *cells)
    return shown


@click.command()
@click.option("--connections", default=65_536, show_default=True, help="Of a core; a power of two.")
@click.option("--tables", default="1024,65536,1048576", show_default=True, help="Flows in the tables to look up in.")
@click.option("--rounds", default=7, show_default=True, help="Of lookups.")
@click.option("--write/--no-write", default=True, help=f"Keep the figures in {RESULTS.relative_to(REPOSITORY)}.")
def main(connections: int, tables: str, rounds: int, write: bool) -> None:
    """What a connection takes in memory, and what finding one costs."""
    about = machine.describe()
    warm()
    sizes = table_sizes(connections)
    processes = [opened(kind, connections) for kind in KINDS]
    samples = list(lookup.measure([int(word) for word in tables.split(",")], rounds))
    console = Console(width=140)
    console.print(sizes_table(sizes), opened_table(processes))
    most = max(sample["grown_bytes"] - sample["mbuf_bytes"] for sample in processes)
    console.print(f"{'under' if most < BUDGET else 'OVER'} {BUDGET / 1e6:.0f} MB", highlight=False)
    console.print(lookups_table(samples, cycles_per_second()))
    if write:
        raw = {"date": datetime.date.today().isoformat(), "machine": about, "hertz": cycles_per_second()}
        figures = {"sizes": [vars(size) for size in sizes], "opened": processes, "lookups": samples}
        RESULTS.write_text(json.dumps({**raw, **figures}) + "\n")


if __name__ == "__main__":
    main()
