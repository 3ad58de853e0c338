"""`python -m benchmarks.cores`: what several cores cost and bring, in four experiments; tables and raw data."""

import datetime
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks.cores import accepts, cycles, deliver, rebalance
from benchmarks.cores.lane import Sample, run_lane
from benchmarks.cores.network import check_machine
from benchmarks.cores.nic import nic_rx, nic_tx, port_rx, port_tx
from benchmarks.memif_pair import REPOSITORY
from benchmarks.web import machine
from mpserve.dataplane.errors import SetupError
from mpserve.dataplane.jit import warm

RESULTS = REPOSITORY / "benchmarks" / "results" / "cores.json"


@dataclass(frozen=True)
class Experiment:
    """`measure(rounds, settings)` gives a sample for each measurement; `progress` says in a few words what one was."""

    about: str
    measure: Callable[[int, dict[str, Any]], Iterator[Sample]]
    progress: Callable[[Sample], str]
    table: Callable[[list[Sample]], Table]
    rounds: int
    real_workers: bool = False


EXPERIMENTS = {
    "cycles": Experiment(
        "the servers' cycles a request",
        lambda rounds, given: cycles.measure(rounds, given["seconds"]),
        lambda s: f"{s['plan']}, {s['connections']} connections: {s['cycles']:.0f} cycles a request",
        cycles.table,
        rounds=15,
    ),
    "accept": Experiment(
        "the servers' cycles a short connection",
        lambda rounds, given: accepts.measure(rounds, given["seconds"]),
        lambda s: f"{s['kind']}: {s['cycles']:.0f} cycles a connection",
        accepts.table,
        rounds=15,
    ),
    "deliver": Experiment(
        "where frames of outgoing connections arrive",
        lambda rounds, given: deliver.measure(rounds, given["calls"]),
        lambda s: f"receive flow deliver {s['deliver']}, core {s['core']}: {100 * deliver.home(s):.1f} % at home",
        deliver.table,
        rounds=3,
        real_workers=True,
    ),
    "rebalance": Experiment(
        "a skewed load",
        lambda rounds, given: rebalance.measure(rounds, given["skewed_seconds"]),
        lambda s: f"rebalance {s['rebalance']}: {s['replies_per_second']:.0f} replies/s, p99 {s['p99_ms']:.1f} ms",
        rebalance.table,
        rounds=3,
        real_workers=True,
    ),
}


def keep(name: str, samples: list[Sample], settings: dict[str, Any]) -> None:
    """Put an experiment's figures in the place of its last ones; those of the others stay."""
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    about = {"date": datetime.date.today().isoformat(), "machine": machine.describe(), "settings": settings}
    RESULTS.write_text(json.dumps(kept | {name: about | {"samples": samples}}) + "\n")


def compile_all() -> None:
    """Once, before anything is measured."""
    warm()
    for each in (nic_rx, nic_tx, port_rx, port_tx, run_lane):
        each.address  # noqa: B018  compiled by asking


@click.command()
@click.option("--only", multiple=True, type=click.Choice(list(EXPERIMENTS)), help="One experiment; may be given again.")
@click.option("--rounds", default=0, help="Of each experiment; 0: as many as suit it.")
@click.option("--seconds", default=0.2, show_default=True, help="Length of one measurement of cycles and accept.")
@click.option("--calls", default=deliver.CALLS, show_default=True, help="Connections out of each worker, for deliver.")
@click.option("--skewed-seconds", default=4.0, show_default=True, help="Length of one measurement of rebalance.")
@click.option("--write/--no-write", default=True, help=f"Keep the figures in {RESULTS.relative_to(REPOSITORY)}.")
def main(only: tuple[str, ...], rounds: int, seconds: float, calls: int, skewed_seconds: float, write: bool) -> None:
    """What several cores cost and bring."""
    settings = {"seconds": seconds, "calls": calls, "skewed_seconds": skewed_seconds}
    compile_all()
    for name in only or EXPERIMENTS:
        try:
            samples = run(name, rounds, settings)
        except SetupError as error:
            click.echo(f"{name}: {error}", err=True)
            sys.exit(2)
        Console(width=180).print(EXPERIMENTS[name].table(samples))
        for line in cycles.verdict(samples) if name == "cycles" else []:
            click.echo(line)
        if write:
            keep(name, samples, settings)


def run(name: str, rounds: int, settings: dict[str, Any]) -> list[Sample]:
    """Every sample of an experiment, each said as it comes. SetupError where the machine can't."""
    experiment = EXPERIMENTS[name]
    obstacle = check_machine() if experiment.real_workers else None
    if obstacle:
        raise SetupError(obstacle)
    samples = []
    for sample in experiment.measure(rounds or experiment.rounds, settings):
        click.echo(f"{name}, round {sample['round'] + 1}: {experiment.progress(sample)}", err=True)
        samples.append(sample)
    return samples


if __name__ == "__main__":
    main()
