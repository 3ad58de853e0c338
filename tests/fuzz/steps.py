"""What a step does: each function takes the stack and the step's arguments. All arguments zero is the plain, right thing."""

from __future__ import annotations

import struct
from collections.abc import Callable

from peer import MAC, MASK

from fuzz.door import parse_options
from fuzz.peers import HONEST_IP, INITIAL, OFFERS, Hostile, content
from fuzz.script import Arguments
from fuzz.stack import HONEST_SERVED, FuzzStack, Life
from mpserve.dataplane.core import ipv4
from mpserve.dataplane.events import Command
from mpserve.dataplane.layout import V4_MAPPED
from mpserve.dataplane.tcp.connect import connect
from mpserve.dataplane.tcp.settings import VALUE_BITS, Option
from mpserve.dataplane.tcp.state import SYN_SENT
from mpserve.testing.segment import (
    Segment,
    address,
    arp_reply,
    arp_request,
    ethernet_frame,
    icmp_message,
    internet_checksum,
    ipv4_packet,
)

Do = Callable[[FuzzStack, Arguments], None]

FLAGS = ("A", "PA", "FA", "RA", "R", "S", "SA", "F", "SF", "SFA", "", "UAP", "FPA", "P")
LENGTHS = (0, 1, 100, 536, 1460, 1448, 2921, 5000)
WINDOWS = (65535, 0, 1, 100, 1000, 1460, 32768)
WAITS_US = (
    1000,
    0,
    100,
    1025,
    40_000,
    41_000,
    200_000,
    300_000,
    1_000_000,
    3_000_000,
    10_000_000,
    31_000_000,
    61_000_000,
)
WRITES = (100, 0, 1, 536, 1460, 3000, 5000, 17_000)
COMMANDS = (
    Command.WRITE,
    Command.WRITE,
    Command.SHUTDOWN,
    Command.CLOSE,
    Command.PAUSE,
    Command.RESUME,
    Command.READ_ONCE,
    Command.WANT_WRITABLE,
    Command.TIMEOUT,
    Command.SET,
    Command.ABORT,
)
SETTINGS = tuple(
    option << VALUE_BITS | value & (1 << VALUE_BITS) - 1
    for option, values in {
        Option.NODELAY: (0, 1),
        Option.QUICKACK: (0, 1),
        Option.CONGESTION: (0, 1),
        Option.KEEPALIVE: (1, 0),
        Option.KEEPIDLE: (1000, 30_000),
        Option.KEEPINTVL: (1000,),
        Option.KEEPCNT: (1, 3),
        Option.LINGER: (0, 500, -1),
        Option.RCVBUF: (0, 2048, 8192, 1 << 28),
        Option.SNDBUF: (0, 2048, 8192, 1 << 28),
        Option.USER_TIMEOUT: (0, 1000, 10_000),
        Option.MAXSEG: (64, 88, 536, 1460, 65_535),
        Option.TOS: (0xB8, 0),
        Option.TTL: (1, 255),
    }.items()
    for value in values
)


def hostile(stack: FuzzStack, arguments: Arguments) -> Hostile:
    peer = arguments.pick(list(stack.peers.values()))
    assert isinstance(peer, Hostile)
    return peer


def deliver(stack: FuzzStack, frame: bytes, arguments: Arguments) -> None:
    """Put a frame on the wire: once or twice, in one mbuf or more, damaged or not; then let things happen, or not yet."""
    how = arguments.byte()
    damage = arguments.byte()
    if damage:
        at, flip = arguments.word() % len(frame), arguments.byte()
        frame = frame[:at] + bytes([frame[at] ^ flip]) + frame[at + 1 :]
        if damage & 1:
            frame = frame[: arguments.word() % (len(frame) + 1)]
    for _ in range(2 if how & 4 else 1):
        stack.arrive(frame, 1 + (how >> 3 & 3))
    if not how & 1:
        stack._rest()


# -- time, the channel


def wait(stack: FuzzStack, arguments: Arguments) -> None:
    stack.wait(arguments.pick(WAITS_US))


def command(stack: FuzzStack, arguments: Arguments) -> None:
    """A command to one of the hostile connections that were ever given; now and then to another generation of it."""
    lives = [(handle, life) for handle, life in stack.lives.items() if life.honest is None]
    if not lives:
        return
    handle, life = lives[-1 - arguments.byte() % len(lives)]
    op = arguments.pick(COMMANDS)
    how = arguments.byte()
    if how & 2:
        stack.command(op, handle ^ 1 << 50, arguments.byte())
    elif op == Command.WRITE:
        stack.write(handle, life, arguments.pick(WRITES))
    else:
        life.is_shut |= op in (Command.SHUTDOWN, Command.CLOSE)
        choices = SETTINGS if op == Command.SET else (0, 100_000, 2_000_000)
        stack.command(op, handle, arguments.pick(choices))
    if not how & 1:
        stack._rest()


def accept(stack: FuzzStack, arguments: Arguments) -> None:
    stack.command(Command.ACCEPT, arguments.pick((1, 0, 2, 63, 64, 1 << 30)), arguments.pick((1, 0, 3)))
    stack._rest()


def stop_listening(stack: FuzzStack, arguments: Arguments) -> None:
    """A listener that no honest client needs ends; or it begins again."""
    number = arguments.pick((1, 2, 5))
    listeners = stack.core.arrays["listeners"]
    if number < 3 and not listeners.used[number]:
        listeners.used[number], listeners.accepts[number] = 1, arguments.pick((0, 1, 1 << 60))
        listeners.defer_ms[number] = arguments.pick((0, 500))
        return
    stack.command(Command.STOP_LISTENING, number)
    if not arguments.byte() & 1:
        stack._rest()


def open_actively(stack: FuzzStack, arguments: Arguments) -> None:
    """The stack asks for a connection to one of the peers that listen."""
    peer = arguments.pick([p for p in stack.peers.values() if isinstance(p, Hostile) and p.is_active])
    peer.iss, peer.snd_nxt = arguments.pick(INITIAL), 0
    handle = connect(stack.core.address, V4_MAPPED | ipv4(peer.ip), peer.port, peer.to_port)
    if handle >= 0:
        stack.lives[handle] = Life(peer)
    stack._rest()


# -- TCP


def open_passively(stack: FuzzStack, arguments: Arguments) -> None:
    """A handshake as it should be, whatever the flow was before; or only its SYN; or with data in its ACK."""
    peer = hostile(stack, arguments)
    options = peer.offer(arguments.pick(OFFERS))
    if peer.is_active:  # our SYN has come, perhaps: the peer answers it
        peer.snd_nxt = 0
        segment(stack, peer, "SA", 0, 0, 0, 65535, options)
        stack._rest()
        return
    peer.iss, peer.snd_nxt, peer.rcv_nxt = arguments.pick(INITIAL) + stack.at() // 4 & MASK, 0, 0
    how = arguments.byte()
    segment(stack, peer, "S", 0, 0, 0, 65535, options)
    stack._rest()
    if how % 4 != 3:
        segment(
            stack, peer, "A", 0, 0, arguments.pick((0, 5, 1460)), 65535 >> how % 8, peer.choose_options(Arguments(b""))
        )
        stack._rest()


def segment(
    stack: FuzzStack, peer: Hostile, flags: str, off: int, ack: int, length: int, window: int, options: bytes
) -> bytes:
    """A segment `off` from what comes next, with what belongs there; it arrives, unless it is to be changed first."""
    seq = peer.snd_nxt + off
    data = content(peer.iss + seq + ("S" in flags), length)
    frame = peer.frame(flags, seq=seq, ack=peer.rcv_nxt + ack, data=data, window=window, options=options[:40])
    stack.arrive(frame)
    if "S" in flags:
        peer.initial.append(peer.iss + seq & MASK)
    return frame


def near_segment(stack: FuzzStack, arguments: Arguments) -> None:
    """A segment that fits, or nearly."""
    peer = hostile(stack, arguments)
    flags = arguments.pick(FLAGS)
    seq, ack = peer.snd_nxt + arguments.near(), peer.rcv_nxt + arguments.near()
    length, window = arguments.pick(LENGTHS), arguments.pick(WINDOWS)
    options = peer.choose_options(arguments)[:40]
    keep, how = peer.snd_nxt, arguments.byte()
    data = content(peer.iss + seq + ("S" in flags), length)
    frame = peer.frame(flags, seq=seq, ack=ack, data=data, window=window, options=options)
    if how & 1 or seq != keep:  # off the stream: what comes next stays the same, mostly
        peer.snd_nxt = peer.snd_nxt if how & 2 else keep
    deliver(stack, frame, arguments)


def report_loss(stack: FuzzStack, arguments: Arguments) -> None:
    """The peer has a hole: some ACKs for what is before it, with a report of what is behind it where SACK is agreed."""
    peer = hostile(stack, arguments)
    tcb = stack.tcb_of(peer.ip, peer.to_port, peer.port)
    if tcb is None:
        return
    una, flight = int(tcb.snd_una), int(tcb.snd_nxt) - int(tcb.snd_una) & MASK
    mss = int(tcb.mss)
    before_it = arguments.byte() % 4 * mss // 2
    hole = arguments.pick((mss, mss // 2, 1, 2 * mss, 0))
    behind_it = arguments.pick((flight, mss, 2 * mss, 1))
    acked = una - peer.stack_iss + min(before_it, flight)
    start = before_it + hole
    blocks = struct.pack("!II", una + start & MASK, una + min(start + behind_it, max(flight, start + 1)) & MASK)
    if arguments.byte() & 1:  # and a duplicate, which is reported first (RFC 2883)
        blocks = struct.pack("!II", una - mss & MASK, una & MASK) + blocks
    options = b"\x01\x01\x05" + bytes((2 + len(blocks),)) + blocks if peer.sacks else b""
    for _ in range(arguments.pick((3, 1, 2, 4, 8))):
        stack.arrive(peer.frame("A", ack=acked, options=peer.choose_options(Arguments(b"")) + options))
        if arguments.byte() & 1:
            stack._rest()
    stack._rest()


def close_in_order(stack: FuzzStack, arguments: Arguments) -> None:
    """The stack closes, the peer acknowledges and closes as well, which ends in TIME_WAIT; or some of that."""
    peer = hostile(stack, arguments)
    parts = arguments.byte() ^ 15
    handles = [handle for handle, life in stack.lives.items() if life.peer is peer]
    if parts & 1 and handles:
        stack.lives[handles[-1]].is_shut = True
        stack.command(arguments.pick((Command.SHUTDOWN, Command.CLOSE)), handles[-1])
        stack._rest()
    for bit, flags in ((2, "A"), (4, "FA"), (8, "FA")):  # the last one again: TIME_WAIT starts anew
        if parts & bit:
            peer.snd_nxt -= bit == 8
            segment(stack, peer, flags, 0, 0, 0, 65535, peer.choose_options(Arguments(b"")))
            stack._rest()


def syn_with_options(stack: FuzzStack, arguments: Arguments) -> None:
    """A SYN with these very bytes as its options: what the backlog keeps of it is what an independent reading of them says."""
    peer = hostile(stack, arguments)
    peer.snd_nxt = peer.rcv_nxt = 0
    peer.iss = peer.iss + 1_000_000 & MASK
    options = arguments.rest()[:40]
    segment(stack, peer, "S", 0, 0, 0, 65535, peer.offer(options))
    stack._rest()
    said = parse_options(options + b"\0" * (-len(options) % 4))
    for kept in peer.kept_syns():
        assert said is not None, f"a SYN with malformed options was taken: {options.hex()}"
        mss = max(min(said.mss or 536, int(stack.core.record.mss)), 64)
        scale = -1 if said.scale is None else said.scale
        stamps = (0, 0) if said.timestamps is None else (1, said.timestamps[0])
        read = (kept.mss, kept.snd_scale, kept.sack_ok, kept.ts_ok, kept.ts_recent)
        assert read == (mss, scale, said.sack_permitted, *stamps), f"options {options.hex()} read as {read}"


# -- what goes on beside it


def honest(stack: FuzzStack, arguments: Arguments) -> None:
    """An honest client opens its connection, or sends; an honest server is asked for one, answers, or sends."""
    other = arguments.pick(stack.honest)
    if other.to_port == HONEST_SERVED and not other.handle:
        stack.ask_honest()
    elif other.client is None and other.reason is None:
        if other.to_port != HONEST_SERVED or other.syn is not None:
            other.open()
    other.send(arguments.pick((1000, 0, 1, 1460, 3000, 9000)))
    stack._rest()


def blind_segment(stack: FuzzStack, arguments: Arguments) -> None:
    """Somebody who knows an honest connection's four-tuple but not its numbers (RFC 5961): nothing may come of it."""
    target = arguments.pick(stack.honest)
    if not target.handle or target.reason is not None:
        return
    tcb = stack.tcbs[target.handle & 0xFFFFFF]
    rcv_nxt, window = int(tcb.rcv_nxt), max((int(tcb.rcv_adv) - int(tcb.rcv_nxt)) & MASK, 1)
    una, nxt, most = int(tcb.snd_una), int(tcb.snd_nxt), int(tcb.max_wnd)
    kind, spread = arguments.byte() % 5, arguments.word()
    seq, ack, flags, length = rcv_nxt + 1 + spread % (window + 8), una, "R", 0
    if kind == 1:
        seq, flags = rcv_nxt + arguments.near(), arguments.pick(("S", "SA", "SFA"))
    elif kind == 2:
        flags, length, ack = arguments.pick(("A", "PA", "FA")), 100, nxt + 1 + (spread << arguments.byte() % 14)
    elif kind == 3:
        flags, length, ack = arguments.pick(("A", "PA", "FA")), 100, una - most - 1 - (spread << arguments.byte() % 14)
    elif kind == 4:
        flags, length, seq = arguments.pick(("A", "PA", "FA", "RA")), 100, rcv_nxt + window + 100_000 + (spread << 14)
    if tcb.state == SYN_SENT:  # what acknowledges another SYN, or none where one must be
        flags = arguments.pick(("SA", "RA", "A", "R", "FA", "SFA"))
        ack = nxt + 1 + spread if kind & 1 else nxt - 1 - spread
    data = b"X" * length
    forged = Segment(target.port, target.to_port, seq, ack & MASK, flags, 65535, data, b"", HONEST_IP, stack.ip)
    target.is_forged(forged)
    deliver(stack, forged.frame(stack.wire.mac, MAC), Arguments(bytes([arguments.byte() & 5])))


def icmp_error(stack: FuzzStack, arguments: Arguments) -> None:
    """An ICMP error that quotes a segment of ours, or nearly: of a hostile connection, or of an honest one."""
    who = arguments.byte()
    kind, code = arguments.pick(
        ((3, 4), (3, 1), (3, 3), (3, 2), (3, 0), (4, 0), (11, 0), (12, 0), (3, 13), (5, 1), (8, 0))
    )
    mtu = arguments.pick((1400, 0, 68, 67, 296, 552, 576, 1280, 1492, 1500, 9000, 65_535))
    ip, sport, dport, seq = _flow(stack, who)
    quoted = Segment(sport, dport, seq + arguments.near() & MASK, 0, "A", source=stack.ip, destination=ip).packed()
    packet = ipv4_packet(
        stack.ip, ip, arguments.pick((6, 6, 6, 17, 1)), quoted, arguments.pick((0x4000, 0x4000, 0, 0x2000, 1))
    )
    total = arguments.pick((1500, 40, 1480, 576, 20, 65_535))
    packet = packet[:2] + struct.pack("!H", total) + packet[4:]
    cut = arguments.pick((28, 40, 48, 27, 20, 8, 0))
    message = icmp_message(kind, code, struct.pack("!HH", 0, mtu), packet[:cut])
    source = arguments.pick(("10.9.0.1", "10.9.0.77", "10.88.0.1", ip))
    deliver(stack, ethernet_frame(stack.wire.mac, MAC, 0x0800, ipv4_packet(source, stack.ip, 1, message)), arguments)


def _flow(stack: FuzzStack, who: int) -> tuple[str, int, int, int]:
    """The address of a peer, our port, its port, and our snd_una or near it."""
    ends = [(p.ip, p.to_port, p.port, p.stack_iss + p.rcv_nxt) for p in stack.peers.values()]
    ends += [(HONEST_IP, h.to_port, h.port, 0) for h in stack.honest if h.client is not None or h.to_port == 7]
    ip, local, remote, seq = ends[who % len(ends)]
    tcb = stack.tcb_of(ip, local, remote)
    return ip, local, remote, seq if tcb is None else int(tcb.snd_una)


def echo(stack: FuzzStack, arguments: Arguments) -> None:
    length = arguments.pick((8, 0, 1, 7, 56, 1472, 1473, 2040, 2041))
    message = icmp_message(8, 0, struct.pack("!HH", arguments.byte(), 1), content(0, length))
    deliver(stack, _packet(stack, message, 1, arguments), arguments)


def _packet(stack: FuzzStack, payload: bytes, protocol: int, arguments: Arguments, fragment: int = 0x4000) -> bytes:
    source = arguments.pick(("10.9.0.1", "10.9.0.4", "10.77.0.5", "10.9.0.255", "127.0.0.1", stack.ip))
    return ethernet_frame(stack.wire.mac, MAC, 0x0800, ipv4_packet(source, stack.ip, protocol, payload, fragment))


def arp(stack: FuzzStack, arguments: Arguments) -> None:
    sender = arguments.pick(("10.9.0.1", "10.9.0.4", "10.9.0.3", "10.9.0.50", stack.ip, "10.77.0.5", "0.0.0.0"))
    if sender == "10.9.0.4" and arguments.byte():
        sender = f"10.9.0.{100 + arguments.byte() % 100}"
    mac = arguments.pick((MAC, b"\x02\0\0\0\0\x77", b"\x03\0\0\0\0\x01", bytes(6)))
    if arguments.byte() & 1:
        frame = arp_reply(mac, sender, stack.wire.mac, stack.ip)
    else:
        frame = arp_request(mac, sender, arguments.pick((stack.ip, "10.9.0.9")))
    deliver(stack, frame, arguments)


def neighbours_answer(stack: FuzzStack, arguments: Arguments) -> None:
    """From now on ARP requests are answered: all, none, or those for the honest clients."""
    stack.answer_arp = arguments.pick(("*", None, "10.9.0.50"))


# -- IP


def fragments(stack: FuzzStack, arguments: Arguments) -> None:
    """A datagram in fragments, cut and ordered as the arguments say: an echo request, or a segment that fits."""
    length, identification = arguments.pick((64, 200, 1400, 1480, 24, 1481, 4000)), arguments.byte() % 8
    if arguments.byte() & 1:
        peer = hostile(stack, arguments)
        keep = peer.snd_nxt
        options = peer.choose_options(arguments)[:40]
        made = peer.segment("PA", data=content(peer.iss + keep, length), options=options)
        source, protocol, payload = peer.ip, 6, made.packed()
        peer.snd_nxt = keep + (length if arguments.byte() & 1 == 0 else 0)
    else:
        source, protocol = "10.9.0.1", 1
        payload = icmp_message(8, 0, struct.pack("!HH", identification, 2), content(0, length))
    unit, order, skip, double = (arguments.byte() for _ in range(4))
    size = 8 * (1 + unit % 64) if unit else 8 * (-(-len(payload) // 16))
    starts = list(range(0, len(payload), size))[:40]
    if order & 1:
        starts.reverse()
    if order & 2:
        starts = starts[1::2] + starts[::2]
    for number, start in enumerate(starts):
        if skip and number == skip - 1:
            continue
        more = 0x2000 if start + size < len(payload) else 0
        part = payload[start : start + size]
        packet = ipv4_packet(source, stack.ip, protocol, part, more | start // 8, b"", identification)
        for _ in range(2 if double and number == double - 1 else 1):
            stack.arrive(ethernet_frame(stack.wire.mac, MAC, 0x0800, packet))
    stack._rest()


def fragment(stack: FuzzStack, arguments: Arguments) -> None:
    """One fragment, of whatever."""
    identification, protocol = arguments.pick((0, 0, 0, 1, 2, 39, arguments.byte())), arguments.pick((1, 6, 17))
    offset = arguments.pick((0, 1, 2, 3, 4, 8, 12, 8, 100, 8100, 8189, 8190, 8191))
    more = arguments.pick((0x2000, 0, 0x8000, 0x6000))
    length = arguments.pick((64, 8, 16, 24, 0, 1, 100, 1480, 63))
    options = arguments.pick((b"", b"\x01" * 4, b"\x07\x07\x04\0\0\0\0\0", b"\x83\x07\x04\0\0\0\0\0", b"\x01" * 40))
    data = content(arguments.byte() << 8, length)
    packet = ipv4_packet("10.9.0.1", stack.ip, protocol, data, more | offset, options, identification)
    deliver(stack, ethernet_frame(stack.wire.mac, MAC, 0x0800, packet), arguments)


def raw(stack: FuzzStack, arguments: Arguments) -> None:
    """Bytes as they are, behind headers that are right as far as the first argument says."""
    layer, how = arguments.byte() % 7, arguments.byte()
    data = arguments.rest()
    if layer == 0:
        frame = data
    elif layer == 1:
        frame = ethernet_frame(stack.wire.mac, MAC, 0x0800, data)
    elif layer == 2:
        frame = ethernet_frame(stack.wire.mac, MAC, 0x0800, _with_ip_checksum(stack, data))
    elif layer == 3:
        frame = ethernet_frame(stack.wire.mac, MAC, 0x0800, ipv4_packet("10.9.0.1", stack.ip, how, data))
    elif layer == 4:
        frame = ethernet_frame(stack.wire.mac, MAC, 0x0806, data)
    elif layer == 5:
        message = data[:2] + b"\0\0" + data[4:]
        message = message[:2] + struct.pack("!H", internet_checksum(message)) + message[4:]
        frame = ethernet_frame(stack.wire.mac, MAC, 0x0800, ipv4_packet("10.9.0.1", stack.ip, 1, message))
    else:
        frame = ethernet_frame(
            stack.wire.mac, MAC, 0x0800, ipv4_packet("10.9.0.1", stack.ip, 6, _with_tcp_checksum(stack, data))
        )
    deliver(stack, frame, Arguments(bytes([how & 0x1D])))


def _with_ip_checksum(stack: FuzzStack, data: bytes) -> bytes:
    """A packet to us whose header checksum is right, if it is long enough to have one."""
    if len(data) < 20:
        return data
    length = min((data[0] & 15) * 4, len(data))
    header = data[:10] + b"\0\0" + data[12:16] + address(stack.ip) + data[20:length]
    if length < 20:
        return header + data[20:]
    return header[:10] + struct.pack("!H", internet_checksum(header)) + header[12:] + data[length:]


def _with_tcp_checksum(stack: FuzzStack, data: bytes) -> bytes:
    if len(data) < 18:
        return data
    pseudo = address("10.9.0.1") + address(stack.ip) + struct.pack("!BBH", 0, 6, len(data))
    data = data[:16] + b"\0\0" + data[18:]
    return data[:16] + struct.pack("!H", internet_checksum(pseudo + data)) + data[18:]


# -- the device


def starve(stack: FuzzStack, arguments: Arguments) -> None:
    """The device's pool of mbufs runs low, or recovers."""
    stack.leave_mbufs(arguments.pick((1 << 16, 0, 1, 33, 64)))
