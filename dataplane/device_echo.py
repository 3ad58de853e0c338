"""`python -m mpserve.dataplane.device_echo DEVICE`: open a device and send every frame back to whom it came from.

Shows that a device moves frames, and that its descriptor wakes a sleeper, without a stack or compiled code. Prints
`ready INTERFACE MAC`, then on SIGTERM, Ctrl-C or after --frames N what it saw. With --send N it also sends N frames.

With --made the interface is there already (`links.make_link`), and several processes may open it: --queue I --queues N.
"""

from __future__ import annotations

import argparse
import contextlib
import select
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

from mpserve.dataplane.device import Device, open_device, parse_device
from mpserve.dataplane.errors import SetupError
from mpserve.dataplane.links import Link, make_link

BURST = 32
NAP_SECONDS = 0.001
ETHERTYPE = b"\x88\xb5"  # IEEE 802: for local experiments


class FrameEcho:
    """Counts what it echoes: `frames`, `largest` in bytes, and how often a descriptor ended a `sleep`."""

    def __init__(self, device: Device) -> None:
        from pydpdk.extension import ffi, lib

        self.device, self.ffi, self.lib = device, ffi, lib
        self.pkts = ffi.new("uintptr_t[]", BURST)
        self.address = int(ffi.cast("uintptr_t", self.pkts))
        self.poll = select.poll()
        for fd in device.wait_fds:
            self.poll.register(fd, select.POLLIN)
        self.frames = self.largest = self.woken = 0
        self.stopped = False

    def _data(self, mbuf: int, length: int) -> Any:
        return self.ffi.buffer(self.ffi.cast("char *", self.lib.pydpdk_mbuf_data(mbuf)), length)

    def turn(self) -> int:
        """Receive a burst and send it back; how many frames that were."""
        port, queue = self.device.port_id, self.device.queue
        count = self.lib.pydpdk_rx_burst(port, queue, self.address, BURST)
        kept = [mbuf for mbuf in list(self.pkts[0:count]) if self._turn_round(mbuf)]
        self._send(kept)
        self.frames += count
        return count

    def _turn_round(self, mbuf: int) -> bool:
        """Swap the addresses, of a UDP datagram also those inside. What is too large to send is freed."""
        length = self.lib.pydpdk_mbuf_pkt_len(mbuf)
        self.largest = max(self.largest, length)
        if length > self.device.mtu + 14:
            self.lib.pydpdk_free(mbuf)
            return False
        header = self._data(mbuf, 14)
        header[0:12] = header[6:12] + self.device.mac
        if length >= 42 and header[12:14] == b"\x08\x00":
            self._turn_datagram_round(mbuf)
        return True

    def _turn_datagram_round(self, mbuf: int) -> None:
        """A kernel's UDP socket gets its reply. Swapping leaves both checksums right."""
        frame = self._data(mbuf, 42)
        if frame[14:15] == b"\x45" and frame[23:24] == b"\x11":
            frame[26:38] = frame[30:34] + frame[26:30] + frame[36:38] + frame[34:36]

    def _send(self, mbufs: list[int]) -> None:
        for index, mbuf in enumerate(mbufs):
            self.pkts[index] = mbuf
        sent = self.lib.pydpdk_tx_burst(self.device.port_id, self.device.queue, self.address, len(mbufs))
        for mbuf in mbufs[sent:]:
            self.lib.pydpdk_free(mbuf)

    def originate(self, number: int) -> None:
        """Send one broadcast frame of 64 bytes with its number in it."""
        mbuf = self.lib.pydpdk_alloc(self.device.pool)
        self.lib.pydpdk_mbuf_set_len(mbuf, 64)
        frame = b"\xff" * 6 + self.device.mac + ETHERTYPE + number.to_bytes(4, "big")
        self._data(mbuf, 64)[0:64] = frame.ljust(64, b"\0")
        self._send([mbuf])

    def start(self, count: int) -> None:
        """Send `count` frames until something comes back: what goes out before a memif's link is up is lost."""
        while not self.stopped and not self.turn():
            for number in range(count):
                self.originate(number)
            time.sleep(0.05)

    def run(self, frames: int = 0) -> None:
        """Until stopped, or until `frames` were seen if that isn't 0."""
        while not self.stopped and not (frames and self.frames >= frames):
            if not self.turn():
                self.sleep()

    def sleep(self) -> None:
        """Until a frame arrives or a tenth of a second passed; a nap where the device has no descriptor."""
        self.device.look_after()
        if not self.device.wait_fds:
            time.sleep(NAP_SECONDS)
        elif self.poll.poll(100):
            self.woken += 1


def _echo(link: Link, device: Device, frames: int, send: int) -> None:
    echo = FrameEcho(device)

    def stop(*_: object) -> None:
        echo.stopped = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print(f"ready {link.interface or '-'} {device.mac.hex(':')}", flush=True)
    if send:
        echo.start(send)
    echo.run(frames)
    print(f"frames={echo.frames} largest={echo.largest} woken={echo.woken}", flush=True)


@contextlib.contextmanager
def _opened(chosen: argparse.Namespace) -> Iterator[tuple[Link, Device]]:
    ip, _, length = chosen.ip.partition("/")
    spec = parse_device(chosen.device)
    made = Link(spec) if chosen.made else None
    with made or make_link(spec, ip=ip, prefix_length=int(length), take_over=chosen.take_over) as link:
        device = open_device(link.spec, queue=chosen.queue, queues=chosen.queues, file_prefix=chosen.file_prefix)
        try:
            yield link, device
        finally:
            device.close()


def main() -> int:
    parser = argparse.ArgumentParser(description="Open a device and echo frames.")
    parser.add_argument("device")
    parser.add_argument("--ip", default="10.9.0.2/24")
    parser.add_argument("--frames", type=int, default=0, help="stop after so many")
    parser.add_argument("--send", type=int, default=0, help="send so many first")
    parser.add_argument("--take-over", action="store_true")
    parser.add_argument("--made", action="store_true", help="the interface is made, don't make or borrow it")
    parser.add_argument("--queue", type=int, default=0)
    parser.add_argument("--queues", type=int, default=1)
    parser.add_argument("--file-prefix", default="mpserve")
    chosen = parser.parse_args()
    try:
        with _opened(chosen) as (link, device):
            _echo(link, device, chosen.frames, chosen.send)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
