"""What a request costs, in cycles: the server's own count where it keeps one, and the time of its core by the kernel's.

A server of ours polls, so that its core is never idle: its own count is that of the turns that did work. For others it is all
that is not idle, from /proc/stat. The kernel's part of a veth runs in the softirq of the core that sends, so softirq time of the
generator's core is counted with the server's, for every server alike.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mpserve.cli.bench.wires import two_cores
from mpserve.dataplane.errors import SetupError

IDLE, IOWAIT, SOFTIRQ, STEAL = 3, 4, 6, 7
JIFFIES = 100  # a second
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class CoreTime:
    """Jiffies of one core since boot."""

    busy: int
    softirq: int
    stolen: int


def core_times(text: str) -> dict[int, CoreTime]:
    """By core, from the text of /proc/stat (proc_stat(5)); guest time is within user time already."""
    found = {}
    for number, fields in re.findall(r"^cpu(\d+) (.*)$", text, re.MULTILINE):
        jiffies = [int(field) for field in fields.split()][:8]
        busy = sum(jiffies) - jiffies[IDLE] - jiffies[IOWAIT] - jiffies[STEAL]
        found[int(number)] = CoreTime(busy, jiffies[SOFTIRQ], jiffies[STEAL])
    return found


def read_core_times() -> dict[int, CoreTime]:
    return core_times(Path("/proc/stat").read_text())


class Meter:
    """Reads both counts; `pid` is that of the server's supervisor if it is ours, otherwise None."""

    def __init__(self, pid: int | None) -> None:
        self._segment = _segment_of(pid) if pid is not None else None
        self._server, self._generator = two_cores()
        self.start()

    def start(self) -> None:
        self._before = self._read()

    def _read(self) -> tuple[int, dict[int, CoreTime]]:
        own = _busy_cycles(self._segment) if self._segment is not None else 0
        return own, read_core_times()

    def cycles(self, requests: int, hz: float) -> float:
        """Of the server, a request, since `start`; `hz` of the TSC."""
        own_before, before = self._before
        own, now = self._read()
        softirq = now[self._generator].softirq - before[self._generator].softirq
        server = now[self._server].busy - before[self._server].busy
        spent = softirq / JIFFIES * hz + (own - own_before if self._segment is not None else server / JIFFIES * hz)
        return spent / max(requests, 1)


def _segment_of(pid: int) -> Path:
    found = list(SHARED_MEMORY.glob(f"mpserve-{pid}-*-counters"))
    if len(found) != 1:
        raise SetupError(f"the server's counters are not in {SHARED_MEMORY}: found {len(found)} segments of {pid}")
    return found[0]


def _busy_cycles(segment: Path) -> int:
    import numpy as np

    from mpserve.dataplane.layout import COUNTERS

    return int(np.frombuffer(segment.read_bytes(), COUNTERS, 1)[0]["busy_cycles"])
