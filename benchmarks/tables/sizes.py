"""Bytes of a core's tables: what grows with the connections, and what doesn't."""

from dataclasses import dataclass

from mpserve.dataplane.core import Core, make_core
from mpserve.dataplane.layout import BLOCK_BYTES
from mpserve.dataplane.limits import Limits

ABOUT = {
    "tcbs": "hot record",
    "conns": "cold record",
    "timers": "wheel entry",
    "sents": "range of sent data",
    "flows": "flow table, two buckets",
}


@dataclass(frozen=True)
class TableSize:
    """A table of the core. `each`: bytes a connection, 0 for what doesn't depend on them."""

    name: str
    each: float
    bytes: int


def _core(connections: int) -> Core:
    return make_core(Limits(max_connections=connections), mac=bytes(6), ip="10.9.0.2")


def table_sizes(connections: int) -> list[TableSize]:
    """Every table of a core for so many connections, a power of two; beside it a core for half as many tells what grows."""
    whole, half = _core(connections), _core(connections // 2)
    sizes = [
        TableSize(name, (array.nbytes - half.arrays[name].nbytes) / (connections / 2), array.nbytes)
        for name, array in whole.arrays.items()
    ]
    sizes.append(TableSize("block_data", 0, whole.limits.blocks * BLOCK_BYTES))
    whole.close()
    half.close()
    return sorted(sizes, key=lambda size: (size.each, size.bytes), reverse=True)
