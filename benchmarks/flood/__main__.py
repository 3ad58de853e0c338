"""`python -m benchmarks.flood`: SYNs from everywhere between the frames of honest clients, in rounds; tables and raw data."""

import contextlib
import datetime
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from benchmarks.flood import report
from benchmarks.flood.drop import DROP, drop_rx, drop_tx
from benchmarks.flood.loop import generate_flood
from benchmarks.flood.offer import Offer
from benchmarks.memif_pair import REPOSITORY, command, hold_link, serving, two_cpus
from benchmarks.memif_servers import UNITS
from benchmarks.web import machine
from mpserve.dataplane.errors import SetupError
from mpserve.dataplane.layout import COUNTERS

RESULTS = REPOSITORY / "benchmarks" / "results" / "flood.json"
RATIOS = "0,1,4,16,32,48,64,80,96"
CLOSED_RATIOS = "0,1,4,16"


def measure(offers: list[Offer], settings: dict[str, Any], realtime: bool = False) -> list[report.Sample]:
    """One server and one generator, two samples for each offer; `settings` are the generator's options."""
    server_cpu, generator_cpu = two_cpus(realtime)
    with tempfile.TemporaryDirectory(prefix="mpserve-flood-") as name, contextlib.ExitStack() as held:
        files = [Path(name) / file for file in ("socket", "counters", "drop")]
        files[1].write_bytes(bytes(COUNTERS.itemsize))
        files[2].write_bytes(bytes(DROP.itemsize))
        with serving(command("flood.server", *files, "--cpu", server_cpu, realtime=realtime)) as mac:
            argv = command("flood.generator", *files, "--cpu", generator_cpu, realtime=realtime)
            argv += ["--server-mac", mac, "--offers", ",".join(map(str, offers))]
            for option, value in settings.items():
                argv += [f"--{option}"] if value is True else [f"--{option}", str(value)]
            return held.enter_context(hold_link(argv, 2 * len(offers)))()


def parse_offers(ratios: str, closed_ratios: str, requests: float, opens: float) -> list[Offer]:
    """Each list begins with 0: that is what the others are compared with."""
    paced = [Offer(ratio, requests, opens) for ratio in sorted({0, *map(int, ratios.split(","))})]
    closed = [Offer(ratio, 0, opens) for ratio in sorted({0, *map(int, closed_ratios.split(","))})]
    return paced + closed if closed_ratios else paced


@click.command()
@click.option("--ratios", default=RATIOS, show_default=True, help="SYNs to each honest frame.")
@click.option("--closed-ratios", default=CLOSED_RATIOS, show_default=True, help="The same where clients have no pace.")
@click.option("--requests", default=50_000, show_default=True, help="Requests a second, on keep-alive connections.")
@click.option("--opens", default=1000, show_default=True, help="New connections a second, with a request each.")
@click.option("--clients", default=256, show_default=True, help="Keep-alive connections.")
@click.option("--seconds", default=0.4, show_default=True, help="Length of one measurement.")
@click.option("--rounds", default=5, show_default=True, help="Every offer is made in each.")
@click.option("--realtime", is_flag=True, help="Ahead of whatever else runs here (chrt, root).")
@click.option("--write/--no-write", default=True, help=f"Keep the figures in {RESULTS.relative_to(REPOSITORY)}.")
def main(
    ratios: str,
    closed_ratios: str,
    requests: int,
    opens: int,
    clients: int,
    seconds: float,
    rounds: int,
    realtime: bool,
    write: bool,
) -> None:
    """A SYN flood over memif: what a SYN costs the core, and what honest clients keep."""
    offers = parse_offers(ratios, closed_ratios, requests, opens)
    settings = {"clients": clients, "seconds": seconds, "warm-up": 0.15}
    about = machine.describe()
    samples: list[report.Sample] = []
    for unit in (*UNITS, drop_rx, drop_tx, generate_flood):
        unit.address  # noqa: B018  compiled once, here
    try:
        for number in range(rounds):
            click.echo(f"round {number + 1} of {rounds}", err=True)
            samples += [sample | {"round": number} for sample in measure(offers, settings, realtime)]
    except SetupError as error:
        click.echo(error, err=True)
        sys.exit(2)
    show(samples)
    if write:
        raw = {"date": datetime.date.today().isoformat(), "machine": about, "settings": settings, "samples": samples}
        RESULTS.write_text(json.dumps(raw) + "\n")


def show(samples: list[report.Sample]) -> None:
    console, found = Console(width=180), report.trials(samples)
    console.print(report.paced_table(found))
    for line in report.verdict(found):
        console.print(line, highlight=False)
    console.print(report.closed_table(found))


if __name__ == "__main__":
    main()
