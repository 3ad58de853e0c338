"""What an echo of 64 bytes costs over memif: `python -m benchmarks.memif_echo`.

Raw frames of the same length (the limit), the compiled handler, and Python handlers through the framework, in turn, in
rounds. The main figure is the server's busy cycles a request; the rate is the generator's if that is busy itself.
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.memif_pair import REPOSITORY, command, hold_link, serving, two_cpus
from benchmarks.memif_servers import KINDS, UNITS, raw_echo
from benchmarks.web import machine
from mpserve.apps.load.small.loop import generate
from mpserve.dataplane.errors import SetupError
from mpserve.dataplane.layout import COUNTERS

RESULTS = REPOSITORY / "benchmarks" / "results" / "memif_echo.json"
LABELS = {
    "raw": "raw frames",
    "compiled": "compiled handler",
    "on_data": "Python, on_data",
    "on_batch": "Python, on_batch",
}
Samples = dict[tuple[str, int], list[dict[str, Any]]]


def measure(kind: str, options: argparse.Namespace, cpus: tuple[int, int]) -> list[dict[str, Any]]:
    """One server, and a generator against it, which leaves last; a result for each number of connections."""
    with tempfile.TemporaryDirectory(prefix="mpserve-memif-") as name, contextlib.ExitStack() as held:
        socket, counters = Path(name) / "socket", Path(name) / "counters"
        counters.write_bytes(bytes(COUNTERS.itemsize))
        shared = ["--counters", counters, "--cpu"]
        argv = command("memif_servers", kind, socket, *shared, cpus[0], realtime=options.realtime)
        with serving(argv) as mac:
            argv = command("generator", socket, *shared, cpus[1], "--server-mac", mac, realtime=options.realtime)
            argv += ["--bytes", str(options.bytes)]
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
    unknown = set(options.kinds.split(",")) - set(KINDS)
    if unknown:
        raise SetupError(f"no server is called {', '.join(unknown)}: choose from {', '.join(KINDS)}")
    return two_cpus(options.realtime)


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
