"""The busy cycles a worker counts itself: those of the turns that did work. Other servers keep none."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.web.servers import Server, ServerFailed

SHARED_MEMORY = Path("/dev/shm")


def busy_cycles_of(server: Server, process: subprocess.Popen[bytes]) -> Callable[[], int | None]:
    """A function that reads the count of the running `server`; it gives None where there is none.

    Raises:
        ServerFailed: the server is ours and its counters are not where the supervisor keeps them.
    """
    if server.kernel_sockets:
        return lambda: None
    segments = list(SHARED_MEMORY.glob(f"mpserve-{process.pid}-*-counters"))
    if len(segments) != 1:
        raise ServerFailed(f"its counters are not in {SHARED_MEMORY}: found {segments}")
    return lambda: read_busy_cycles(segments[0])


def read_busy_cycles(segment: Path) -> int:
    """Cycles, from a segment that holds one COUNTERS record."""
    from mpserve.dataplane.layout import COUNTERS

    return int(np.frombuffer(segment.read_bytes(), COUNTERS, 1)[0]["busy_cycles"])
