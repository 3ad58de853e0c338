"""What stands between clients and cores in the rig: memory, so that a core's cycles are the stack's and nearly nothing else's.

A `Nic` is the device of a lane's clients: what they send goes to the core whose queue it is. What a core sends goes to the
clients of its lane, by a cable; or, by a `CorePort`, to those of whichever lane it is for, which may run on another CPU.
"""

from typing import Any

import numpy as np

from mpserve.dataplane.core import Core
from mpserve.dataplane.jit import compiled, unit
from mpserve.dataplane.mbuf import data_address, frame_length, set_frame_length
from mpserve.dataplane.memory import allocate, call2, call3, call4, copy, native64, record_at, unregister
from mpserve.dataplane.sharing import (
    RING_HEADER,
    ring_front,
    ring_publish,
    ring_release,
    ring_reserve,
)
from mpserve.dataplane.wire import ethernet, ipv4, tcp
from mpserve.testing.wire import Wire, cross, wire_alloc, wire_at, wire_free, wire_rx

MBUFS = 2048  # of each core and of each lane's clients
CLIENT_MAC = b"\x02\x00\x00\x00\x00\x01"
FIRST_ADDRESS = 0x0A090065  # 10.9.0.101: of lane 0's clients; the next lane's is the next
RING_BYTES = 1 << 18
FRAME = 1  # what a ring's record holds
_IP, _TCP = 14, 34
_NIC = "rx alloc wire queues queue_count draws drawn rings lane lanes"
NIC = np.dtype([(n, "i8") for n in _NIC.split()])
PORT = np.dtype([(n, "i8") for n in "rx free wire clients rings lane lanes".split()])
nic_at, port_at = record_at(NIC), record_at(PORT)


@compiled
def _ring(rings, lanes, source, to):
    """From a lane's core to another lane's clients."""
    return rings + (source * lanes + to) * (RING_HEADER + RING_BYTES)


@unit("rig_nic_rx")
def nic_rx(port, queue, pkts, count):
    """As rte_eth_rx_burst, for the clients: what any core has sent."""
    nic = nic_at(port)
    taken = call4(nic.rx, nic.wire, queue, pkts, count)
    for lane in range(nic.lanes):
        ring = _ring(nic.rings, nic.lanes, lane, nic.lane)
        while lane != nic.lane and taken < count and _taken_over(nic, ring, pkts + 8 * taken):
            taken += 1
    return taken


@compiled
def _taken_over(nic, ring, pkts):
    """Whether a frame had come from another lane; it is in an mbuf of ours now."""
    record = ring_front(ring, RING_BYTES)
    if record == 0 or call3(nic.alloc, nic.wire, pkts, 1) != 0:
        return False
    mbuf, length = native64(pkts), native64(record) >> 8
    copy(data_address(mbuf), record + 8, length)
    set_frame_length(mbuf, length)
    ring_release(ring, record)
    return True


@unit("rig_nic_tx")
def nic_tx(port, queue, pkts, count):
    """As rte_eth_tx_burst, for the clients: each frame to the core whose queue it is."""
    nic = nic_at(port)
    for i in range(count):
        wire = native64(nic.queues + 8 * _queue_of(nic, data_address(native64(pkts + 8 * i))))
        if cross(wire_at(wire), pkts + 8 * i, 1) == 0:
            return i
    return count


@compiled
def _queue_of(nic, frame):
    """The source port chooses, where RSS has a hash of it. Where `draws` is set, SYNs arrive wherever the dice fall."""
    if ethernet.ethertype(frame) != ethernet.TYPE_IPV4:
        return 0
    if nic.draws != 0 and tcp.flags(frame + _TCP) & tcp.SYN:
        nic.drawn = (nic.drawn * 1103515245 + 12345) & 0x7FFFFFFF
        return (nic.drawn >> 16) % nic.queue_count
    return (tcp.ports(frame + _TCP) >> 16) % nic.queue_count


@unit("rig_port_rx")
def port_rx(port, queue, pkts, count):
    """As rte_eth_rx_burst, for a core."""
    here = port_at(port)
    return call4(here.rx, here.wire, queue, pkts, count)


@unit("rig_port_tx")
def port_tx(port, queue, pkts, count):
    """As rte_eth_tx_burst, for a core: each frame to the clients whose address it has."""
    here = port_at(port)
    for i in range(count):
        if not _is_sent(here, pkts + 8 * i):
            return i
    return count


@compiled
def _is_sent(here, pkts):
    mbuf = native64(pkts)
    frame, length = data_address(mbuf), frame_length(mbuf)
    lane = (
        ipv4.destination(frame + _IP) - FIRST_ADDRESS if ethernet.ethertype(frame) == ethernet.TYPE_IPV4 else here.lane
    )
    if lane == here.lane or not 0 <= lane < here.lanes:
        return cross(wire_at(here.clients), pkts, 1) != 0
    ring = _ring(here.rings, here.lanes, here.lane, lane)
    at = ring_reserve(ring, RING_BYTES, length)
    if at == 0:
        return False
    copy(at, frame, length)
    ring_publish(ring, RING_BYTES, length, FRAME)
    call2(here.free, pkts, 1)
    return True


class Rings:
    """Of frames, from each lane's core to each other lane's clients."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self._memory = allocate(np.uint8, lanes * lanes * (RING_HEADER + RING_BYTES))
        self.address = self._memory.ctypes.data

    def close(self) -> None:
        unregister(self.address)


class Nic:
    """The clients' device: one port, a queue for each core of the lane that receives."""

    def __init__(self, lane: int, cores: list[Wire], rings: Rings, draws: bool) -> None:
        self.wire, self.mac = Wire(mbufs=MBUFS), CLIENT_MAC
        self._queues = allocate(np.int64, len(cores))
        self._queues[:] = [core.port for core in cores]
        self._nic = allocate(NIC, 1)
        record: Any = self._nic[0]
        record.rx, record.alloc, record.wire = wire_rx.address, wire_alloc.address, self.wire.port
        record.queues, record.queue_count = self._queues.ctypes.data, len(cores)
        record.draws, record.drawn = int(draws), 1
        record.rings, record.lane, record.lanes = rings.address, lane, rings.lanes
        self.rx, self.tx, self.alloc, self.free = nic_rx.address, nic_tx.address, wire_alloc.address, wire_free.address
        self.port_id, self.queue, self.pool = self._nic.ctypes.data, 0, self.wire.pool

    def close(self) -> None:
        self.wire.close()
        for array in (self._queues, self._nic):
            unregister(array.ctypes.data)


class CorePort:
    """A core's device in place of a cable, where it may have connections of other lanes' clients."""

    def __init__(self, core: Core, wire: Wire, nic: Nic, lane: int, rings: Rings) -> None:
        self._port = allocate(PORT, 1)
        record: Any = self._port[0]
        record.rx, record.free, record.wire = wire_rx.address, wire_free.address, wire.port
        record.clients, record.rings, record.lane, record.lanes = nic.wire.port, rings.address, lane, rings.lanes
        core.record.rx, core.record.tx, core.record.port = port_rx.address, port_tx.address, self._port.ctypes.data

    def close(self) -> None:
        unregister(self._port.ctypes.data)
