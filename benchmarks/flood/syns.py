"""The flood's SYNs: sources that nobody has, ports and sequence numbers of their own, right checksums, with and without options.

A SYN is copied from one of two frames made beforehand, whose sums lack only what is drawn for each.
"""

import random
import struct

import numpy as np

from mpserve.apps.load.small.clients import PORT
from mpserve.dataplane.jit import compiled
from mpserve.dataplane.memory import allocate, copy, mix, record_at, store16, store32, write_bytes
from mpserve.dataplane.wire import ipv4, tcp
from mpserve.dataplane.wire.checksum import finish
from mpserve.testing.segment import Segment, address, internet_checksum

SOURCES, SOURCE_BITS = 2 << 30, 0x3FFFFFFF  # 128.0.0.0/2: no host of the benchmark's is in it
_FIRST_PORT, _PORT_BITS = 2048, 0x7FFF
_IP, _TCP, _STAMP = 14, 34, 34 + tcp.HEADER + 4 + 4  # the last: a timestamp's value, behind MSS and SACK-permitted
_FRAME_BYTES = 128
MSS = b"\x02\x04\x05\xb4"
LINUX_OPTIONS = MSS + b"\x04\x02\x08\x0a" + bytes(8) + b"\x01\x03\x03\x07"  # SACK-permitted, timestamps, window scale

SHAPE = np.dtype([(n, "i8") for n in "frame length ip_sum tcp_sum stamped".split()])
SYNS = np.dtype([(n, "i8") for n in "shapes key drawn".split()])
shape_at, syns_at = record_at(SHAPE), record_at(SYNS)
_SHAPE_BYTES = SHAPE.itemsize
_ODD = 0x2545F4914F6CDD1D


@compiled
def is_of_flood(frame):
    """Whether an IPv4 frame comes from where only the flood does."""
    return ipv4.source(frame + _IP) & ~SOURCE_BITS == SOURCES


@compiled
def write_syn(syns, frame):
    """The next SYN, half of them with options; its length."""
    syns.drawn += 1
    one = mix(np.int64(syns.drawn) ^ _ODD, syns.key)
    other = mix(one ^ _ODD, syns.key)
    shape = shape_at(syns.shapes + ((other >> 62) & 1) * _SHAPE_BYTES)
    copy(frame, shape.frame, shape.length)
    source, port, seq = SOURCES | (one & SOURCE_BITS), _FIRST_PORT + ((one >> 32) & _PORT_BITS), other & 0xFFFFFFFF
    store32(frame + _IP + 12, source)
    store16(frame + _TCP, port)
    store32(frame + _TCP + 4, seq)
    addresses = (source >> 16) + (source & 0xFFFF)
    store16(frame + _IP + 10, finish(shape.ip_sum + addresses))
    total = shape.tcp_sum + addresses + port + (seq >> 16) + (seq & 0xFFFF)
    if shape.stamped != 0:
        total += tcp.put_word(frame + _STAMP, (other >> 32) & 0x3FFFFFFF)
    store16(frame + _TCP + 16, finish(total))
    return shape.length


class Syns:
    """What `write_syn` takes: `record`, for SYNs from `mac` to a server."""

    def __init__(self, mac: bytes, server_mac: bytes, server: str, seed: int) -> None:
        self._frames = allocate(np.uint8, 2 * _FRAME_BYTES)
        self._shapes = allocate(SHAPE, 2)
        self._syns = allocate(SYNS, 1)
        for number, options in enumerate((MSS, LINUX_OPTIONS)):
            self._lay(number, mac, server_mac, server, options)
        self._syns[0].shapes, self._syns[0].key = self._shapes.ctypes.data, random.Random(seed).getrandbits(62) << 1 | 1

    @property
    def address(self) -> int:
        """Of the SYNS record."""
        return int(self._syns.ctypes.data)

    def _lay(self, number: int, mac: bytes, server_mac: bytes, server: str, options: bytes) -> None:
        """A frame whose source address, port and sequence number are zero, and the sums of the rest."""
        syn = Segment(0, PORT, flags="S", options=options, source="0.0.0.0", destination=server)
        frame = syn.frame(server_mac, mac)
        ip, segment = frame[_IP:_TCP], frame[_TCP:]
        shape = self._shapes[number]
        shape.frame, shape.length = self._frames.ctypes.data + number * _FRAME_BYTES, len(frame)
        shape.stamped = int(options == LINUX_OPTIONS)
        shape.ip_sum = internet_checksum(ip[:10] + b"\0\0" + ip[12:]) ^ 0xFFFF
        pseudo = bytes(4) + address(server) + struct.pack("!BBH", 0, ipv4.PROTOCOL_TCP, len(segment))
        shape.tcp_sum = internet_checksum(pseudo + segment[:16] + b"\0\0" + segment[18:]) ^ 0xFFFF
        write_bytes(int(shape.frame), frame)
