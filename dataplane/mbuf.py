"""A DPDK mbuf seen from compiled code: fields read and written in place, at the offsets that DPDK itself was built with.

Where the pydpdk extension isn't built (tests without DPDK), the offsets of DPDK 22.11 and 23.11 stand in.
"""

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.memory import copy, native16, native32, native64, set_native16, set_native32, set_native64


def _layout() -> tuple[tuple[str, int], ...]:
    try:
        from pydpdk import mbuf_layout

        offsets = mbuf_layout()
    except ImportError:
        offsets = {
            "buf_addr": 0,
            "data_off": 16,
            "nb_segs": 20,
            "ol_flags": 24,
            "pkt_len": 36,
            "data_len": 40,
            "next": 64,
        }
    return tuple(sorted((name, int(offsets[name])) for name in _FIELDS))


_FIELDS = ("buf_addr", "data_off", "nb_segs", "ol_flags", "pkt_len", "data_len", "next")
LAYOUT = _layout()
_OFFSETS = dict(LAYOUT)
_BUF_ADDR, _DATA_OFF, _NB_SEGS = _OFFSETS["buf_addr"], _OFFSETS["data_off"], _OFFSETS["nb_segs"]
_OL_FLAGS, _PKT_LEN, _DATA_LEN, _NEXT = (_OFFSETS[n] for n in ("ol_flags", "pkt_len", "data_len", "next"))

RX_L4_CKSUM_GOOD = 1 << 8  # RTE_MBUF_F_RX_L4_CKSUM_GOOD


@compiled
def data_address(mbuf):
    """rte_pktmbuf_mtod: where the frame begins."""
    return native64(mbuf + _BUF_ADDR) + native16(mbuf + _DATA_OFF)


@compiled
def segments(mbuf):
    return native16(mbuf + _NB_SEGS)


@compiled
def frame_length(mbuf):
    return native32(mbuf + _PKT_LEN)


@compiled
def checksum_is_good(mbuf):
    """Whether the NIC has verified the TCP checksum."""
    return native64(mbuf + _OL_FLAGS) & RX_L4_CKSUM_GOOD != 0


@compiled
def forget_checksum(mbuf):
    """Have the TCP checksum verified in software, whatever the NIC has found."""
    set_native64(mbuf + _OL_FLAGS, native64(mbuf + _OL_FLAGS) & ~RX_L4_CKSUM_GOOD)


@compiled
def byte_address(mbuf, offset):
    """Where byte `offset` of a frame lies, in whichever of its segments; 0 if it has no such byte."""
    while mbuf != 0:
        part = native16(mbuf + _DATA_LEN)
        if offset < part:
            return data_address(mbuf) + offset
        offset -= part
        mbuf = native64(mbuf + _NEXT)
    return 0


@compiled
def set_frame_length(mbuf, length):
    """For a frame of one segment."""
    set_native32(mbuf + _PKT_LEN, length)
    set_native16(mbuf + _DATA_LEN, length)


@compiled
def gather(mbuf, to, room):
    """Copy all segments of a frame to `to`, which has `room` bytes; the frame's length, or -1 if it doesn't fit."""
    length = 0
    while mbuf != 0:
        part = native16(mbuf + _DATA_LEN)
        if length + part > room:
            return -1
        copy(to + length, data_address(mbuf), part)
        length += part
        mbuf = native64(mbuf + _NEXT)
    return length
