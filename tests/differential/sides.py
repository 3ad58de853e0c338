"""The two tested sides, each in a network namespace of its own: the kernel's TCP and ours, with their applications.

What both have a setting for is set to the same.
"""

import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import stack_app
from namespaces import new_namespace
from server import serving
from wire import TESTED_IP, Wire, packet_socket, tap

HERE = Path(__file__).parent
PORT = 7
TAP = "mptdiff"
LIMITS = ("msl_seconds=30", "congestion=newreno", "rcvbuf_bytes=65536")  # TIME_WAIT of Linux lasts a minute
DELAYED_ACK_US = 400_000  # Linux has 40 ms; far from "at once" also where a process has to wait for a core
START_SECONDS, ANSWER_SECONDS = 20.0, 30.0
SYSCTLS = {  # of the namespaces; a kernel that has one of them not yet does as it says
    "ipv6/conf/all/disable_ipv6": "1",
    "ipv4/tcp_congestion_control": "reno",
    "ipv4/tcp_no_metrics_save": "1",
    "ipv4/tcp_invalid_ratelimit": "0",
    "ipv4/tcp_comp_sack_nr": "0",
    "ipv4/tcp_autocorking": "0",
    "ipv4/tcp_min_snd_mss": "64",
    "ipv4/tcp_syn_linear_timeouts": "0",
    "ipv4/tcp_rmem": "4096 131072 6291456",
    "ipv4/tcp_wmem": "4096 1048576 4194304",
    "ipv4/icmp_ratelimit": "0",
}


class Application:
    """The program behind a tested side: orders by number, answers as they come."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._numbers = connection, itertools.count()
        self._answers: dict[int, Future[dict[str, Any]]] = {}
        self._writing = threading.Lock()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            for line in self._connection.makefile():
                answer = json.loads(line)
                self._answers.pop(answer.pop("id")).set_result(answer)

    def ask(self, op: str, flow: str, **arguments: Any) -> dict[str, Any]:
        """Have it done; what it says of it."""
        answer: Future[dict[str, Any]] = Future()
        with self._writing:
            number = next(self._numbers)
            self._answers[number] = answer
            order = {"id": number, "op": op, "flow": flow, **arguments}
            self._connection.sendall(json.dumps(order).encode() + b"\n")
        return answer.result(ANSWER_SECONDS)


@dataclass
class Side:
    """A tested side: its wire, its application, and the seconds within which an answer was given at once.

    Linux answers before the frame that asks has left the hands of who sent it, on the kernel's clock; ours when its process
    gets a core.
    """

    name: str
    wire: Wire
    application: Application
    at_once: float


@contextlib.contextmanager
def control(folder: Path) -> Iterator[tuple[socket.socket, str]]:
    """A Unix socket for a program to connect to, and its path."""
    path = str(folder / "control")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.settimeout(START_SECONDS)
        yield listener, path


def _ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True)


def _settle_namespace() -> None:
    _ip("link set lo up")
    for name, value in SYSCTLS.items():
        path = Path("/proc/sys/net", name)
        if path.exists():
            path.write_text(value)


@contextlib.contextmanager
def linux(folder: Path) -> Iterator[Side]:
    """The kernel's TCP: this process holds the tap, the kernel has the address."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(new_namespace())
        _settle_namespace()
        descriptor = stack.enter_context(tap(TAP))
        _ip(f"address add {TESTED_IP}/16 dev {TAP}")
        _ip(f"link set {TAP} gso_max_segs 1 up")  # each segment on its own
        wire = Wire(TAP, lambda frame: os.write(descriptor, frame), leaving=True, discard=descriptor)
        stack.callback(wire.close)
        listener, path = stack.enter_context(control(folder))
        program = subprocess.Popen([sys.executable, str(HERE / "kernel_app.py"), path, TESTED_IP, str(PORT)])
        stack.callback(program.wait)
        stack.callback(program.kill)
        connection = stack.enter_context(listener.accept()[0])
        wire.find_tested()
        yield Side("Linux", wire, Application(connection), at_once=0.02)


@contextlib.contextmanager
def mpserve(folder: Path) -> Iterator[Side]:
    """Ours: a server holds the tap, and this process speaks on the kernel's end of it."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(new_namespace())
        _settle_namespace()
        listener, path = stack.enter_context(control(folder))
        server = stack.enter_context(serving("run", f"{stack_app.__file__}:Controlled", *_settings(path)))
        connection = stack.enter_context(listener.accept()[0])
        sender = stack.enter_context(packet_socket(TAP))
        wire = Wire(TAP, sender.send, leaving=False)
        stack.callback(wire.close)
        wire.find_tested()
        yield Side("mpserve", wire, Application(connection), at_once=0.35)
        assert "ERROR" not in server.log, server.log


def _settings(path: str) -> list[str]:
    words = ["--device", f"tap:{TAP}", "--ip", f"{TESTED_IP}/16", "--listen", f":{PORT}"]
    words += ["--set", f"control={path}", "--set", f"delayed_ack_us={DELAYED_ACK_US}"]
    return words + [word for limit in LIMITS for word in ("--limit", limit)]
