"""`python -m benchmarks.bulk`: the same stream by both stacks over the same wire, each way, in rounds; table and raw data."""

import datetime
import json
import statistics
import sys
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks.bulk.ends import REPOSITORY, STACKS, check_machine, joined, move, namespaces, serving
from benchmarks.web import machine

RESULTS = REPOSITORY / "benchmarks" / "results" / "bulk.json"
WIRES = {
    "0 %": "seed=1",
    "1 %": "loss=1%,reorder=1%,duplicate=1%,hold=200us,seed=1",
    "1 %, 2 ms": "loss=1%,reorder=1%,duplicate=1%,delay=1ms,seed=1",
}
WAYS = {"get": "server sends", "put": "server receives"}
Samples = list[dict[str, Any]]


def measure(wire: str, stack: str, length: int, ways: list[str], device: str) -> Samples:
    """One start of a server on one wire, a stream each way."""
    found: Samples = []
    with namespaces(stack == "linux"), joined(WIRES[wire]), serving(stack, device):
        for way in ways:
            seconds = move(way, length)
            found.append({"wire": wire, "stack": stack, "way": way, "bytes": length, "seconds": seconds})
            print(f"{wire}, {STACKS[stack]}, {WAYS[way]}: {length / seconds / 1e6:.1f} MB/s", file=sys.stderr)
    return found


def table(samples: Samples) -> Table:
    """Goodput in MB/s, median (lowest-highest), and the ratio of the medians."""
    shown = Table("wire", "direction", *STACKS.values(), "ratio")
    for wire in WIRES:
        for way, label in WAYS.items():
            cells, medians = [], []
            for stack in STACKS:
                rates = [
                    s["bytes"] / s["seconds"] / 1e6
                    for s in samples
                    if (s["wire"], s["stack"], s["way"]) == (wire, stack, way)
                ]
                if not rates:
                    break
                medians.append(statistics.median(rates))
                cells.append(f"{medians[-1]:.1f} ({min(rates):.1f}-{max(rates):.1f})")
            if len(cells) == len(STACKS):
                shown.add_row(wire, label, *cells, f"{medians[0] / medians[1]:.2f}")
    return shown


def keep(samples: Samples, device: str) -> None:
    """Write what is measured so far: an interrupted run keeps it."""
    about = {"date": datetime.date.today().isoformat(), "machine": machine.describe(), "wires": WIRES, "device": device}
    RESULTS.write_text(json.dumps({**about, "samples": samples}, indent=1) + "\n")


@click.command()
@click.option("--bytes", "length", default=10 << 30, show_default=True, help="Length of each stream.")
@click.option("--rounds", default=1, show_default=True, help="Each stack moves each stream so often, taking turns.")
@click.option("--only", multiple=True, type=click.Choice(list(WIRES)), help="One wire of them; may be given again.")
@click.option("--ways", multiple=True, type=click.Choice(list(WAYS)), help="One direction.")
@click.option(
    "--device",
    type=click.Choice(["af_packet", "af_xdp"]),
    default="af_packet",
    show_default=True,
    help="How our server's end of the wire is driven.",
)
@click.option("--write/--no-write", default=True, help=f"Keep the figures in {RESULTS.relative_to(REPOSITORY)}.")
def main(length: int, rounds: int, only: tuple[str, ...], ways: tuple[str, ...], device: str, write: bool) -> None:
    """Streams over a faulty wire: this project's TCP beside Linux's, sending and receiving."""
    obstacle = check_machine()
    if obstacle:
        click.echo(f"bench: {obstacle}", err=True)
        sys.exit(2)
    samples: Samples = []
    for _ in range(rounds):
        for wire in only or WIRES:
            for stack in STACKS:
                samples += measure(wire, stack, length, list(ways or WAYS), device)
                if write:
                    keep(samples, device)
    Console(width=120).print(table(samples))


if __name__ == "__main__":
    main()
