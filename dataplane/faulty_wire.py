"""`FaultyWire`: puts the impairing device (`impair`) between a core and the device that the core is attached to."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from mpserve.dataplane.core import Core
from mpserve.dataplane.impair import impair_end, impair_rx, impair_tx
from mpserve.dataplane.impair_damage import IMPAIR
from mpserve.dataplane.impair_grammar import Faults, Impairment
from mpserve.dataplane.impair_lane import HELD, LANE, LANE_COUNTERS, LANE_ROWS
from mpserve.dataplane.layout import BURST, NEVER
from mpserve.dataplane.memory import allocate, unregister
from mpserve.dataplane.wire.ethernet import HEADER

AWAKE_US = 1000  # a sleeper's clock is no finer: before a release it stays awake for so long
_ANY_LENGTH = 1 << 32


class FaultyWire:
    """Impairs both directions of a core's device from here to `close`. The core is attached to the device already.

    `few_rx_mbufs`: received frames that are held are moved to mbufs of the core's own pool where they fit.
    `rows`: how many frames may be on their way in each direction, a power of two.
    """

    def __init__(
        self, core: Core, impairment: Impairment, *, few_rx_mbufs: bool = False, rows: int = LANE_ROWS
    ) -> None:
        self._core, self._rows = core, rows
        self._arrays: dict[str, np.ndarray] = {
            "impair": allocate(IMPAIR, 1),
            "burst": allocate(np.int64, BURST),
            "one": allocate(np.int64, 1),
        }
        self.rx = self._lane("rx", impairment.rx, impairment.seed)
        self.tx = self._lane("tx", impairment.tx, impairment.seed)
        self.rx.copies = int(few_rx_mbufs)
        self._wrap()

    def _lane(self, direction: str, faults: Faults, seed: int) -> Any:
        """The record of one direction."""
        lanes, held = allocate(LANE, 1), allocate(HELD, self._rows)
        self._arrays |= {f"{direction}_lane": lanes, f"{direction}_held": held}
        lane = lanes[0]
        lane.held, lane.rows = held.ctypes.data, self._rows
        lane.key = random.Random(f"{direction} {seed}").getrandbits(62) << 1 | 1
        _set_faults(lane, faults)
        return lane

    def _wrap(self) -> None:
        impair, record = self._arrays["impair"][0], self._core.record
        for name in ("rx", "tx", "alloc", "free", "port", "queue", "pool"):
            impair[name] = record[name]
        for name in ("rx_lane", "tx_lane", "burst", "one"):
            impair[name] = self._arrays[name].ctypes.data
        impair.core = self._core.address
        self._address = self._arrays["impair"].ctypes.data
        record.rx, record.tx, record.port = impair_rx.address, impair_tx.address, self._address

    @property
    def held(self) -> int:
        """Frames that are on their way."""
        return int(self.rx["count"] + self.tx["count"])

    @property
    def next_release_us(self) -> int:
        """When the next of them arrives; NEVER if there are none."""
        return min(self._first_release("rx"), self._first_release("tx"))

    def _first_release(self, direction: str) -> int:
        lane = self._arrays[f"{direction}_lane"][0]
        if not lane["count"]:
            return NEVER
        return -(-int(self._arrays[f"{direction}_held"][int(lane.head)]["release"]) // 1000)

    def wake_at(self, now: int) -> int:
        """Until when (us) an idle core may sleep: shortly before the next release, and a little if the device is full."""
        release = self.next_release_us
        return now + AWAKE_US if release <= now else max(release - AWAKE_US, now)

    @property
    def counters(self) -> dict[str, int]:
        """What was done to frames: `impair_rx_lost` and so on."""
        lanes = {"rx": self.rx, "tx": self.tx}
        return {f"impair_{way}_{name}": int(lane[name]) for way, lane in lanes.items() for name in LANE_COUNTERS}

    def __str__(self) -> str:
        """What it did, one direction behind the other, without the zeros."""
        done = [f"{name.removeprefix('impair_')} {count}" for name, count in self.counters.items() if count]
        return ", ".join(done) or "no frame has passed"

    def check(self) -> None:
        """Raise IndexError if compiled code built with bounds checks met an index outside a table."""
        if self.rx.fault or self.tx.fault:
            raise IndexError("the faulty wire went beyond the frames that it can hold")

    def close(self) -> None:
        """Give back the frames on their way, and have the core reach its device again."""
        impair_end(self._address)
        impair, record = self._arrays["impair"][0], self._core.record
        record.rx, record.tx, record.port = impair["rx"], impair["tx"], impair["port"]
        for array in self._arrays.values():
            unregister(array.ctypes.data)


def _set_faults(lane: Any, faults: Faults) -> None:
    recover = 1 / faults.mean_burst if faults.loss < 1 else 0.0
    lose = recover * faults.loss / (1 - faults.loss) if faults.loss < 1 else 1.0
    shares = {"lose": lose, "recover": recover}
    shares |= {name: getattr(faults, name) for name in ("corrupt", "duplicate", "reorder")}
    for name, share in shares.items():
        lane[name] = round(min(share, 1.0) * 2**32)
    lane.hold_ns, lane.delay_ns = 1000 * faults.hold_us, 1000 * faults.delay_us
    lane.jitter_us, lane.rate = faults.jitter_us, faults.rate
    lane.queue_ns = 1000 * faults.longest_wait_us
    lane.longest = faults.mtu + HEADER if faults.mtu else _ANY_LENGTH
