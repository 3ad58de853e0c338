"""Every frame that leaves is one that a host may send: read by code that shares nothing with what built it."""

from __future__ import annotations

import struct

from fuzz.door import parse_options
from mpserve.testing.segment import BadFrame, Segment, internet_checksum, parse_tcp

_FLAGS_SENT = {"S", "SA", "A", "PA", "FA", "FPA", "R", "RA"}


def check_outgoing(frame: bytes, ip: bytes, mac: bytes, mtu: int) -> Segment | None:
    """The TCP segment in a frame, if there is one. Raises BadFrame if no host may send it."""
    _expect(len(frame) <= 14 + mtu, "longer than the MTU", frame)
    _expect(frame[6:12] == mac, "not from us", frame)
    if frame[12:14] == b"\x08\x06":
        _check_arp(frame, ip, mac)
        return None
    packet = frame[14:]
    _expect(frame[12:14] == b"\x08\x00" and packet[0] == 0x45, "no IPv4 header of 20 bytes", frame)
    total, fragment = struct.unpack("!H", packet[2:4])[0], struct.unpack("!H", packet[6:8])[0]
    _expect(total == len(packet) and fragment == 0x4000 and packet[8] > 0, "wrong length, fragment word or TTL", frame)
    _expect(packet[12:16] == ip and packet[16:20] != ip, "wrong addresses", frame)
    _expect(packet[16] not in (0, 127) and packet[16] < 224, "to nobody", frame)
    segment = parse_tcp(frame)
    if segment is None:
        _expect(packet[9] == 1 and internet_checksum(packet[20:]) == 0 and packet[20:22] == b"\0\0", "no reply", frame)
    else:
        _check_segment(segment, frame)
    return segment


def _expect(holds: bool, what: str, frame: bytes) -> None:
    if not holds:
        raise BadFrame(f"{what}: {frame.hex()}")


def _check_arp(frame: bytes, ip: bytes, mac: bytes) -> None:
    packet = frame[14:]
    _expect(len(packet) == 28 and packet[:6] == b"\0\x01\x08\0\x06\x04", "no ARP packet", frame)
    _expect(packet[6:8] in (b"\0\x01", b"\0\x02") and packet[8:14] == mac and packet[14:18] == ip, "bad ARP", frame)
    _expect(frame[:6] != bytes(6), "ARP to nobody", frame)
    _expect((packet[7] == 1) == (frame[:6] == b"\xff" * 6), "an ARP request is for all, a reply for one", frame)


def _check_segment(segment: Segment, frame: bytes) -> None:
    _expect(segment.sport != 0 and segment.dport != 0, "port 0", frame)
    _expect("".join(sorted(segment.flags)) in {"".join(sorted(f)) for f in _FLAGS_SENT}, "flags", frame)
    options = parse_options(segment.options)
    _expect(options is not None, "malformed options", frame)
    if options is None:
        return
    syn = "S" in segment.flags
    _expect(
        syn or (options.mss is None and options.scale is None and not options.sack_permitted), "SYN's options", frame
    )
    _expect(not (segment.payload and (syn or "R" in segment.flags)), "payload", frame)
    _expect(all((end - start) & 0x80000000 == 0 and end != start for start, end in options.sacks), "SACK blocks", frame)
