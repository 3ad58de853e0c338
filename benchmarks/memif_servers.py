"""The servers that `benchmarks.memif_echo` measures, each run in a process of its own: `python -m benchmarks.memif_servers`.

Raw frames sent back with their addresses swapped, which is the wire's limit; the compiled echo handler; Python handlers.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mpserve.apps.echo import Echo
from mpserve.apps.echo_compiled import CompiledEcho
from mpserve.apps.load.small.clients import PORT
from mpserve.apps.load.small.generator import SERVER
from mpserve.dataplane.commands import commands
from mpserve.dataplane.core import Core, make_core
from mpserve.dataplane.device import Device, open_device, parse_device
from mpserve.dataplane.egress import egress
from mpserve.dataplane.errors import SetupError
from mpserve.dataplane.ingress import ingress
from mpserve.dataplane.jit import Unit, unit
from mpserve.dataplane.layout import BURST, COUNTERS, core_at, counters_at
from mpserve.dataplane.mbuf import data_address
from mpserve.dataplane.memory import call2, call4, native32, native64, set_native32
from mpserve.dataplane.tcp.timers import timers
from mpserve.dataplane.turn import read_clock, turn
from mpserve.framework.handler import Handler
from mpserve.framework.lwsocket import LwSocket
from mpserve.framework.worker import Worker
from mpserve.testing.stack import connect_units, listen

KINDS = ("raw", "compiled", "on_data", "on_batch")
UNITS = (ingress, egress, commands, timers, turn, CompiledEcho.unit)
TURN_US = 50_000  # how often a compiled loop is left, to see signals


@unit("raw_echo")
def raw_echo(core_address, unused):
    """Send frames back with the first four bytes of their addresses swapped, until core.return_at."""
    core = core_at(core_address)
    counters = counters_at(core.counters)
    read_clock(core)
    while core.now < core.return_at:
        started = core.tsc
        count = call4(core.rx, core.port, core.queue, core.rx_pkts, BURST)
        for i in range(count):
            frame = data_address(native64(core.rx_pkts + 8 * i))
            to = native32(frame)
            set_native32(frame, native32(frame + 6))
            set_native32(frame + 6, to)
        sent = 0
        if count > 0:
            sent = call4(core.tx, core.port, core.queue, core.rx_pkts, count)
        if sent < count:
            call2(core.free, core.rx_pkts + 8 * sent, count - sent)
        read_clock(core)
        if count > 0:
            counters.rx_frames += count
            counters.tx_frames += sent
            counters.busy_turns += 1
            counters.busy_cycles += core.tsc - started
    return 0


def attach(core: Core, device: Device) -> None:
    """Make `device` the core's, and the TSC its clock."""
    from pydpdk import symbols, tsc_hz
    from pydpdk.extension import lib

    record = core.record
    record.rx, record.tx, record.alloc, record.free = device.rx, device.tx, device.alloc, device.free
    record.port, record.queue, record.pool = device.port_id, device.queue, device.pool
    record.read_tsc = symbols.address("pydpdk_rdtsc")
    record.tsc_scale = int((1 << 32) * 1e6 / tsc_hz())
    record.tsc_start = lib.pydpdk_rdtsc() - tsc_hz()


def run_compiled(loop: Unit, core: Core, running: Callable[[], bool]) -> None:
    """Enter the loop again and again, for TURN_US each time, while `running`."""
    record = core.record
    record.idle_spin_us = 1 << 40
    record.return_at = record.now
    while running():
        record.return_at = record.now + TURN_US
        loop.call(core.address, 0)


def serve_compiled(kind: str, device: Device, counters: Path | None) -> None:
    """The raw loop, or the stack with the compiled echo handler, until SIGTERM."""
    stopped: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    shared = np.memmap(counters, COUNTERS, "r+", shape=(1,)) if counters else None
    core = make_core(mac=device.mac, ip=SERVER, counters=shared)
    connect_units(core)
    attach(core, device)
    listen(core, PORT)
    CompiledEcho().install(core)
    say_ready(device)
    run_compiled(raw_echo if kind == "raw" else turn, core, lambda: not stopped)


class EchoBatch(Handler):
    """Echo, a batch at a time: the user's own loop."""

    def on_batch(self, items: list[tuple[LwSocket, bytes]]) -> None:
        for sock, data in items:
            sock.write(data)


def serve_python(handler: Handler, device: Device, counters: Path | None) -> None:
    """A worker of the framework, spinning, until SIGTERM."""
    worker = Worker(
        handler,
        device,
        ip=SERVER,
        listen=[("", PORT)],
        busy_poll=True,
        counters=str(counters) if counters else None,
        on_ready=lambda: say_ready(device),
    )
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    worker.run()


def say_ready(device: Device) -> None:
    print(f"ready {device.mac.hex(':')}", flush=True)


def serve(kind: str, socket: Path, counters: Path | None, cpu: int | None) -> None:
    """Until SIGTERM. Prints `ready MAC` when the device is open.

    Only this thread is pinned: memif unmaps its memory in a thread of its own when the peer leaves, and if that ran on
    the CPU of the poll loop it would do so in the middle of a burst.
    """
    for each in (*UNITS, raw_echo):
        each.address  # noqa: B018  compiled before the link is up
    device = open_device(parse_device(f"memif:{socket}"), file_prefix=f"echo{os.getpid()}")
    try:
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})
        if kind in ("raw", "compiled"):
            serve_compiled(kind, device, counters)
        else:
            serve_python(Echo() if kind == "on_data" else EchoBatch(), device, counters)
    finally:
        device.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("socket", type=Path)
    parser.add_argument("--counters", type=Path, help="file of COUNTERS' size to count in")
    parser.add_argument("--cpu", type=int, help="pin to this CPU")
    options = parser.parse_args()
    try:
        serve(options.kind, options.socket, options.counters, options.cpu)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
