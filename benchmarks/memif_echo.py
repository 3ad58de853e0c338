"""What an echo of 64 bytes costs over memif: `python -m benchmarks.memif_echo`.

Raw frames of the same length (the limit), the compiled handler, and Python handlers through the framework, in turn, in
rounds. The main figure is the server's busy cycles a request; the rate is the generator's if that is busy itself.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.generator import hold_link
from benchmarks.memif_loop import generate
from benchmarks.memif_servers import KINDS, UNITS, raw_echo
from benchmarks.web import machine
from mpserve.dataplane.errors import SetupError
from mpserve.dataplane.layout import COUNTERS

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results" / "memif_echo.json"
READY_SECONDS = 30
LABELS = {
    "raw": "raw frames",
    "compiled": "compiled handler",
    "on_data": "Python, on_data",
    "on_batch": "Python, on_batch",
}
Samples = dict[tuple[str, int], list[dict[str, Any]]]


def command(module: str, *arguments: object, realtime: bool) -> list[str]:
    prefix = ["chrt", "-r", "5"] if realtime else []
    return [*prefix, sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]


@contextmanager
def running(kind: str, folder: Path, cpu: int, realtime: bool) -> Iterator[str]:
    """A server in a process of its own; yields its Ethernet address. SetupError if it doesn't start."""
    counters = folder / "counters"
    counters.write_bytes(bytes(COUNTERS.itemsize))
    argv = command("memif_servers", kind, folder / "socket", "--counters", counters, "--cpu", cpu, realtime=realtime)
    server = subprocess.Popen(argv, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    try:
        word, _, mac = (server.stdout.readline() if server.stdout else "").strip().partition(" ")
        if word != "ready":
            raise SetupError(f"the {LABELS[kind]} server did not start: run it with {' '.join(argv)}")
        yield mac
    finally:
        server.terminate()
        try:
            server.wait(READY_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def measure(kind: str, options: argparse.Namespace, cpus: tuple[int, int]) -> list[dict[str, Any]]:
    """One server, and a generator against it, which leaves last; a result for each number of connections."""
    with tempfile.TemporaryDirectory(prefix="mpserve-memif-") as name, contextlib.ExitStack() as held:
        folder = Path(name)
        with running(kind, folder, cpus[0], options.realtime) as mac:
            argv = command("generator", folder / "socket", "--server-mac", mac, realtime=options.realtime)
            argv += ["--counters", str(folder / "counters"), "--cpu", str(cpus[1]), "--bytes", str(options.bytes)]
            argv += ["--seconds", str(options.seconds), "--warm-up", str(options.warm_up)]
            connections = "1" if kind == "raw" else options.connections
            argv += ["--connections", connections]
            argv += ["--raw"] if kind == "raw" else []
            return held.enter_context(hold_link(argv, len(connections.split(","))))()


def cycles_per_request(result: dict[str, Any]) -> float:
    return result["server"]["busy_cycles"] / max(result["requests"], 1)


def _spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def table(samples: Samples) -> Table:
    shown = Table("server", "conns", "M requests/s", "cycles a request", "p50 us", "generator busy %")
    for (kind, connections), results in samples.items():
        shown.add_row(
            LABELS[kind],
            "-" if kind == "raw" else str(connections),
            _spread([r["requests_per_second"] / 1e6 for r in results], ".2f"),
            _spread([cycles_per_request(r) for r in results], ".0f"),
            "-" if kind == "raw" else _spread([r["p50_us"] for r in results], ".1f"),
            _spread([100 * r["generator_busy"] for r in results], ".0f"),
        )
    return shown


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"servers, of {', '.join(KINDS)}")
    parser.add_argument("--connections", default="1,16,64,256")
    parser.add_argument("--bytes", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--warm-up", type=float, default=0.3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--realtime", action="store_true", help="ahead of whatever else runs here (chrt, root)")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args()


def check(options: argparse.Namespace) -> tuple[int, int]:
    """The CPUs of server and generator. SetupError for what stands in the way."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise SetupError("server and generator poll a core each, and this process may use one: widen it with taskset")
    unknown = set(options.kinds.split(",")) - set(KINDS)
    if unknown:
        raise SetupError(f"no server is called {', '.join(unknown)}: choose from {', '.join(KINDS)}")
    if options.realtime and not shutil.which("chrt"):
        raise SetupError("--realtime needs chrt: apt-get install util-linux")
    return cpus[0], cpus[-1]


def run(options: argparse.Namespace, console: Console) -> Samples:
    cpus = check(options)
    for each in (*UNITS, raw_echo, generate):
        each.address  # noqa: B018  compiled once, here
    samples: Samples = defaultdict(list)
    for number in range(options.rounds):
        for kind in options.kinds.split(","):
            console.print(f"round {number + 1}: {LABELS[kind]}")
            for result in measure(kind, options, cpus):
                samples[kind, result["connections"]].append(result)
    return samples


def main() -> int:
    options, console = _parse(), Console()
    try:
        samples = run(options, console)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 2
    console.print(table(samples))
    raw = {f"{kind} {connections}": results for (kind, connections), results in samples.items()}
    options.output.write_text(json.dumps({"machine": machine.describe(), "bytes": options.bytes, "samples": raw}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
