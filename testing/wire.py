"""A device without DPDK: mbufs in plain memory, and a wire whose other end is Python. It serves the stack as a port does.

Built as plain Python (NUMBA_DISABLE_JIT=1), each received frame is a memory region of its own, so that a read past its
end is an error.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mpserve.dataplane.core import Core
from mpserve.dataplane.jit import JIT, compiled, unit
from mpserve.dataplane.mbuf import LAYOUT
from mpserve.dataplane.memory import (
    allocate,
    native64,
    read_bytes,
    record_at,
    register,
    set_native16,
    set_native64,
    unregister,
    write_bytes,
)

_OFFSET = dict(LAYOUT)
_BUF_ADDR, _DATA_OFF, _NB_SEGS, _NEXT = (_OFFSET[name] for name in ("buf_addr", "data_off", "nb_segs", "next"))
_HEADER, _HEADROOM, _LEAST_DATA = 256, 128, 2048
_WIRE_AT = 248  # in the fake mbuf: the wire that it belongs to
WIRE = np.dtype(
    [
        (n, "i8")
        for n in (
            "free_list",
            "free_count",
            "rx",
            "rx_head",
            "rx_count",
            "rx_rows",
            "tx",
            "tx_count",
            "tx_rows",
            "peer",
        )
    ]
)
wire_at = record_at(WIRE)


@unit("wire_rx")
def wire_rx(port, queue, pkts, count):
    """As rte_eth_rx_burst."""
    wire = wire_at(port)
    taken = min(count, wire.rx_count)
    for i in range(taken):
        set_native64(pkts + 8 * i, native64(wire.rx + 8 * ((wire.rx_head + i) % wire.rx_rows)))
    wire.rx_head = (wire.rx_head + taken) % wire.rx_rows
    wire.rx_count -= taken
    return taken


@unit("wire_tx")
def wire_tx(port, queue, pkts, count):
    """As rte_eth_tx_burst. What leaves is collected by Python, or arrives at the peer by a cable."""
    wire = wire_at(port)
    if wire.peer != 0:
        return cross(wire_at(wire.peer), pkts, count)
    taken = min(count, wire.tx_rows - wire.tx_count)
    for i in range(taken):
        set_native64(wire.tx + 8 * (wire.tx_count + i), native64(pkts + 8 * i))
    wire.tx_count += taken
    return taken


@compiled
def cross(peer, pkts, count):
    """The mbufs go over to the peer, as many as it has room for; whoever frees them, they return to their own wire."""
    taken = min(count, peer.rx_rows - peer.rx_count)
    for i in range(taken):
        set_native64(peer.rx + 8 * ((peer.rx_head + peer.rx_count + i) % peer.rx_rows), native64(pkts + 8 * i))
    peer.rx_count += taken
    return taken


@unit("wire_alloc")
def wire_alloc(pool, pkts, count):
    """As rte_pktmbuf_alloc_bulk: all or nothing."""
    wire = wire_at(pool)
    if wire.free_count < count:
        return -1
    wire.free_count -= count
    for i in range(count):
        mbuf = native64(wire.free_list + 8 * (wire.free_count + i))
        set_native64(mbuf + _BUF_ADDR, mbuf + _HEADER)
        set_native16(mbuf + _DATA_OFF, _HEADROOM)
        set_native16(mbuf + _NB_SEGS, 1)
        set_native64(mbuf + _NEXT, 0)
        set_native64(pkts + 8 * i, mbuf)
    return 0


@compiled
def _free_one(mbuf):
    wire = wire_at(native64(mbuf + _WIRE_AT))
    set_native64(wire.free_list + 8 * wire.free_count, mbuf)
    wire.free_count += 1


@unit("wire_free")
def wire_free(pkts, count):
    """As rte_pktmbuf_free_bulk: each mbuf with all its segments."""
    for i in range(count):
        mbuf = native64(pkts + 8 * i)
        while mbuf != 0:
            following = native64(mbuf + _NEXT)
            _free_one(mbuf)
            mbuf = following
    return 0


class Wire:
    """The device of a virtual host. `deliver` puts a frame on it, `collect` takes what the stack has sent."""

    def __init__(self, mac: bytes = b"\x02\x00\x00\x00\x00\x02", mtu: int = 1500, mbufs: int = 4096) -> None:
        self.mac, self.mtu, self.port_id, self.queue = mac, mtu, 0, 0
        self.wait_fds: list[int] = []
        self.unfinished_checksums = False
        self._room = max(_LEAST_DATA, mtu + 64)
        mbuf_bytes = -(-(_HEADER + _HEADROOM + self._room) // 64) * 64
        self._arrays = {
            "wire": allocate(WIRE, 1),
            "memory": allocate(np.uint8, mbufs * mbuf_bytes),
            "free_list": allocate(np.int64, mbufs),
            "rx": allocate(np.int64, mbufs),
            "tx": allocate(np.int64, mbufs),
        }
        self._wire: Any = self._arrays["wire"][0]
        for name in ("free_list", "rx", "tx"):
            self._wire[name] = self._arrays[name].ctypes.data
        self._wire.rx_rows = self._wire.tx_rows = self._wire.free_count = self.mbufs = mbufs
        first = self._arrays["memory"].ctypes.data
        self._arrays["free_list"][:] = first + np.arange(mbufs) * mbuf_bytes
        self._frames: dict[int, np.ndarray] = {}
        for mbuf in self._arrays["free_list"]:
            write_bytes(int(mbuf) + _WIRE_AT, self._arrays["wire"].ctypes.data.to_bytes(8, "little"))
        self.pool = self.port = self._arrays["wire"].ctypes.data

    @property
    def mbufs_free(self) -> int:
        return int(self._wire.free_count)

    @property
    def waiting(self) -> int:
        """Frames delivered that the stack has not taken."""
        return int(self._wire.rx_count)

    def attach(self, core: Core) -> None:
        """Make this the device of a core."""
        record = core.record
        record.rx, record.tx = wire_rx.address, wire_tx.address
        record.alloc, record.free = wire_alloc.address, wire_free.address
        record.port = record.pool = self.port
        record.unfinished_checksums = int(self.unfinished_checksums)

    def connect(self, other: Wire) -> None:
        """Join the two by a cable without delay or loss: what one sends arrives at the other."""
        self._wire.peer, other._wire.peer = other.port, self.port

    def _pop(self) -> int:
        self._wire.free_count -= 1
        return int(self._arrays["free_list"][self._wire.free_count])

    def deliver(self, frame: bytes, segments: int = 1) -> bool:
        """Let a frame arrive, in mbufs chained as LRO and large frames are; False if there is no mbuf for it."""
        if self._wire.free_count < segments or self._wire.rx_count >= self._wire.rx_rows:
            return False
        size = -(-len(frame) // segments)
        mbufs = [self._fill(frame[size * i : size * (i + 1)]) for i in range(segments)]
        for mbuf, following in zip(mbufs, [*mbufs[1:], 0], strict=True):
            write_bytes(mbuf + _NEXT, following.to_bytes(8, "little"))
        write_bytes(mbufs[0] + _NB_SEGS, segments.to_bytes(2, "little"))
        write_bytes(mbufs[0] + _OFFSET["pkt_len"], len(frame).to_bytes(4, "little"))
        rx = self._arrays["rx"]
        rx[(self._wire.rx_head + self._wire.rx_count) % self._wire.rx_rows] = mbufs[0]
        self._wire.rx_count += 1
        return True

    def _fill(self, data: bytes) -> int:
        """An mbuf that holds `data`."""
        mbuf = self._pop()
        if JIT and len(data) <= self._room:
            start, offset = mbuf + _HEADER, _HEADROOM
        else:
            start, offset = self._own_region(mbuf, data), 0
        write_bytes(mbuf + _BUF_ADDR, start.to_bytes(8, "little"))
        write_bytes(mbuf + _DATA_OFF, offset.to_bytes(2, "little"))
        write_bytes(mbuf + _OFFSET["data_len"], min(len(data), 0xFFFF).to_bytes(2, "little"))
        write_bytes(mbuf + _OFFSET["ol_flags"], bytes(8))
        write_bytes(start + offset, data)
        return mbuf

    def _field(self, mbuf: int, name: str, size: int) -> int:
        return int.from_bytes(read_bytes(mbuf + _OFFSET[name], size), "little")

    def _own_region(self, mbuf: int, frame: bytes) -> int:
        previous = self._frames.pop(mbuf, None)
        if previous is not None:
            unregister(previous.ctypes.data)
        self._frames[mbuf] = np.zeros(max(len(frame), 1), np.uint8)
        start = register(self._frames[mbuf])
        return start

    def collect(self) -> list[bytes]:
        """The frames that the stack has sent since the last call."""
        sent = [int(m) for m in self._arrays["tx"][: self._wire.tx_count]]
        self._wire.tx_count = 0
        frames = []
        for mbuf in sent:
            start = self._field(mbuf, "buf_addr", 8) + self._field(mbuf, "data_off", 2)
            frames.append(read_bytes(start, self._field(mbuf, "pkt_len", 4)))
            self._arrays["free_list"][self._wire.free_count] = mbuf
            self._wire.free_count += 1
        return frames

    def close(self) -> None:
        """Let the memory go."""
        for array in (*self._arrays.values(), *self._frames.values()):
            unregister(array.ctypes.data)
