"""The generator of the flood benchmark, a process of its own: honest clients and SYNs, one offer after the other.

Each offer is measured twice, back to back: with the flood before the stack, and with the server dropping it at the door.
It prints a line of JSON for each.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.flood.drop import DROP
from benchmarks.flood.loop import FLOOD, ONE, generate_flood
from benchmarks.flood.offer import Offer
from benchmarks.flood.pace import NEVER, PACE
from benchmarks.flood.syns import Syns
from mpserve.apps.load.small.clients import BURST, RESTING, WAITING
from mpserve.apps.load.small.generator import SERVER, Generator
from mpserve.dataplane import tsc
from mpserve.dataplane.device import Device, open_device, parse_device
from mpserve.dataplane.errors import SetupError
from mpserve.dataplane.layout import COUNTERS
from mpserve.dataplane.memory import allocate

FLOOD_COUNTS = "syns_due syns_lost syns_left_out honest_due honest_lost".split()
DRAIN_SECONDS = 10.0  # to wait for the last answers, at most
LONGEST_SECONDS = 60.0  # to wait for the least that is wanted


class FloodGenerator(Generator):
    """`clients` keep-alive connections, `openers` that open one connection after the other, and the flood."""

    def __init__(
        self, device: Device, server_mac: bytes, *, clients: int, openers: int, least: int = 0, **more: Any
    ) -> None:
        """`least`: how many requests a measurement has, and at least one new connection for each opener, however long it takes."""
        self._least, self._openers = least, openers
        super().__init__(device, server_mac, most=clients + openers, one_shots=openers, **more)
        self._syns = Syns(device.mac, server_mac, SERVER, seed=os.getpid())
        self._rings = [allocate(np.int64, 2 * (clients + openers)) for _ in range(2)]
        self._paces = allocate(PACE, 2)
        for pace, ring in zip(self._paces, self._rings, strict=True):
            pace.ring, pace.rows = ring.ctypes.data, len(ring)
        self._out = allocate(np.int64, BURST)
        self._flood = allocate(FLOOD, 1)
        self.flood: Any = self._flood[0]
        self.flood.syns, self.flood.out = self._syns.address, self._out.ctypes.data
        self.flood.requests_pace = self._paces.ctypes.data
        self.flood.opens_pace = self._paces.ctypes.data + PACE.itemsize
        self.record.paced = 1
        self.record.client_count = clients + openers

    def _run(self, seconds: float) -> None:
        generate_flood.call(self._generator.ctypes.data, self._flood.ctypes.data, tsc.read() + int(seconds * self.hz))

    def _is_starting(self) -> bool:
        return bool(not np.isin(self._clients.state, (WAITING, RESTING)).all())

    @property
    def _clients(self) -> Any:
        return self._arrays["clients"]

    def open_all(self) -> None:
        """SetupError if not every client gets a reply within 10 s."""
        self._start(time.monotonic() + 10)

    def _set_offer(self, offer: Offer) -> None:
        """From here on."""
        flood = self.flood
        flood.ratio, flood.owed, flood.following = offer.ratio, 0, 0
        flood.owed_a_frame = 0 if offer.requests else offer.ratio * ONE
        flood.owed_a_cycle = int(offer.syns_a_second * ONE / self.hz)
        requests, opens = self._paces
        requests.interval = int(self.hz / offer.requests) if offer.requests else 0
        opens.interval = int(self.hz / offer.opens) if offer.opens else 0
        requests.next_at, opens.next_at = 0, 0 if offer.opens else NEVER

    def _drain(self) -> None:
        """No more SYNs, requests and connections, until every client rests."""
        self.flood.owed = self.flood.owed_a_frame = self.flood.owed_a_cycle = 0
        self._paces.next_at = NEVER
        until = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < until and (self._clients.state != RESTING).any():
            self._run(0.005)

    def try_offer(self, offer: Offer, seconds: float, warm_up: float, counters: np.ndarray) -> dict[str, Any]:
        """What came of an offer; `unanswered` are the clients that still wait when there was time for all to be answered."""
        self._set_offer(offer)
        self._run(warm_up)
        result = self._measured(seconds, counters)
        self._drain()
        return result | {"offer": str(offer), "unanswered": int((self._clients.state != RESTING).sum())}

    def _work(self, seconds: float) -> None:
        super()._work(seconds)
        until = time.monotonic() + LONGEST_SECONDS
        while self._least and time.monotonic() < until:
            if self.record.requests >= self._least and self.record.opened >= self._openers:
                break
            super()._work(seconds)

    def _clear(self) -> None:
        super()._clear()
        for name in FLOOD_COUNTS:
            self.flood[name] = 0

    def _result(self) -> dict[str, Any]:
        return super()._result() | {name: int(self.flood[name]) for name in FLOOD_COUNTS}


def _measurements(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from pydpdk import symbols

    generate_flood.address  # noqa: B018  compiled before the link is up
    counters = np.memmap(options.counters, COUNTERS, "r", shape=(1,))
    drop = np.memmap(options.drop, DROP, "r+", shape=(1,))
    device = open_device(parse_device(f"memif:{options.socket},role=client"), file_prefix=f"flood{os.getpid()}")
    try:
        if options.cpu is not None:
            os.sched_setaffinity(0, {options.cpu})  # this thread; DPDK's own go elsewhere
        mac = bytes.fromhex(options.server_mac.replace(":", ""))
        generator = FloodGenerator(
            device,
            mac,
            clients=options.clients,
            openers=options.openers,
            least=options.least,
            verify=options.verify,
            read_tsc=symbols.address("pydpdk_rdtsc"),
        )
        generator.open_all()
        for text in options.offers.split(","):
            for dropping in (0, 1):
                drop["dropping"], drop["dropped"], drop["cycles"] = dropping, 0, 0
                result = generator.try_offer(Offer.parse(text), options.seconds, options.warm_up, counters)
                dropped = {name: int(drop[name][0]) for name in ("dropping", "dropped", "cycles")}
                yield result | {"drop": dropped}
        if options.hold:
            sys.stdin.read()
    finally:
        device.close()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("socket", type=Path, help="memif socket of the server")
    parser.add_argument("counters", type=Path, help="file of the server's counters")
    parser.add_argument("drop", type=Path, help="file of the server's DROP record")
    parser.add_argument("--server-mac", required=True)
    parser.add_argument("--offers", required=True, help="RATIO:REQUESTS:OPENS,...")
    parser.add_argument("--clients", type=int, default=256, help="keep-alive connections")
    parser.add_argument("--openers", type=int, default=64, help="clients that open connection after connection")
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--warm-up", type=float, default=0.2)
    parser.add_argument("--least", type=int, default=0, help="requests in a measurement, however long it takes")
    parser.add_argument("--verify", action="store_true", help="check checksums and content of replies and of SYN-ACKs")
    parser.add_argument(
        "--hold", action="store_true", help="keep the link until stdin ends: see `memif_pair.hold_link`"
    )
    parser.add_argument("--cpu", type=int, help="pin to this CPU")
    return parser.parse_args()


def main() -> int:
    options = _parse()
    try:
        for result in _measurements(options):
            print(json.dumps(result), flush=True)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
