"""The load points, and one measurement of one of them: wrk's figures beside the time of both cores."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.web.cores import CoreTime, cycles_per_second, read_cores
from benchmarks.web.wire import CLIENT_CORE, PORT, SERVER_ADDRESS, SERVER_CORE, URL, Wire

HERE = Path(__file__).parent
SPACING_S = 0.005


@dataclass(frozen=True)
class Load:
    """`connections` in a closed loop; `close` asks for one request a connection, `spaced` for one every SPACING_S."""

    name: str
    connections: int
    close: bool = False
    spaced: bool = False

    def command(self, seconds: int) -> list[str]:
        if self.spaced:
            arguments = [SERVER_ADDRESS, str(PORT), str(seconds), str(SPACING_S)]
            return [sys.executable, str(HERE / "spaced_client.py"), *arguments]
        header = ["-H", "Connection: close"] if self.close else []
        script = str(HERE / "wrk_report.lua")
        return ["wrk", "-t", "1", "-c", str(self.connections), "-d", f"{seconds}s", *header, "-s", script, URL]


LOADS = [
    Load("1", 1),
    Load("16", 16),
    Load("64", 64),
    Load("256", 256),
    Load("close", 64, close=True),
    Load("spaced", 1, spaced=True),
]


def parse_report(output: str) -> dict[str, int]:
    """The figures of the line that starts with JSON, in what wrk or the spaced client printed."""
    for line in output.splitlines():
        if line.startswith("JSON "):
            return json.loads(line.removeprefix("JSON "))
    raise ValueError(f"no figures in the client's output: {output[-500:]!r}")


def core_figures(name: str, spent: CoreTime, requests: int) -> dict[str, float]:
    """Share of the time that a core was busy, and its busy cycles a request."""
    share = spent.busy / max(spent.total, 1)
    jiffies_per_second = 100
    cycles = spent.busy / jiffies_per_second * cycles_per_second() / max(requests, 1)
    stolen = spent.steal / max(spent.total, 1)
    return {f"{name}_busy": share, f"{name}_cycles_a_request": cycles, f"{name}_stolen": stolen}


def measure(wire: Wire, load: Load, seconds: int, busy_cycles: Callable[[], int | None]) -> dict[str, Any]:
    """One measurement. `busy_cycles` reads the server's own count, None where it keeps none."""
    own_before, before, started = busy_cycles(), read_cores(), time.perf_counter()
    # fmt: off
    done = subprocess.run(wire.on_client(load.command(seconds)), capture_output=True, text=True,
                          timeout=seconds + 30, check=False)
    # fmt: on
    elapsed, after, own_after = time.perf_counter() - started, read_cores(), busy_cycles()
    if done.returncode:
        raise RuntimeError(f"the client failed: {(done.stderr or done.stdout).strip()[-300:]}")
    figures: dict[str, Any] = parse_report(done.stdout)
    figures["elapsed_s"] = elapsed
    figures["rate"] = figures["requests"] * 1e6 / figures["duration_us"]
    for name, core in (("server", SERVER_CORE), ("client", CLIENT_CORE)):
        figures |= core_figures(name, after[core].since(before[core]), figures["requests"])
    if own_before is not None and own_after is not None:
        figures["own_cycles_a_request"] = (own_after - own_before) / max(figures["requests"], 1)
    return figures
