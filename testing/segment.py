"""Frames as Python objects, for the other end of a test's wire: built and read by code that shares nothing with the stack's."""

import struct
from dataclasses import dataclass, field

FLAGS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16, "U": 32, "E": 64, "C": 128}


def internet_checksum(data: bytes) -> int:
    """RFC 1071, over any number of bytes."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def address(text: str) -> bytes:
    """'10.9.0.1' as 4 bytes."""
    return bytes(int(part) for part in text.split("."))


def ethernet_frame(to: bytes, source: bytes, ethertype: int, payload: bytes) -> bytes:
    return to + source + struct.pack("!H", ethertype) + payload


def ipv4_packet(
    source: str,
    destination: str,
    protocol: int,
    payload: bytes,
    fragment: int = 0x4000,
    options: bytes = b"",
    identification: int = 0,
    tos: int = 0,
) -> bytes:
    """An IPv4 packet with a right header checksum."""
    words = 5 + len(options) // 4
    total = 4 * words + len(payload)
    header = struct.pack("!BBHHHBBH", 0x40 | words, tos, total, identification, fragment, 64, protocol, 0)
    header += address(source) + address(destination) + options
    return header[:10] + struct.pack("!H", internet_checksum(header)) + header[12:] + payload


@dataclass
class Segment:
    """One TCP segment. `flags` is a string of the letters SAFRPUEC."""

    sport: int
    dport: int
    seq: int = 0
    ack: int = 0
    flags: str = "A"
    window: int = 65535
    payload: bytes = b""
    options: bytes = b""
    source: str = ""
    destination: str = ""
    extra: dict = field(default_factory=dict)
    urgent: int = 0

    def packed(self, checksum: int | None = None) -> bytes:
        """Header, options and payload; the right checksum unless another is given."""
        options = self.options + b"\0" * (-len(self.options) % 4)
        bits = sum(FLAGS[letter] for letter in self.flags)
        ports = (self.sport, self.dport, self.seq & 0xFFFFFFFF, self.ack & 0xFFFFFFFF)
        head = struct.pack("!HHIIBBHHH", *ports, (5 + len(options) // 4) << 4, bits, self.window, 0, self.urgent)
        data = head + options + self.payload
        if checksum is None:
            pseudo = address(self.source) + address(self.destination) + struct.pack("!BBH", 0, 6, len(data))
            checksum = internet_checksum(pseudo + data)
        return data[:16] + struct.pack("!H", checksum) + data[18:]

    def frame(self, to: bytes, source_mac: bytes) -> bytes:
        packet = ipv4_packet(self.source, self.destination, 6, self.packed())
        return ethernet_frame(to, source_mac, 0x0800, packet)

    def mss(self) -> int | None:
        """The MSS option, if there is one."""
        value = self.option(2)
        return struct.unpack("!H", value)[0] if value else None

    def window_scale(self) -> int | None:
        value = self.option(3)
        return value[0] if value else None

    def option(self, kind: int) -> bytes | None:
        at = 0
        while at < len(self.options) and self.options[at] != 0:
            if self.options[at] == 1:
                at += 1
                continue
            length = self.options[at + 1]
            if self.options[at] == kind:
                return self.options[at + 2 : at + length]
            at += length
        return None


class BadFrame(ValueError):
    """The stack has sent something that no host may send."""


def parse_tcp(frame: bytes) -> Segment | None:
    """The TCP segment in a frame that the stack sent, its checksums and lengths verified; None if it holds none."""
    if frame[12:14] != b"\x08\x00":
        return None
    packet = frame[14:]
    header, total = (packet[0] & 15) * 4, struct.unpack("!H", packet[2:4])[0]
    if total > len(packet) or internet_checksum(packet[:header]) != 0:
        raise BadFrame(f"bad IPv4 header: {frame.hex()}")
    if packet[9] != 6:
        return None
    data = packet[header:total]
    if internet_checksum(packet[12:20] + struct.pack("!BBH", 0, 6, len(data)) + data) != 0:
        raise BadFrame(f"bad TCP checksum: {frame.hex()}")
    sport, dport, seq, ack, offset, bits, window = struct.unpack("!HHIIBBH", data[:16])
    return Segment(
        sport,
        dport,
        seq,
        ack,
        "".join(letter for letter, bit in FLAGS.items() if bits & bit),
        window,
        data[(offset >> 4) * 4 :],
        data[20 : (offset >> 4) * 4],
        ".".join(map(str, packet[12:16])),
        ".".join(map(str, packet[16:20])),
        urgent=struct.unpack("!H", data[18:20])[0],
    )


def arp_request(source_mac: bytes, source: str, target: str) -> bytes:
    packet = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + source_mac + address(source) + bytes(6) + address(target)
    return ethernet_frame(b"\xff" * 6, source_mac, 0x0806, packet)


def arp_reply(source_mac: bytes, source: str, to_mac: bytes, to: str) -> bytes:
    packet = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2) + source_mac + address(source) + to_mac + address(to)
    return ethernet_frame(to_mac, source_mac, 0x0806, packet)


def icmp_message(kind: int, code: int, rest: bytes, data: bytes = b"") -> bytes:
    """An ICMP message with a right checksum; `rest` is what follows it in the header, 4 bytes."""
    message = struct.pack("!BBH", kind, code, 0) + rest + data
    return message[:2] + struct.pack("!H", internet_checksum(message)) + message[4:]


def echo_request(source: str, destination: str, to: bytes, source_mac: bytes, data: bytes = b"ping") -> bytes:
    message = icmp_message(8, 0, struct.pack("!HH", 7, 1), data)
    return ethernet_frame(to, source_mac, 0x0800, ipv4_packet(source, destination, 1, message))
