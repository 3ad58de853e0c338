"""Three network namespaces in a row, server - wire - client, and what runs in them. Nothing outside them is touched."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from mpserve.testing import streams

REPOSITORY = Path(__file__).parents[2]
SERVER, WIRE, CLIENT = "mpbulk-server", "mpbulk-wire", "mpbulk-client"
SERVER_IP, CLIENT_IP, PORT = "10.89.0.2", "10.89.0.1", 9000
SERVER_CORE, CLIENT_CORE = 0, 1
READY_SECONDS, LONGEST_SECONDS = 180, 3600
OFFLOADS = "tso gso gro tx rx".split()
STACKS = {"ours": "mpserve", "linux": "Linux"}


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def _inside(namespace: str, core: int, argv: list[str]) -> list[str]:
    return ["ip", "netns", "exec", namespace, "taskset", "-c", str(core), *argv]


def _link(near: str, near_namespace: str, far: str) -> None:
    """A veth pair with every offload off, so that each frame on it is one of the wire's."""
    pair = ("numrxqueues", "1", "numtxqueues", "1")
    _ip("link", "add", near, "netns", near_namespace, *pair, "type", "veth", "peer", "name", far, "netns", WIRE, *pair)
    for name, namespace in ((near, near_namespace), (far, WIRE)):
        off = [word for offload in OFFLOADS for word in (offload, "off")]
        subprocess.run(["ip", "netns", "exec", namespace, "ethtool", "-K", name, *off], check=True, capture_output=True)
        _ip("-n", namespace, "link", "set", name, "up")


def _delete_namespaces() -> None:
    for namespace in (SERVER, WIRE, CLIENT):
        subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)


@contextlib.contextmanager
def namespaces(kernel_server: bool) -> Iterator[None]:
    _delete_namespaces()
    try:
        for namespace in (SERVER, WIRE, CLIENT):
            _ip("netns", "add", namespace)
            _ip("-n", namespace, "link", "set", "lo", "up")
        _link("mpbulk0", SERVER, "mpbulk1")
        _link("mpbulk3", CLIENT, "mpbulk2")
        _ip("-n", CLIENT, "address", "add", f"{CLIENT_IP}/24", "dev", "mpbulk3")
        if kernel_server:
            _ip("-n", SERVER, "address", "add", f"{SERVER_IP}/24", "dev", "mpbulk0")
        yield
    finally:
        _delete_namespaces()


@contextlib.contextmanager
def _running(argv: list[str], first_word: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has said its first word; ended at the end, by force if it doesn't go."""
    process = subprocess.Popen(argv, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(first_word):
                break
        else:
            raise RuntimeError(f"it did not start: {' '.join(argv)}")
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def joined(faults: str) -> Iterator[None]:
    """The wire between the two sides does this to frames."""
    argv = [sys.executable, "-m", "benchmarks.bulk.bridge", "mpbulk1", "mpbulk2", faults]
    with _running(_inside(WIRE, CLIENT_CORE, argv), "ready") as bridge:
        yield
    if bridge.stdout is not None:
        print("  the wire:", bridge.stdout.read().strip(), file=sys.stderr)


@contextlib.contextmanager
def serving(stack: str, device: str) -> Iterator[None]:
    """A server of streams on one of the two stacks; `device` is the driver that ours uses."""
    if stack == "linux":
        argv = [sys.executable, "-m", "benchmarks.bulk.kernel_server", str(PORT)]
    else:
        argv = [str(Path(sys.executable).with_name("mpserve")), "run", f"{Path(streams.__file__)}:Bulk"]
        argv += [
            "--device",
            f"{device}:mpbulk0",
            "--ip",
            f"{SERVER_IP}/24",
            "--listen",
            f":{PORT}",
        ]
    with _running(_inside(SERVER, SERVER_CORE, argv), "serving"):
        yield


def move(way: str, length: int) -> float:
    """Move a stream to the client (`get`) or from it (`put`); seconds. RuntimeError if it does not arrive intact."""
    argv = _inside(CLIENT, CLIENT_CORE, [sys.executable, "-m", "benchmarks.bulk.client", SERVER_IP, str(PORT), way])
    done = subprocess.run([*argv, str(length)], cwd=REPOSITORY, capture_output=True, text=True, timeout=LONGEST_SECONDS)
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or "no output").splitlines()[-1])
    return float(done.stdout)


def check_machine() -> str | None:
    """What stands in the way of a run, in one line; None if nothing does."""
    if os.geteuid() != 0:
        return "making network namespaces needs root"
    if (os.cpu_count() or 1) < 2:
        return "the server and the client need a core each, and this machine has one"
    return None
