"""What has to become of a frame before TCP sees it: a model of the door, by bytes, that shares no code with the stack.

`Door.arrives` names the counter that a frame must move, or says what passes. The fuzzer counts what it predicts and
compares at rest.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from mpserve.testing.segment import internet_checksum

TCP, ICMP = 6, 1
TIMEOUT_US, MOST_DATAGRAMS, MOST_FRAGMENTS = 30_000_000, 32, 128
QUOTING = (3, 4, 11, 12)  # the ICMP types that quote a datagram


@dataclass
class Verdict:
    """What becomes of a frame: the one drop counter that it moves (or none), and what gets past the door."""

    drop: str = ""
    tcp: bool = False
    error: bool = False  # an ICMP error that quotes a segment of ours
    echo: bytes = b""  # the ICMP message that must come back
    fragment: bool = False


@dataclass
class _Datagram:
    started: int
    parts: dict[int, bytes] = field(default_factory=dict)
    length: int = -1
    header: bytes = b""
    refused: bool = False

    @property
    def end(self) -> int:
        return max((start + len(part) for start, part in self.parts.items()), default=0)


class Door:
    """The stack's at `ip`, /24. `reassembly_is_certain` turns False when its table is full: who makes way isn't modelled."""

    def __init__(self, ip: str, mac: bytes, mtu: int, reassemble: bool = True) -> None:
        self.ip, self.mac, self.mtu, self.reassemble = bytes(map(int, ip.split("."))), mac, mtu, reassemble
        self.clear()

    def clear(self) -> None:
        self._datagrams: dict[tuple[bytes, int, int], _Datagram] = {}
        self.reassembly_is_certain = True

    def arrives(self, frame: bytes, now: int) -> Verdict:
        if len(frame) < 14:
            return Verdict("drop_runt")
        group = bool(frame[0] & 1)
        if frame[:6] != self.mac and not group:
            return Verdict("drop_not_ours")
        if frame[6] & 1:
            return Verdict("drop_source_group")
        kind = frame[12:14]
        if kind == b"\x08\x06":
            return self._arp(frame[14:])
        if kind != b"\x08\x00":
            return Verdict("drop_ethertype")
        return self._ipv4(frame[14:], group, now)

    def _arp(self, packet: bytes) -> Verdict:
        malformed = len(packet) < 28 or packet[:6] != b"\0\x01\x08\0\x06\x04"
        malformed = malformed or packet[8] & 1 == 1 or packet[8:14] == bytes(6)
        return Verdict("drop_arp_malformed" if malformed else "")

    def _ipv4(self, packet: bytes, group: bool, now: int) -> Verdict:
        if len(packet) < 20 or packet[0] >> 4 != 4:
            return Verdict("drop_ip_malformed")
        header, total = (packet[0] & 15) * 4, struct.unpack("!H", packet[2:4])[0]
        if header < 20 or total < header or total > len(packet):
            return Verdict("drop_ip_malformed")
        if internet_checksum(packet[:header]) != 0:
            return Verdict("drop_ip_checksum")
        if packet[16:20] != self.ip:
            return Verdict("drop_ip_not_ours")
        if self._martian(packet[12:16]) or group:
            return Verdict("drop_ip_martian")
        options = _ip_options(packet[20:header])
        if options:
            return Verdict(options)
        if packet[6] & 0x3F or packet[7]:
            return self._fragment(packet[:header], packet[header:total], now)
        return self._datagram(packet[:header], packet[header:total])

    def _martian(self, source: bytes) -> bool:
        return source == self.ip or source[0] in (0, 127) or source[0] >= 224 or source == self.ip[:3] + b"\xff"

    def _datagram(self, header: bytes, payload: bytes) -> Verdict:
        if header[9] == TCP:
            return _tcp(header, payload)
        if header[9] == ICMP:
            return self._icmp(payload)
        return Verdict("drop_ip_protocol")

    def _icmp(self, message: bytes) -> Verdict:
        if len(message) < 8 or internet_checksum(message) != 0:
            return Verdict("drop_icmp_malformed")
        if message[0] == 8:
            too_long = len(message) > min(2048, self.mtu - 20)
            return Verdict("drop_oversize") if too_long else Verdict(echo=message)
        return self._quote(message[8:]) if message[0] in QUOTING else Verdict("drop_icmp_type")

    def _quote(self, quote: bytes) -> Verdict:
        if len(quote) < 28 or quote[0] >> 4 != 4 or not 20 <= (quote[0] & 15) * 4 <= len(quote) - 8:
            return Verdict("drop_icmp_quote")
        if quote[12:16] != self.ip or quote[6] & 0x3F or quote[7] or quote[9] != TCP:
            return Verdict("drop_icmp_quote_not_ours")
        return Verdict(error=True)

    # -- fragments

    def _fragment(self, header: bytes, payload: bytes, now: int) -> Verdict:
        word, protocol = struct.unpack("!H", header[6:8])[0], header[9]
        start, more = (word & 0x1FFF) * 8, bool(word & 0x2000)
        drop = self._refusal(header, payload, start, more)
        if drop:
            return Verdict(drop, fragment=True)
        key = (header[12:16], struct.unpack("!H", header[4:6])[0], protocol)
        datagram = self._find(key, now)
        if datagram.refused:
            return Verdict("drop_fragment_overlap", fragment=True)
        drop = _place(datagram, start, more, header, payload)
        if drop:
            return Verdict(drop, fragment=True)
        whole = sum(map(len, datagram.parts.values())) == datagram.length
        if not whole or len(datagram.header) + datagram.length > 0xFFFF:
            return Verdict(fragment=True)
        del self._datagrams[key]
        joined = b"".join(datagram.parts[at] for at in sorted(datagram.parts))
        verdict = self._datagram(datagram.header, joined)
        verdict.fragment = True
        return verdict

    def _refusal(self, header: bytes, payload: bytes, start: int, more: bool) -> str:
        if not self.reassemble:
            return "drop_ip_fragment"
        if header[9] not in (TCP, ICMP):
            return "drop_ip_protocol"
        if not payload or len(header) + start + len(payload) > 0xFFFF or (more and len(payload) % 8):
            return "drop_ip_malformed"
        tiny = 0 < start < 20 if start else len(payload) < 20 or len(payload) < (payload[12] >> 4) * 4
        return "drop_fragment_tiny" if header[9] == TCP and tiny else ""

    def _find(self, key: tuple[bytes, int, int], now: int) -> _Datagram:
        found = self._datagrams.get(key)
        if found is None or now - found.started > TIMEOUT_US:
            self._datagrams.pop(key, None)
            live = [d for d in self._datagrams.values() if now - d.started <= TIMEOUT_US]
            if len(live) >= MOST_DATAGRAMS:
                self.reassembly_is_certain = False
            found = self._datagrams[key] = _Datagram(now)
        return found


def _place(datagram: _Datagram, start: int, more: bool, header: bytes, payload: bytes) -> str:
    """Put a fragment into its datagram; the counter of its drop, if it is dropped."""
    end = start + len(payload)
    if datagram.parts.get(start) == payload:
        return "drop_duplicate"
    meets = any(start < at + len(part) and at < end for at, part in datagram.parts.items())
    if datagram.length >= 0:
        contradicts = not more or end > datagram.length
    else:
        contradicts = not more and end < datagram.end
    if meets or contradicts or len(datagram.parts) == MOST_FRAGMENTS:
        datagram.refused = True
        return "drop_fragment_overlap" if meets or contradicts else "drop_fragment_full"
    datagram.parts[start] = payload
    if not more:
        datagram.length = end
    if start == 0:
        datagram.header = header
    return ""


def _ip_options(options: bytes) -> str:
    at = 0
    while at < len(options) and options[at] != 0:
        if options[at] == 1:
            at += 1
            continue
        if at + 2 > len(options) or options[at + 1] < 2 or at + options[at + 1] > len(options):
            return "drop_ip_malformed"
        if options[at] in (131, 137):
            return "drop_ip_options"
        at += options[at + 1]
    return ""


def _tcp(header: bytes, segment: bytes) -> Verdict:
    if len(segment) < 20 or not 20 <= (segment[12] >> 4) * 4 <= len(segment):
        return Verdict("drop_tcp_malformed")
    pseudo = header[12:20] + struct.pack("!BBH", 0, TCP, len(segment))
    if internet_checksum(pseudo + segment) != 0:
        return Verdict("drop_tcp_checksum")
    if 0 in struct.unpack("!HH", segment[:4]):
        return Verdict("drop_tcp_port_zero")
    if is_nonsense(segment[13]):
        return Verdict("drop_tcp_flags")
    if parse_options(segment[20 : (segment[12] >> 4) * 4]) is None:
        return Verdict("drop_tcp_options")
    return Verdict(tcp=True)


def is_nonsense(bits: int) -> bool:
    fin, syn, rst, ack = (bool(bits & bit) for bit in (1, 2, 4, 16))
    return bits & 63 == 0 or (syn and (rst or (fin and not ack)))


@dataclass
class Options:
    """What a segment's options say; None: nothing."""

    mss: int | None = None
    scale: int | None = None
    sack_permitted: bool = False
    timestamps: tuple[int, int] | None = None
    sacks: tuple[tuple[int, int], ...] = ()


LENGTHS = {2: 4, 3: 3, 4: 2, 8: 10}


def parse_options(data: bytes) -> Options | None:
    """RFC 9293 section 3.1, of two options of a kind the last; None if a length is impossible."""
    found, at = Options(), 0
    while at < len(data) and data[at] != 0:
        kind = data[at]
        if kind == 1:
            at += 1
            continue
        if at + 2 > len(data):
            return None
        length = data[at + 1]
        body = data[at + 2 : at + length]
        if length < 2 or at + length > len(data) or LENGTHS.get(kind, length) != length:
            return None
        if kind == 2:
            found.mss = struct.unpack("!H", body)[0]
        elif kind == 3:
            found.scale = min(body[0], 14)
        elif kind == 4:
            found.sack_permitted = True
        elif kind == 8:
            found.timestamps = struct.unpack("!II", body)
        elif kind == 5:
            if length < 10 or length % 8 != 2:
                return None
            words = struct.unpack(f"!{len(body) // 4}I", body)
            found.sacks = tuple(zip(words[::2], words[1::2], strict=True))
        at += length
    return found
