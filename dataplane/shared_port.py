"""A port that several workers share: opened by a process of its own, which moves no frame, and to which workers attach.

    with open_shared_port(spec, queues=2, file_prefix="web") as shared:   # loads no DPDK here
        ...                                     # each worker: open_device(spec, queue=i, queues=2, file_prefix="web")
        shared.renew(1)                         # worker 1 has died, and before its successor attaches

The process is `python -m mpserve.dataplane.shared_port CONTROL-FD`. Lines of JSON both ways, as workers have:
stdin    {"event": "open", "device", "queues", "file_prefix", "block_bytes"}, then {"event": "renew", "queue": ...}
control  {"event": "ready", "device", "mac"}, {"event": "renewed", "queue": ...}, {"event": "refused", "message": ...}
It ends when stdin does, so with whoever started it, once no worker is attached any more, and removes DPDK's files. If it
is killed, or does not answer, whoever started it has PortLost: nobody can take its place while workers are attached.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from mpserve.dataplane import device_arguments, device_checks
from mpserve.dataplane.device import DeviceSpec, parse_device
from mpserve.dataplane.errors import DeviceError
from mpserve.dataplane.port_keeper import LOOK_SECONDS, WORKERS_END_SECONDS, PortKeeper

OPEN_SECONDS = 120.0  # the kernel clears every hugepage
ANSWER_SECONDS = 5.0  # to anything else: it takes milliseconds
AGAIN = "start the server again"


class PortLost(DeviceError):
    """The process that holds a shared port has died, or does not answer."""


class SharedPort:
    """The process that holds the port, for the one who started it."""

    def __init__(self, process: subprocess.Popen[str], control: int, spec: DeviceSpec) -> None:
        self.process, self.spec = process, spec
        self._control, self._heard = control, b""

    def fileno(self) -> int:
        """Readable when it has something to say: a refusal, or its end."""
        return self._control

    def hear(self, seconds: float | None = None) -> dict[str, Any]:
        """What it says next. Raises DeviceError with its refusal, PortLost if it has died or is silent for so long (by default
        ANSWER_SECONDS): then it is killed."""
        seconds = ANSWER_SECONDS if seconds is None else seconds
        deadline = time.monotonic() + seconds
        while b"\n" not in self._heard:
            if not _is_readable(self._control, deadline - time.monotonic()):
                self.process.kill()
                self.process.wait()
                raise PortLost(f"--device {self.spec}: the process that holds it is silent for {seconds:g} s: {AGAIN}")
            data = os.read(self._control, 1 << 16)
            if not data:
                raise PortLost(f"--device {self.spec}: the process that holds it died ({self._how_it_died()}): {AGAIN}")
            self._heard += data
        line, _, self._heard = self._heard.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        if message["event"] == "refused":
            raise DeviceError(message["message"])
        return message

    def attend(self) -> None:
        """Hear what it says unasked. To be called when `fileno` is readable; raises as `hear` does."""
        self.hear()

    def _how_it_died(self) -> str:
        code = self.process.wait()
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"

    def say(self, event: str, **fields: Any) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps({"event": event, **fields}), file=self.process.stdin, flush=True)

    def renew(self, queue: int) -> None:
        """Make the queue and the pool of a worker that has died as good as new. It must be dead. Raises as `hear` does: what
        the dead one had locked in DPDK's memory keeps the process waiting for ever."""
        self.say("renew", queue=queue)
        while self.hear()["event"] != "renewed":
            pass

    def close(self) -> None:
        """End it; the workers must have ended. Twice is once."""
        if self._control < 0:
            return
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(WORKERS_END_SECONDS + 5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self._control)
        self._control = -1
        if self.process.returncode < 0:
            device_arguments.remove_dead_socket(self.spec)

    def __enter__(self) -> SharedPort:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_readable(descriptor: int, seconds: float) -> bool:
    looking = select.poll()
    looking.register(descriptor, select.POLLIN)
    return bool(looking.poll(max(0, int(seconds * 1000))))


def open_shared_port(spec: DeviceSpec, queues: int, *, file_prefix: str, block_bytes: int = 0) -> SharedPort:
    """Open `spec` for `queues` workers in a process of its own. Raises DeviceError with one line that says what to type."""
    check(spec, queues, block_bytes)
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "mpserve.dataplane.shared_port", str(write)],
        stdin=subprocess.PIPE,
        pass_fds=(write,),
        process_group=0,
        text=True,
    )
    os.close(write)
    shared = SharedPort(process, read, spec)
    try:
        shared.say("open", device=str(spec), queues=queues, file_prefix=file_prefix, block_bytes=block_bytes)
        shared.hear(OPEN_SECONDS)
    except BaseException:
        shared.close()
        raise
    return shared


def check(spec: DeviceSpec, queues: int, block_bytes: int = 0) -> None:
    """What can be refused before a process is started. Raises DeviceError."""
    device_checks.check_queues(spec, queues)
    device_checks.check_installed(spec)
    device_checks.check_shared_hugepages(spec, device_arguments.memory_mb(spec, block_bytes, queues))


# ---------------------------------------------------------------- the process


def _lines(keeper: PortKeeper) -> Iterator[str]:
    """The lines of stdin; between them the peer is looked at."""
    watched = keeper.spec.kind == "memif"
    rest = b""
    while True:
        if watched:
            keeper.look()
        if not select.select([0], [], [], LOOK_SECONDS if watched else None)[0]:
            continue
        data = os.read(0, 1 << 16)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        yield from (line.decode() for line in lines)


def _keep(keeper: PortKeeper, say: Any) -> int:
    """Open the port and hold it until stdin ends; the exit status. A refusal is said at once: the workers have to end first."""
    try:
        keeper.open()
    except DeviceError as error:
        say("refused", message=str(error))
        return 2
    try:
        say("ready", device=str(keeper.spec), mac=device_arguments.own_mac(keeper.spec, keeper.port.mac).hex(":"))
        for line in _lines(keeper):
            queue = json.loads(line)["queue"]
            keeper.renew(queue)
            say("renewed", queue=queue)
        return 0
    except DeviceError as error:
        say("refused", message=str(error))
        return 2
    finally:
        keeper.close()


def main(arguments: list[str]) -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # workers need it until they have drained
        signal.signal(number, signal.SIG_IGN)  # the end of stdin tells
    os.set_inheritable(int(arguments[0]), False)
    with os.fdopen(int(arguments[0]), "w") as control:

        def say(event: str, **fields: Any) -> None:
            with contextlib.suppress(BrokenPipeError):
                print(json.dumps({"event": event, **fields}), file=control, flush=True)

        order = json.loads(_first_line() or "{}")
        if not order:
            return 0
        names = ("queues", "file_prefix", "block_bytes")
        return _keep(PortKeeper(parse_device(order["device"]), *(order[name] for name in names)), say)


def _first_line() -> str:
    """Read byte by byte: what follows is read from the descriptor."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    return line.decode()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
