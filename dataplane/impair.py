"""A faulty wire: a device around another, whose frames it loses, doubles, damages, shuffles and delays, both ways.

The stack calls it as it calls a port; `port` is the address of an IMPAIR record. The clock is the core's own `now`, so that
a seed and a sequence of frames always have the same outcome. A frame's way: mtu, loss, corruption, duplication; then
each copy queues for the link, crosses it, and travels.
"""

from mpserve.dataplane.impair_damage import copy_of, discard, flip_bit, impair_at
from mpserve.dataplane.impair_lane import (
    COPY,
    CORRUPT,
    DUPLICATE,
    cross_link,
    happens,
    hold,
    is_lost,
    lane_at,
    let_go,
    list_due,
    path_ns,
)
from mpserve.dataplane.jit import compiled, unit
from mpserve.dataplane.layout import BURST, NEVER, core_at
from mpserve.dataplane.mbuf import frame_length
from mpserve.dataplane.memory import call4, native64

MOST_BURSTS = 16  # read from the device at a time


@unit("impair_rx")
def impair_rx(port, queue, pkts, count):
    """As rte_eth_rx_burst. Frames to send that have become due are handed on, too: this is called in every turn."""
    impair = impair_at(port)
    lane = lane_at(impair.rx_lane)
    _send_due(impair)
    taken = _take_due(impair, lane, pkts, count)
    if taken < count:
        _receive(impair, lane)
        taken += _take_due(impair, lane, pkts + 8 * taken, count - taken)
    return taken


@unit("impair_tx")
def impair_tx(port, queue, pkts, count):
    """As rte_eth_tx_burst, but everything is taken: what can't be held is dropped, as a router's queue does."""
    impair = impair_at(port)
    lane = lane_at(impair.tx_lane)
    for i in range(count):
        _enter(impair, lane, native64(pkts + 8 * i))
    _send_due(impair)
    return count


@unit("impair_end")
def impair_end(port):
    """Give back every frame that is held; how many there were."""
    impair = impair_at(port)
    return _discard_held(impair, lane_at(impair.rx_lane)) + _discard_held(impair, lane_at(impair.tx_lane))


@compiled
def _now_ns(impair):
    return 1000 * core_at(impair.core).now


@compiled
def _receive(impair, lane):
    """Read the device until it is dry, or for a while."""
    for _ in range(MOST_BURSTS):
        count = call4(impair.rx, impair.port, impair.queue, impair.burst, BURST)
        for i in range(count):
            _enter(impair, lane, _own(impair, lane, native64(impair.burst + 8 * i)))
        if count < BURST:
            return


@compiled
def _own(impair, lane, mbuf):
    """Where the device has few mbufs to receive into, the frame in one of ours, if it fits."""
    if lane.copies == 0:
        return mbuf
    moved = copy_of(impair, mbuf)
    if moved == 0:
        return mbuf
    discard(impair, mbuf)
    return moved


@compiled
def _enter(impair, lane, mbuf):
    """A frame's way, up to the link."""
    lane.frames += 1
    if frame_length(mbuf) > lane.longest:
        lane.too_long += 1
        discard(impair, mbuf)
        return
    if is_lost(lane):
        lane.lost += 1
        discard(impair, mbuf)
        return
    if happens(lane, CORRUPT, lane.corrupt):
        flip_bit(core_at(impair.core), lane, mbuf)
    second = 0
    if happens(lane, DUPLICATE, lane.duplicate):
        second = copy_of(impair, mbuf)
        if second == 0:
            lane.not_duplicated += 1
    _travel(impair, lane, mbuf, 0)
    if second != 0:
        lane.duplicated += 1
        _travel(impair, lane, second, COPY)


@compiled
def _travel(impair, lane, mbuf, copy):
    """The link and what lies behind it. A queue that is full drops the frame."""
    if lane.count == lane.rows:
        lane.ring_full += 1
        discard(impair, mbuf)
        return
    left = cross_link(lane, _now_ns(impair), frame_length(mbuf))
    if left < 0:
        lane.queue_full += 1
        discard(impair, mbuf)
        return
    hold(lane, mbuf, left + path_ns(lane, copy))


@compiled
def _take_due(impair, lane, pkts, most):
    count = list_due(lane, _now_ns(impair), pkts, most)
    let_go(lane, count)
    lane.passed += count
    return count


@compiled
def _send_due(impair):
    """Hand on what is due. What the device doesn't take is offered again in the next turn."""
    lane = lane_at(impair.tx_lane)
    while True:
        count = list_due(lane, _now_ns(impair), impair.burst, BURST)
        if count == 0:
            return
        sent = call4(impair.tx, impair.port, impair.queue, impair.burst, count)
        let_go(lane, sent)
        lane.passed += sent
        if sent < count:
            return


@compiled
def _discard_held(impair, lane):
    dropped = lane.count
    while lane.count > 0:
        list_due(lane, NEVER, impair.burst, 1)
        let_go(lane, 1)
        discard(impair, native64(impair.burst))
    return dropped
