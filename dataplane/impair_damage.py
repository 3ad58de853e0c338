"""What a faulty wire does to one frame: a bit flipped in place, a copy made."""

import numpy as np

from mpserve.dataplane.impair_lane import BIT, draw
from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import SCRATCH_BYTES
from mpserve.dataplane.mbuf import byte_address, data_address, forget_checksum, frame_length, gather, set_frame_length
from mpserve.dataplane.memory import call2, call3, load8, native64, record_at, set_native64, store8
from mpserve.dataplane.wire import ethernet, ipv4, tcp
from mpserve.dataplane.wire.checksum import finish, fold, pseudo_sum, sum_bytes

DATA_ROOM = 2048  # bytes of a frame that an mbuf of any pool has room for
IMPAIR = np.dtype(
    [
        (name, "i8")
        for name in "core rx_lane tx_lane rx tx alloc free port queue pool burst one".split()  # burst, one: mbufs at hand
    ]
)
impair_at = record_at(IMPAIR)


@compiled
def discard(impair, mbuf):
    """Give an mbuf back to its pool."""
    set_native64(impair.one, mbuf)
    call2(impair.free, impair.one, 1)


@compiled
def copy_of(impair, mbuf):
    """A fresh mbuf with the same frame in it; 0 if the pool is empty or the frame too long for one mbuf."""
    if frame_length(mbuf) > DATA_ROOM or call3(impair.alloc, impair.pool, impair.one, 1) != 0:
        return 0
    fresh = native64(impair.one)
    length = gather(mbuf, data_address(fresh), DATA_ROOM)
    if length < 0:
        discard(impair, fresh)
        return 0
    set_frame_length(fresh, length)
    return fresh


@compiled
def flip_bit(core, lane, mbuf):
    """Flip one bit behind the Ethernet header of an IPv4 frame. ARP has no checksum and is let be: real wires have one.

    core.scratch is ingress's own otherwise, which isn't running.
    """
    frame = core.scratch
    length = gather(mbuf, frame, SCRATCH_BYTES)
    if length <= ethernet.HEADER or ethernet.ethertype(frame) != ethernet.TYPE_IPV4:
        return
    if core.unfinished_checksums != 0:
        finish_tcp_checksum(mbuf, frame, length)
    forget_checksum(mbuf)
    bit = (draw(lane, BIT) * 8 * (length - ethernet.HEADER)) >> 32
    at = byte_address(mbuf, ethernet.HEADER + (bit >> 3))
    store8(at, load8(at) ^ (1 << (bit & 7)))
    lane.corrupted += 1


@compiled
def finish_tcp_checksum(mbuf, frame, length):
    """Do what a local kernel left to hardware, or nobody could tell that the payload was damaged behind it.

    `frame` is a copy of the whole frame in one piece.
    """
    ip, room = frame + ethernet.HEADER, length - ethernet.HEADER
    if room < ipv4.HEADER or ipv4.protocol(ip) != ipv4.PROTOCOL_TCP or ipv4.is_fragment(ip):
        return
    header, total = ipv4.header_length(ip), ipv4.total_length(ip)
    if header < ipv4.HEADER or total < header + tcp.HEADER or total > room:
        return
    segment, segment_length = ip + header, total - header
    pseudo = pseudo_sum(ipv4.source(ip), ipv4.destination(ip), ipv4.PROTOCOL_TCP, segment_length)
    if tcp.checksum(segment) != fold(pseudo):
        return
    value = finish(sum_bytes(segment, segment_length))  # the pseudo-header's sum is in the field
    at = ethernet.HEADER + header + 16
    store8(byte_address(mbuf, at), value >> 8)
    store8(byte_address(mbuf, at + 1), value)
