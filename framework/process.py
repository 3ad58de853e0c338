"""The worker process: `python -m mpserve.framework.process CONTROL-FD PARENT-PID ROLE`, started by the supervisor only.

It imports everything first and then waits, so that one can be kept in reserve. Lines of JSON both ways:
stdin    {"event": "prepare"}                 load the compiled units (compiled before); ROLE spare needs no telling
         {"event": "start", "target": ...}    open the device and serve
control  {"event": "imported", "missing": []} waiting; these units have to be compiled first
         {"event": "prepared"}                units are loaded
         {"event": "progress", ...}           ROLE compile: name, done, total
         {"event": "ready", "device": ...}    serving
         {"event": "refused", "message": ...} a SetupError
ROLE is worker, spare or compile; kernel and kernel-spare serve over kernel sockets, without loading the stack.
Its logging goes to stderr, which the supervisor passes on. It ends with its supervisor, draining.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

from mpserve.dataplane.device_checks import has_capability

if TYPE_CHECKING:
    from mpserve.dataplane.device import Device
    from mpserve.dataplane.limits import Limits
    from mpserve.dataplane.switchboard import Seat
    from mpserve.framework.config import Config
    from mpserve.framework.handler import Handler
    from mpserve.framework.kernel_machine import KernelSockets
    from mpserve.framework.peers import Peers

PR_SET_PDEATHSIG = 1
CAP_SYS_NICE = 23
SPARE_WAITS_SECONDS = 1.0  # a spare leaves the cores to the worker that has just begun, unless it is needed at once


def die_with(parent: int) -> None:
    """Have the kernel send SIGTERM, which drains, when the supervisor is gone; leave at once if it is already.

    Only Linux does that; elsewhere the end of stdin tells (`_stop_without_supervisor`).
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)


class Control:
    """The way up to the supervisor."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._file: TextIO = os.fdopen(descriptor, "w")

    def say(self, event: str, **fields: Any) -> None:
        self._file.write(json.dumps({"event": event, **fields}) + "\n")
        self._file.flush()


def import_everything() -> list[str]:
    """Load what serving needs, but nothing of the user's; the names of the units that aren't compiled yet."""
    import mpserve.dataplane.device_port
    import mpserve.framework.worker  # noqa: F401
    from mpserve.dataplane import jit
    from mpserve.dataplane.errors import SetupError

    try:
        import pydpdk  # noqa: F401
    except ImportError as error:
        raise SetupError(f"serving needs DPDK: {error}") from None

    return [unit.name for unit in jit.units() if not unit.is_cached()]


def import_for(role: str) -> list[str]:
    """What serving needs in this role; the names of the units that aren't compiled yet."""
    if role in ("worker", "spare"):
        return import_everything()
    import mpserve.framework.kernel_machine
    import mpserve.framework.worker  # noqa: F401

    return []


def load_units() -> None:
    from mpserve.dataplane import jit

    for unit in jit.units():
        unit.address  # noqa: B018  # loaded by asking


def compile_units(control: Control) -> None:
    from mpserve.dataplane import jit

    jit.warm(lambda name, done, total: control.say("progress", name=name, done=done, total=total))


def serve(control: Control, order: dict[str, Any]) -> None:
    """Open the device, make the handler, run the worker until SIGTERM."""
    from mpserve.framework import log
    from mpserve.framework.config import Config
    from mpserve.framework.load import find_handler
    from mpserve.framework.options import parse_options
    from mpserve.framework.peers import invited

    config = Config(**order["config"])
    log.set_up(config.verbose)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {order["core"]})
    peers = invited(order["group"], order["index"], over_kernel=config.over_kernel)
    handler_class = find_handler(order["target"])
    handler = handler_class(**parse_options(handler_class, order["options"]))
    device = _open(order, config)
    try:
        _run(control, order, config, handler, device, peers)
    finally:
        device.close()


def _open(order: dict[str, Any], config: Config) -> Device | KernelSockets:
    if config.over_kernel:
        from mpserve.framework.kernel_machine import KernelSockets

        return KernelSockets(frozenset(config.limits), share_ports=len(order["cores"]) > 1)
    from mpserve.dataplane.device import open_device, parse_device
    from mpserve.dataplane.layout import BLOCK_BYTES

    return open_device(
        parse_device(order["device"]),
        queue=order["index"],
        queues=len(order["cores"]),
        file_prefix=order["file_prefix"],
        hugepages=config.hugepages,
        block_bytes=config.make_limits().blocks * BLOCK_BYTES,
    )


def _run(
    control: Control,
    order: dict[str, Any],
    config: Config,
    handler: Handler,
    device: Device | KernelSockets,
    peers: Peers,
) -> None:
    from mpserve.framework import log
    from mpserve.framework.aio.streams import make_worker

    limits = config.make_limits()
    worker = make_worker(
        handler,
        device,
        ip=config.address,
        prefix_length=config.prefix_length,
        listen=config.listeners_on(order["core"], order["cores"]),
        gateway=config.gateway,
        routes=config.static_routes,
        core=order["core"],
        busy_poll=config.busy_poll,
        idle_spin_us=config.idle_spin_us,
        limits=limits,
        log=log.logger(f"mpserve.worker{order['core']}"),
        record=_own_file(config.record, order),
        counters=order["counters"],
        peers=peers,
        seat=None if config.over_kernel else _take_seat(peers, limits, device),
        rebalance=config.rebalance,
        impairment=config.impairment,
        slow_callback=config.slow_callback,
        on_ready=lambda: control.say("ready", **_described(device)),
    )
    _stop_on_sigterm(worker, config.grace_seconds)
    if sys.platform != "linux":
        worker.add_reader(sys.stdin, _stop_without_supervisor, worker)
    try:
        worker.run()
    finally:
        worker.close()


def _own_file(path: str | None, order: dict[str, Any]) -> str | None:
    """Of several workers each has a file of its own: frames.pcap becomes frames.core3.pcap."""
    if path is None or len(order["cores"]) == 1:
        return path
    stem, extension = os.path.splitext(path)
    return f"{stem}.core{order['core']}{extension}"


def _take_seat(peers: Peers, limits: Limits, device: Any) -> Seat | None:
    from mpserve.framework.seat import take_seat

    return take_seat(peers.group, limits, device)


def _described(device: Device | KernelSockets) -> dict[str, Any]:
    """What the start line tells of it; kernel sockets have neither MAC nor MTU of their own."""
    from mpserve.framework.kernel_machine import KernelSockets

    found = {"device": device.description}
    return found if isinstance(device, KernelSockets) else found | {"mac": device.mac.hex(":"), "mtu": device.mtu}


def _stop_without_supervisor(worker: Any) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        worker.remove_reader(sys.stdin)
        worker.stop()


def _stop_on_sigterm(worker: Any, grace_seconds: float) -> None:
    """Stop on SIGTERM; when stopping takes too long and no supervisor is left to kill us, the alarm does."""

    def stop(*_: object) -> None:
        signal.alarm(int(grace_seconds) + 2)
        worker.stop()

    signal.signal(signal.SIGTERM, stop)


@contextlib.contextmanager
def in_the_background() -> Iterator[None]:
    """Run only when nobody else wants the core: a worker that polls on the same one would lose a time slice (4 ms) again
    and again. Without CAP_SYS_NICE there is no way back, so then as before."""
    may_come_back = sys.platform == "linux" and has_capability(CAP_SYS_NICE)
    if may_come_back:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    try:
        yield
    finally:
        if may_come_back:
            with contextlib.suppress(PermissionError):  # a capability of a user namespace gives no way back
                os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def prepare(control: Control, role: str) -> None:
    """Get ready to be told what to serve. Without units that load, the supervisor decides about compiling."""
    if role in ("worker", "kernel"):
        control.say("imported", missing=import_for(role))
        return
    needed, _, _ = select.select([sys.stdin], [], [], SPARE_WAITS_SECONDS)
    with contextlib.nullcontext() if needed else in_the_background():
        missing = import_for(role)
        control.say("imported", missing=missing)
        if not missing and role == "spare":
            load_units()


def obey(control: Control, role: str) -> None:
    """Do what the lines on stdin say; without a line, nobody needs this process any more."""
    for line in sys.stdin:
        order = json.loads(line)
        if order["event"] == "start":
            serve(control, order)
            return
        if role in ("worker", "spare"):
            load_units()
        control.say("prepared")


def main(arguments: list[str]) -> int:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with(int(arguments[1]))
    control = Control(int(arguments[0]))
    from mpserve.dataplane.errors import SetupError

    try:
        if arguments[2] == "compile":
            compile_units(control)
        else:
            prepare(control, arguments[2])
            obey(control, arguments[2])
    except SetupError as error:
        control.say("refused", message=str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
