"""The wire: `python -m benchmarks.bulk.bridge ONE OTHER FAULTS` joins two interfaces, and does to frames what FAULTS says.

It is the faulty wire of `mpserve run --impair`, between two packet sockets. Prints `ready`, and at SIGTERM what it did.
"""

import argparse
import os
import signal
import sys
import time
from typing import Any

import pydpdk
from mpserve.dataplane.core import Core, make_core
from mpserve.dataplane.faulty_wire import FaultyWire
from mpserve.dataplane.impair_grammar import Impairment, parse
from mpserve.dataplane.jit import compiled, unit
from mpserve.dataplane.layout import BURST, core_at
from mpserve.dataplane.limits import Limits
from mpserve.dataplane.memory import call4
from mpserve.dataplane.turn import read_clock
from pydpdk import Mempool, eal, ports

MBUFS = 65_535
SPIN_TURNS = 64
NAP_SECONDS = 20e-6
SMALL = Limits(max_connections=1, syn_backlog=1, time_wait=1, blocks=16)
UNIT_NAMES = {
    "rx": "pydpdk_rx_burst",
    "tx": "pydpdk_tx_burst",
    "alloc": "pydpdk_alloc_bulk",
    "free": "pydpdk_free_bulk",
}


@unit("bridge")
def bridge(one_address, other_address, idle_turns):
    """Carry frames both ways until nothing has come for so many turns; how many came."""
    one, other = core_at(one_address), core_at(other_address)
    idle, moved = 0, 0
    while idle < idle_turns:
        read_clock(one)
        other.now = one.now
        count = _carry(one, other) + _carry(other, one)
        moved += count
        idle = 0 if count > 0 else idle + 1
    return moved


@compiled
def _carry(source, target):
    count = call4(source.rx, source.port, source.queue, source.rx_pkts, BURST)
    call4(target.tx, target.port, target.queue, source.rx_pkts, count)
    return count


def _vdev(number: int, interface: str) -> str:
    return f"net_af_packet{number},iface={interface},framesz=2048,blocksz=65536,framecnt=4096,qdisc_bypass=1"


def _side(port: Any, pool: Mempool) -> Core:
    """A core that has nothing but a device and a clock."""
    port.configure()
    receive, transmit = port.adjust_descriptors(1024, 1024)
    port.setup_rx_queue(0, pool, receive)
    port.setup_tx_queue(0, transmit)
    port.start()
    core = make_core(SMALL, mac=bytes(6), ip="10.0.0.1")
    for name, function in UNIT_NAMES.items():
        core.record[name] = pydpdk.symbols.address(function)
    core.record.port, core.record.queue, core.record.pool = port.port_id, 0, pool.address
    core.record.read_tsc = pydpdk.symbols.address("pydpdk_rdtsc")
    core.record.tsc_scale = int(1e6 * 2**32 / pydpdk.tsc_hz())
    return core


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("one")
    parser.add_argument("other")
    parser.add_argument("faults")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    devices = [_vdev(number, name) for number, name in enumerate((chosen.one, chosen.other))]
    prefix = f"mpbridge-{os.getpid()}"
    eal.init(hugepages=False, in_memory=True, memory_mb=320, file_prefix=prefix, vdevs=devices)
    pool = Mempool.create("bridge", MBUFS, packed=True)
    cores = [_side(port, pool) for port in ports()]
    faults = parse(chosen.faults).tx
    wires = [FaultyWire(core, Impairment(tx=faults, seed=i), rows=16_384) for i, core in enumerate(cores)]
    bridge.address  # noqa: B018  compiled before anybody waits for a frame
    print("ready", flush=True)
    try:
        while True:
            bridge(cores[0].address, cores[1].address, SPIN_TURNS)
            time.sleep(NAP_SECONDS)
    finally:
        print("; ".join(map(str, wires)), flush=True)
        eal.cleanup()


if __name__ == "__main__":
    sys.exit(main())
