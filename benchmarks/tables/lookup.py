"""What finding a connection costs: `dataplane/tcp/table.py` on tables as full as a core's ever is, in random order.

`in turn` begins a lookup when the one before has its answer, so that every cache miss counts in full; `at once` lets the
processor overlap them. Both include reading the key, which lies where the last one ended.
"""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from mpserve.dataplane.core import make_buckets, make_core
from mpserve.dataplane.jit import compiled, unit
from mpserve.dataplane.layout import CONN, KEY, V4_MAPPED, core_at, key_at
from mpserve.dataplane.limits import Limits
from mpserve.dataplane.memory import allocate, mix, native64, record_at, unregister
from mpserve.dataplane.tcp.table import find, flow_hash, insert

LOOKUPS = 1 << 20  # in one measurement, at least
_CONN_BYTES, _KEY_BYTES = CONN.itemsize, KEY.itemsize
_ODD = 0x2545F4914F6CDD1D

LOOKUP = np.dtype([(n, "i8") for n in "core buckets mask records count keys zero".split()])
lookup_at = record_at(LOOKUP)


@compiled
def _draw_key(core, key, number):
    """Make up the flow of a number: a port and an address of its own, under this core's hash."""
    bits = mix(np.int64(number) ^ _ODD, core.secret_a)
    key.remote_high = key.local_high = 0
    key.remote = V4_MAPPED | (number ^ (bits & 0xFF000000))
    key.local = core.address
    key.ports = ((2048 + ((bits >> 32) & 0x7FFF)) << 16) | 7
    key.hash = flow_hash(core, key.remote, key.local, key.ports)


@unit("lookup_fill")
def fill(lookup_address, unused):
    """Enter flows 0 to `count` into the table, each in the slot of its number."""
    table = lookup_at(lookup_address)
    core = core_at(table.core)
    for number in range(table.count):
        record = key_at(table.records + number * _CONN_BYTES)
        _draw_key(core, record, number)
        insert(table.buckets, table.mask, record.hash, number)
    return table.count


@unit("lookup_keys")
def lay_keys(lookup_address, numbers):
    """Write the keys of the flows whose `count` numbers are at `numbers`, in that order."""
    table = lookup_at(lookup_address)
    for i in range(table.count):
        _draw_key(core_at(table.core), key_at(table.keys + i * _KEY_BYTES), native64(numbers + 8 * i))
    return table.count


@compiled
def _find(table, key):
    return find(table.buckets, table.mask, key_at(key), table.records, _CONN_BYTES)


@unit("lookups_in_turn")
def in_turn(lookup_address, unused):
    """Look every key up; how many were found. Where a key lies depends, for the processor, on the answer before."""
    table = lookup_at(lookup_address)
    found, answer = 0, np.int64(0)
    for i in range(table.count):
        answer = _find(table, table.keys + i * _KEY_BYTES + (answer & table.zero))
        found += answer >= 0
    return found


@unit("lookups_at_once")
def at_once(lookup_address, unused):
    """Look every key up; how many were found."""
    table = lookup_at(lookup_address)
    found = 0
    for i in range(table.count):
        found += _find(table, table.keys + i * _KEY_BYTES) >= 0
    return found


WAYS = {"in turn": in_turn, "at once": at_once}
UNITS = (fill, lay_keys, in_turn, at_once)


class FlowTable:
    """A flow table with `connections` flows, and as many keys to look up: those of its own, or of others."""

    def __init__(self, connections: int, seed: int = 1) -> None:
        self.connections = connections
        self._random = np.random.default_rng(seed)
        self._core = make_core(Limits(max_connections=1), mac=bytes(6), ip="10.9.0.2", seed=seed)
        buckets = 1 << (2 * connections - 1).bit_length()
        self._arrays: dict[str, Any] = {
            "buckets": make_buckets(buckets),
            "records": allocate(CONN, connections),
            "keys": allocate(KEY, connections),
            "lookup": allocate(LOOKUP, 1),
        }
        self._lookup: Any = self._arrays["lookup"][0]
        for name in ("buckets", "records", "keys"):
            self._lookup[name] = self._arrays[name].ctypes.data
        self._lookup.core, self._lookup.mask, self._lookup.count = self._core.address, buckets - 1, connections
        fill(self._address, 0)

    @property
    def _address(self) -> int:
        return int(self._arrays["lookup"].ctypes.data)

    def ask_for(self, there: bool) -> None:
        """From here on, look up every flow of the table once, in random order; or as many that are not in it."""
        numbers = allocate(np.int64, self.connections)
        numbers[:] = self._random.permutation(self.connections) + (0 if there else self.connections)
        lay_keys(self._address, numbers.ctypes.data)
        unregister(numbers.ctypes.data)

    def look_up(self, way: str) -> int:
        """Every key once; how many were found."""
        return WAYS[way](self._address, 0)

    def close(self) -> None:
        self._core.close()
        for array in self._arrays.values():
            unregister(array.ctypes.data)


def nanoseconds(table: FlowTable, way: str, least: int = LOOKUPS) -> float:
    """Of one lookup."""
    passes = -(-least // table.connections)
    table.look_up(way)
    started = time.perf_counter_ns()
    for _ in range(passes):
        table.look_up(way)
    return (time.perf_counter_ns() - started) / (passes * table.connections)


def measure(connections: list[int], rounds: int, least: int = LOOKUPS) -> Iterator[dict[str, Any]]:
    """A sample for each table, kind of key and way, in each round."""
    for count in connections:
        table = FlowTable(count)
        for number in range(rounds):
            for there in (True, False):
                table.ask_for(there)
                for way in WAYS:
                    found = {"connections": count, "there": there, "way": way, "round": number}
                    yield found | {"ns": nanoseconds(table, way, least)}
        table.close()
