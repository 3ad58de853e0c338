"""`python -m benchmarks.web`, by wrk: every server over a veth pair of its own, every load, in rounds; tables, plot, raw data."""

import datetime
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.web import machine, plot, report
from benchmarks.web.cores import cycles_per_second
from benchmarks.web.loads import LOADS, Load, measure
from benchmarks.web.own_count import busy_cycles_of
from benchmarks.web.servers import SERVERS, Server, ServerFailed, running, warm
from benchmarks.web.wire import veth_pair

REPOSITORY = Path(__file__).parents[2]
RESULTS = REPOSITORY / "benchmarks" / "results"
PROGRAMS = ["ip", "taskset", "sysctl", "wrk", "curl", "nginx"]


def check_machine() -> str | None:
    """What stands in the way of a run, in one line; None if nothing does."""
    if os.geteuid() != 0:
        return "making network namespaces needs root; type: sudo make bench"
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        return f"missing: {', '.join(absent)}; type: make bench"
    if (os.cpu_count() or 1) < 2:
        return "the server and the client need a core each, and this machine has one"
    return None


def measure_server(server: Server, loads: list[Load], seconds: int, progress: Progress, task: Any) -> report.Samples:
    """All loads on one start of `server`. A failure becomes a sample that says so."""
    samples: report.Samples = []
    with tempfile.TemporaryDirectory(prefix="mpbench-") as directory, veth_pair(server.kernel_sockets) as wire:
        Path(directory).chmod(0o755)
        try:
            progress.update(task, description=f"{server.label}: starting")
            with running(server, wire, Path(directory)) as process:
                busy_cycles = busy_cycles_of(server, process)
                measure(wire, LOADS[2], 1, busy_cycles)  # caches and tables warm
                for load in loads:
                    progress.update(task, description=f"{server.label}: {load.name}")
                    samples.append({"load": load.name} | measure(wire, load, seconds, busy_cycles))
                    progress.advance(task)
        except (ServerFailed, RuntimeError, ValueError) as failure:
            failed_at = loads[len(samples)]
            samples.append({"load": failed_at.name, "failed": str(failure)})
            progress.advance(task, len(loads) - len(samples) + 1)
    return [{"server": server.name} | sample for sample in samples]


def run_rounds(servers: list[Server], loads: list[Load], rounds: int, seconds: int) -> report.Samples:
    """The servers take turns within each round, so that a slow minute of the machine hits them all."""
    samples: report.Samples = []
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns) as progress:
        task = progress.add_task("", total=rounds * len(servers) * len(loads))
        for number in range(rounds):
            for server in servers:
                found = measure_server(server, loads, seconds, progress, task)
                samples += [sample | {"round": number} for sample in found]
    return samples


def summary(samples: report.Samples, labels: dict[str, str], about: dict[str, str], settings: dict[str, Any]) -> str:
    parts = [
        f"# HTTP over one veth pair, {settings['date']}",
        "; ".join(f"{name} {value}" for name, value in about.items()),
        f"Medians (lowest-highest) of {settings['rounds']} rounds of {settings['seconds']} s.",
        report.rate_table(samples, labels),
        report.cost_table(samples, labels),
        report.latency_table(samples, labels),
        "\n".join(f"- {note}" for note in report.notes(samples, about["busy_before"])),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def save(samples: report.Samples, labels: dict[str, str], about: dict[str, str], settings: dict[str, Any]) -> Path:
    directory = RESULTS / ("quick" if settings["quick"] else settings["date"])
    directory.mkdir(parents=True, exist_ok=True)
    raw = {"machine": about, "settings": settings, "servers": labels, "samples": samples}
    (directory / "data.json").write_text(json.dumps(raw, indent=1) + "\n")
    (directory / "summary.md").write_text(summary(samples, labels, about, settings))
    plot.draw(samples, labels, directory)
    return directory


@click.command()
@click.option("--quick", is_flag=True, help="One round of one second, into results/quick.")
@click.option("--rounds", default=3, show_default=True, help="Rounds; every server runs in each.")
@click.option("--seconds", default=4, show_default=True, help="Length of one measurement.")
@click.option("--only", default="", help=f"Servers, by comma: {','.join(s.name for s in SERVERS)}.")
def main(quick: bool, rounds: int, seconds: int, only: str) -> None:
    """Compare this project with nginx, uvloop and asyncio over one veth pair."""
    obstacle = check_machine()
    wanted = [name for name in only.split(",") if name]
    unknown = set(wanted) - {server.name for server in SERVERS}
    if unknown:
        obstacle = f"no server is called {', '.join(sorted(unknown))}; --help lists them"
    if obstacle:
        click.echo(f"bench: {obstacle}", err=True)
        sys.exit(2)
    servers = [server for server in SERVERS if not wanted or server.name in wanted]
    if quick:
        rounds, seconds = 1, 1
    # fmt: off
    settings = {"date": datetime.datetime.now().strftime("%Y-%m-%d-%H%M"), "rounds": rounds, "seconds": seconds,
                "quick": quick, "cycles_per_second": cycles_per_second()}
    # fmt: on
    try:
        if not all(server.kernel_sockets for server in servers):
            warm()
    except ServerFailed as failure:
        click.echo(f"bench: {failure}", err=True)
        sys.exit(2)
    about = machine.describe()
    samples = run_rounds(servers, LOADS, rounds, seconds)
    labels = {server.name: server.label for server in servers}
    directory = save(samples, labels, about, settings)
    failed = any("failed" in sample for sample in samples)
    console = Console(width=200)
    console.print((directory / "summary.md").read_text(), markup=False, highlight=False)
    console.print(f"written to {directory}", highlight=False)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
