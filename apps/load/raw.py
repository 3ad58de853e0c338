"""Frames without TCP, sent back as they come: what a wire and its driver can carry at all. `mpserve bench raw` shows it.

`python -m mpserve.apps.load.raw DEVICE` is the end that sends back.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from typing import Any

from mpserve.dataplane import tsc
from mpserve.dataplane.core import make_core
from mpserve.dataplane.device import Device, open_device, parse_device
from mpserve.dataplane.errors import SetupError
from mpserve.dataplane.jit import compiled, unit
from mpserve.dataplane.layout import BURST, core_at
from mpserve.dataplane.limits import Limits
from mpserve.dataplane.mbuf import data_address, set_frame_length
from mpserve.dataplane.memory import call0, call2, call3, call4, native64
from mpserve.dataplane.wire import ethernet
from mpserve.framework.machine import attach

WINDOW = 256  # frames on their way
HEADERS = 54  # of a TCP segment: the frame of a message has as many bytes
TYPE_EXPERIMENT = 0x88B5  # IEEE 802: for local experiments
STEP_SECONDS = 0.05
LOST_SECONDS = 0.01  # without any frame: the window is sent anew


@compiled
def _send(core, count):
    """The first frames of the burst; what the device does not take is dropped. How many were taken."""
    sent = call4(core.tx, core.port, core.queue, core.rx_pkts, count)
    if sent < count:
        call2(core.free, core.rx_pkts + 8 * sent, count - sent)
    return sent


@unit("raw_echo")
def echo_frames(core_address, until):
    """Send every frame back to whom it came from, until the TSC reaches `until`; how many."""
    core = core_at(core_address)
    total = 0
    while call0(core.read_tsc) < until:
        count = call4(core.rx, core.port, core.queue, core.rx_pkts, BURST)
        for i in range(count):
            frame = data_address(native64(core.rx_pkts + 8 * i))
            ethernet.write(frame, ethernet.source(frame), core.mac, TYPE_EXPERIMENT)
        if count > 0:
            total += _send(core, count)
    return total


@unit("raw_bounce")
def bounce_frames(core_address, until):
    """The same for the end that keeps WINDOW frames on their way: how many came back."""
    core = core_at(core_address)
    total, heard = 0, call0(core.read_tsc)
    now = heard
    while now < until:
        count = call4(core.rx, core.port, core.queue, core.rx_pkts, BURST)
        for i in range(count):
            frame = data_address(native64(core.rx_pkts + 8 * i))
            ethernet.write(frame, ethernet.source(frame), core.mac, TYPE_EXPERIMENT)
        if count > 0:
            total += count
            heard = now
            _send(core, count)
        elif now - heard > core.idle_spin_us:  # here in cycles: see `RawGenerator`
            heard = now
            _fill(core)
        now = call0(core.read_tsc)
    return total


@compiled
def _fill(core):
    """A window of frames to everybody on the wire."""
    for _ in range(WINDOW // BURST):
        if call3(core.alloc, core.pool, core.rx_pkts, BURST) != 0:
            return
        for i in range(BURST):
            mbuf = native64(core.rx_pkts + 8 * i)
            ethernet.write(data_address(mbuf), (1 << 48) - 1, core.mac, TYPE_EXPERIMENT)
            set_frame_length(mbuf, core.mtu)
        _send(core, BURST)


class RawGenerator:
    """The end that begins. `message` bytes: frames are as long as a TCP segment with so many."""

    def __init__(self, device: Device, message: int) -> None:
        self.core = make_core(
            Limits(max_connections=1, blocks=16), mac=device.mac, ip="10.88.0.1", mtu=HEADERS + message
        )
        attach(self.core, device, None)
        self.hz = tsc.hz()
        self.core.record.idle_spin_us = int(LOST_SECONDS * self.hz)

    def _run(self, seconds: float) -> int:
        until, total = tsc.read() + int(seconds * self.hz), 0
        while (now := tsc.read()) < until:
            total += bounce_frames.call(self.core.address, min(until, now + int(STEP_SECONDS * self.hz)))
        return total

    def measure(self, seconds: float, warm_up: float) -> dict[str, Any]:
        """As `Generator.measure`; there are no latencies. SetupError if nothing comes back."""
        self._run(warm_up)
        started = time.monotonic()
        frames = self._run(seconds)
        if not frames:
            raise SetupError("no frame came back: does python -m mpserve.apps.load.raw run at the other end?")
        elapsed = time.monotonic() - started
        nothing: dict[str, Any] = dict.fromkeys(("failures", "refused", "opened", "retransmits", "unserved"), 0)
        nothing |= dict.fromkeys(("p50_us", "p90_us", "p99_us", "p99.9_us", "p99.99_us", "max_us"), float("nan"))
        rate = {"requests": frames, "seconds": elapsed, "rate": frames / elapsed, "generator_busy": 1.0}
        return nothing | rate | {"tsc_hz": self.hz}

    def close(self) -> None:
        self.core.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("device")
    options = parser.parse_args()
    echo_frames.address  # noqa: B018  # compiled before the link is up
    try:
        device = open_device(parse_device(options.device), file_prefix=f"mpserve-raw{os.getpid()}")
    except SetupError as error:
        print(f"mpserve: {error}", file=sys.stderr)
        return 2
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.append(1))
    try:
        generator = RawGenerator(device, 0)
        print("serving frames", flush=True)
        while not stopping:
            echo_frames.call(generator.core.address, tsc.read() + int(STEP_SECONDS * generator.hz))
        generator.close()
    finally:
        device.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
