"""What server and generator are joined by: shared memory without a kernel between (memif), or a veth pair of two namespaces.

The server has one core, the generator another. Nothing outside is touched, and nothing is left.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mpserve.dataplane.errors import SetupError

SERVER_ADDRESS, GENERATOR_ADDRESS, PREFIX_LENGTH = "10.88.0.2", "10.88.0.1", 24


@dataclass(frozen=True)
class Wire:
    """Where each side is: how its commands begin, and its device for a stack of ours."""

    kind: str
    server_prefix: list[str]
    generator_prefix: list[str]
    server_device: str
    generator_device: str
    folder: Path  # empty, for the server's files


def two_cores() -> tuple[int, int]:
    """The server's and the generator's. SetupError if this process may use one only."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise SetupError("server and generator need a core each, and this process may use one: widen it with taskset")
    return allowed[0], allowed[-1]


def check(kind: str) -> None:
    """SetupError if this machine can't make such a wire."""
    two_cores()
    if kind == "memif":
        return
    if os.geteuid() != 0:
        raise SetupError(
            "--wire veth makes network namespaces, which needs root: type sudo mpserve bench ..., or --wire memif"
        )
    missing = [program for program in ("ip", "taskset") if shutil.which(program) is None]
    if missing:
        raise SetupError(f"--wire veth needs {' and '.join(missing)}: apt-get install iproute2 util-linux")


@contextlib.contextmanager
def make_wire(kind: str, *, kernel_address: bool) -> Iterator[Wire]:
    """A new wire. `kernel_address` gives the server's end its address in the kernel, for servers on kernel sockets."""
    with tempfile.TemporaryDirectory(prefix="mpserve-bench-") as folder:
        os.chmod(folder, 0o755)
        if kind == "memif":
            yield _memif(Path(folder))
            return
        with _veth(kernel_address) as (server, generator):
            core, other = two_cores()
            ends = {"server": server, "generator": generator}
            prefixes = {
                side: ["ip", "netns", "exec", _namespace(side), "taskset", "-c", str(number)]
                for side, number in (("server", core), ("generator", other))
            }
            yield Wire(
                kind,
                prefixes["server"],
                prefixes["generator"],
                f"af_xdp:{ends['server']}",
                f"af_xdp:{ends['generator']}",
                Path(folder),
            )


def _memif(folder: Path) -> Wire:
    core, other = two_cores()
    socket = folder / "memif"
    server, generator = (["taskset", "-c", str(number)] for number in (core, other))
    return Wire("memif", server, generator, f"memif:{socket}", f"memif:{socket},role=client", folder)


def _namespace(side: str) -> str:
    return f"mpbench{os.getpid()}-{side}"


@contextlib.contextmanager
def _veth(kernel_address: bool) -> Iterator[tuple[str, str]]:
    """The names of the two ends, each in a namespace of its own; one queue each, as each side has one core."""
    ends = {side: f"mpb{side[0]}{os.getpid()}" for side in ("server", "generator")}
    queues = ["numrxqueues", "1", "numtxqueues", "1"]
    made: list[str] = []
    try:
        for side in ends:
            _ip("netns", "add", _namespace(side))
            made.append(_namespace(side))
            _ip("-n", _namespace(side), "link", "set", "lo", "up")
        (server, generator), (here, there) = ends.values(), map(_namespace, ends)
        # fmt: off
        _ip("link", "add", server, "netns", here, *queues, "type", "veth", "peer", "name", generator, "netns", there, *queues)
        # fmt: on
        if kernel_address:
            _ip("-n", here, "address", "add", f"{SERVER_ADDRESS}/{PREFIX_LENGTH}", "dev", server)
        _ip("-n", here, "link", "set", server, "up")
        _ip("-n", there, "link", "set", generator, "up")
        yield server, generator
    finally:
        for namespace in made:
            subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SetupError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
