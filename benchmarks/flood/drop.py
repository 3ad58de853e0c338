"""A device around another that drops the frames of the flood as soon as they are received: what the stack is compared with."""

from typing import Any

import numpy as np

from benchmarks.flood.syns import is_of_flood
from mpserve.dataplane.core import Core
from mpserve.dataplane.jit import compiled, unit
from mpserve.dataplane.mbuf import data_address
from mpserve.dataplane.memory import call0, call2, call4, native64, record_at, register, set_native64
from mpserve.dataplane.turn import MOST_BURSTS

DROP = np.dtype([(n, "i8") for n in "dropping dropped cycles rx tx free read_tsc port".split()])
drop_at = record_at(DROP)


@unit("drop_rx")
def drop_rx(port, queue, pkts, count):
    """As rte_eth_rx_burst, without the flood's frames while `dropping` is set; 0 if the device is dry or brings nothing else."""
    drop = drop_at(port)
    if drop.dropping == 0:
        return call4(drop.rx, drop.port, queue, pkts, count)
    started = _cycle(drop)
    kept, received, bursts = 0, 1, 0
    while kept == 0 and received > 0 and bursts < MOST_BURSTS:
        received = call4(drop.rx, drop.port, queue, pkts, count)
        kept = _sort_out(drop, pkts, received)
        bursts += 1
    if bursts > 1 or received > kept:
        drop.cycles += _cycle(drop) - started
    return kept


@unit("drop_tx")
def drop_tx(port, queue, pkts, count):
    """As rte_eth_tx_burst: everything passes."""
    drop = drop_at(port)
    return call4(drop.tx, drop.port, queue, pkts, count)


@compiled
def _cycle(drop):
    """By the core's clock; 0 in virtual time."""
    return call0(drop.read_tsc) if drop.read_tsc != 0 else 0


@compiled
def _sort_out(drop, pkts, count):
    """Give the flood's mbufs back; how many others there are, now at the front of `pkts`."""
    kept = 0
    for i in range(count):
        mbuf = native64(pkts + 8 * i)
        if not is_of_flood(data_address(mbuf)):
            set_native64(pkts + 8 * i, native64(pkts + 8 * kept))
            set_native64(pkts + 8 * kept, mbuf)
            kept += 1
    if kept < count:
        call2(drop.free, pkts + 8 * kept, count - kept)
        drop.dropped += count - kept
    return kept


def put_between(core: Core, memory: np.ndarray) -> None:
    """Have a core receive through `drop_rx`, whose DROP record is `memory`: whoever shares that may set `dropping`."""
    address = register(memory)
    drop: Any = memory[0]
    for name in ("rx", "tx", "free", "read_tsc", "port"):
        drop[name] = core.record[name]
    core.record.rx, core.record.tx, core.record.port = drop_rx.address, drop_tx.address, address
