"""Two processes on a memif link, a server and a generator: how they are started, and which of them leaves first."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mpserve.dataplane.errors import SetupError

REPOSITORY = Path(__file__).parents[1]
READY_SECONDS = 30


def command(module: str, *arguments: object, realtime: bool) -> list[str]:
    """How to run a module of `benchmarks`, ahead of whatever else runs here if `realtime`."""
    prefix = ["chrt", "-r", "5"] if realtime else []
    return [*prefix, sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]


def two_cpus(realtime: bool) -> tuple[int, int]:
    """The CPUs of server and generator. SetupError if this process may use one only, or can't run others in real time."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise SetupError("server and generator poll a core each, and this process may use one: widen it with taskset")
    if realtime and not shutil.which("chrt"):
        raise SetupError("--realtime needs chrt: apt-get install util-linux")
    return cpus[0], cpus[-1]


@contextlib.contextmanager
def serving(argv: list[str]) -> Iterator[str]:
    """A server in a process of its own, that says `ready MAC`; yields the Ethernet address. SetupError if it doesn't start."""
    server = subprocess.Popen(argv, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    try:
        word, _, mac = (server.stdout.readline() if server.stdout else "").strip().partition(" ")
        if word != "ready":
            raise SetupError(f"the server did not start: run it with {' '.join(argv)}")
        yield mac
    finally:
        server.terminate()
        try:
            server.wait(READY_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@contextlib.contextmanager
def hold_link(argv: list[str], count: int) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """A generator process that is told to `--hold`; yields a function that waits for its `count` results.

    net_memif unmaps its memory in a thread of its own when the peer leaves, even in the middle of a burst (seen in DPDK
    22.11: the poll loop then segfaults). So whoever starts both ends stops the server inside this block.
    """
    with subprocess.Popen(
        [*argv, "--hold"], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def results() -> list[dict[str, Any]]:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(count)]
            if not all(lines):
                raise SetupError(f"the generator failed: run it with {' '.join(argv)}")
            return [json.loads(line) for line in lines]

        yield results
        process.communicate()
