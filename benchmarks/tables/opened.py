"""Opens connections in virtual time and says how much memory the process has grown by: `python -m benchmarks.tables.opened`.

`stack` is a core alone; `worker` has the framework's Worker and its sockets on it. One line of JSON.
"""

import argparse
import ctypes
import gc
import json
import mmap
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mpserve.dataplane import jit
from mpserve.dataplane.core import Core
from mpserve.dataplane.layout import NEVER
from mpserve.dataplane.limits import Limits
from mpserve.dataplane.tcp.state import State
from mpserve.framework.handler import Handler
from mpserve.framework.worker import Worker
from mpserve.testing.segment import Segment, parse_tcp
from mpserve.testing.stack import Stack
from mpserve.testing.wire import Wire

SERVER, PORT = "10.9.0.2", 7
CLIENT_MAC = b"\x02\x00\x00\x00\x00\x01"
FIRST_PORT, PORTS_A_HOST = 2048, 16_384
AT_ONCE = 256  # handshakes
MBUFS = 1024


def resident_bytes() -> int:
    """Of this process, by the page tables."""
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Rss:"))


def touched_bytes(array: np.ndarray) -> int:
    """How much of an array's memory there is: pages that were never written to don't exist (mincore(2))."""
    page = mmap.PAGESIZE
    start = array.ctypes.data // page * page
    pages = -(-(array.ctypes.data + array.nbytes - start) // page)
    there = (ctypes.c_ubyte * pages)()
    if ctypes.CDLL(None, use_errno=True).mincore(ctypes.c_void_p(start), ctypes.c_size_t(pages * page), there):
        raise OSError(ctypes.get_errno(), "mincore")
    return page * sum(byte & 1 for byte in bytes(there))


def _syns(first: int, count: int) -> Iterator[Segment]:
    for number in range(first, first + count):
        host, port = divmod(number, PORTS_A_HOST)
        # fmt: off
        yield Segment(FIRST_PORT + port, PORT, seq=number, flags="S", options=b"\x02\x04\x05\xb4",
                      source=f"10.9.0.{10 + host}", destination=SERVER)
        # fmt: on


def open_connections(wire: Wire, turn: Callable[[], object], count: int) -> None:
    """Handshakes of `count` peers with the stack on the wire; `turn` lets it do what there is to do."""
    for first in range(0, count, AT_ONCE):
        for syn in _syns(first, min(AT_ONCE, count - first)):
            wire.deliver(syn.frame(wire.mac, CLIENT_MAC))
        turn()
        for frame in wire.collect():
            answer = parse_tcp(frame)
            if answer is not None:
                ack = Segment(answer.dport, answer.sport, answer.ack, answer.seq + 1, "A")
                ack.source, ack.destination = answer.destination, answer.source
                wire.deliver(ack.frame(wire.mac, CLIENT_MAC))
        turn()


def _stack(connections: int) -> tuple[Wire, Core, Callable[[], object]]:
    stack = Stack(SERVER, PORT, mbufs=MBUFS, max_connections=connections)
    return stack.wire, stack.core, stack.settle


def _worker(connections: int) -> tuple[Wire, Core, Callable[[], object]]:
    wire = Wire(mbufs=MBUFS)
    limits = Limits(max_connections=connections)
    worker = Worker(Handler(), wire, ip=SERVER, listen=[("", PORT)], limits=limits, idle_spin_us=0)
    worker.memory.record.return_at = NEVER

    def turn() -> None:
        while worker.step(sleep=False) or wire.waiting:
            pass

    return wire, worker.memory, turn


KINDS = {"stack": _stack, "worker": _worker}


def measure(kind: str, connections: int) -> dict[str, Any]:
    """What opening so many connections, and leaving them idle, makes the process grow by."""
    for unit in jit.units():
        unit.address  # noqa: B018  loaded before, and not counted
    wire, core, turn = KINDS[kind](16)
    open_connections(wire, turn, 16)  # whatever is made at first use
    gc.collect()
    before = resident_bytes()
    wire, core, turn = KINDS[kind](connections)
    open_connections(wire, turn, connections)
    gc.collect()
    grown = resident_bytes() - before
    established = int((core.arrays["tcbs"].state == State.ESTABLISHED).sum())
    return {
        "kind": kind,
        "connections": established,
        "grown_bytes": grown,
        "mbuf_bytes": sum(map(touched_bytes, wire._arrays.values())),
        "block_bytes": touched_bytes(core._kept[0]),
        "blocks_used": int(core.record.block_count - core.record.free_block_count),
        "table_bytes": {name: touched_bytes(array) for name, array in core.arrays.items()},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("connections", type=int)
    options = parser.parse_args()
    print(json.dumps(measure(options.kind, options.connections)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
