"""Who is at the other end: hostile peers, which say nearly the right thing, and honest ones, whose streams must arrive intact."""

from __future__ import annotations

from collections import deque
from typing import Any

from peer import MASK, MSS_1460, SACK_PERMITTED, SCALE_7, Peer, TestedStack, pattern, timestamps

from fuzz.script import Arguments
from mpserve.testing.client import Client
from mpserve.testing.segment import Segment

OFFERS = (
    MSS_1460 + SCALE_7,
    b"",
    MSS_1460 + SCALE_7 + SACK_PERMITTED,
    MSS_1460 + SCALE_7 + SACK_PERMITTED + timestamps(1),
    MSS_1460 + timestamps(0xFFFF_FFF0),
    b"\x02\x04\x00\x01" + SACK_PERMITTED,
    b"\x02\x04\x00\x58" + b"\x03\x03\x0e\x00",
)
WINDOW = 1 << 14  # an honest client's, and it never closes
INITIAL = (0xFFFF_F000, 1000, 0x7FFF_FF00, 0xFFFF_FFFF, 0)


def content(seq: int, length: int) -> bytes:
    """What every hostile peer sends at these sequence numbers, in whichever connection."""
    seq &= MASK
    first = min(length, MASK + 1 - seq)
    return pattern(first, seq) + (pattern(length - first) if length > first else b"")


class Hostile(Peer):
    """A flow whose segments nearly fit. `is_active`: the stack opens it."""

    def __init__(self, stack: TestedStack, *, is_active: bool = False, **where: Any) -> None:
        super().__init__(stack, **where)
        self.is_active = is_active
        self.reset()

    def reset(self) -> None:
        self.iss, self.window = INITIAL[0], 65535
        self.snd_nxt = self.rcv_nxt = self.stack_iss = self.handle = 0
        self.inbox.clear()
        self.events.clear()
        self.initial: deque[int] = deque(maxlen=32)  # sequence numbers of the SYNs that it has sent
        self.stack_initial: deque[int] = deque(maxlen=32)  # ... and seen
        self.stamps = self.sacks = False
        self.echo = 0

    def offer(self, options: bytes) -> bytes:
        """What it offers in a SYN is what its later segments have."""
        self.stamps, self.sacks = b"\x08\x0a" in options, SACK_PERMITTED[2:] in options
        return options

    def follow(self) -> None:
        """Acknowledge, next time, what it has seen."""
        for _, segment in self.inbox:
            stamp = segment.option(8)
            if stamp is not None:
                self.echo = int.from_bytes(stamp[:4], "big")
            if "R" in segment.flags:
                continue
            if "S" in segment.flags:
                self.stack_iss, self.rcv_nxt = segment.seq, 1
                self.stack_initial.append(segment.seq)
                self.snd_nxt = (segment.ack - self.iss) & MASK if "A" in segment.flags else 0
            else:
                length = len(segment.payload) + ("F" in segment.flags)
                self.rcv_nxt = (segment.seq - self.stack_iss + length) & MASK
        self.inbox.clear()

    def kept_syns(self) -> Any:
        """What the backlog holds of its last SYN."""
        syns = self._mine("syns")
        return syns[(syns.used == 1) & (syns.irs == self.iss)]

    def choose_options(self, arguments: Arguments) -> bytes:
        """A segment's options: as agreed by default, timestamps a little off, SACK blocks near what is in flight, or bytes."""
        kind = arguments.byte() % 8
        now = self.stack.now // 1000
        if kind == 1:
            return timestamps(now + arguments.near(), self.echo + arguments.near())
        if kind == 2 or (kind == 0 and self.sacks and arguments.byte() % 4 == 3):
            return self._stamp(now) + self._sack_blocks(arguments)
        if kind == 3:
            return b""
        if kind == 4:
            return arguments.rest()[:40]
        if kind == 5:
            return arguments.pick(OFFERS)
        return self._stamp(now)

    def _stamp(self, now: int) -> bytes:
        return timestamps(now, self.echo) if self.stamps else b""

    def _sack_blocks(self, arguments: Arguments) -> bytes:
        count = 1 + arguments.byte() % (3 if self.stamps else 4)
        blocks, at = b"", self.stack_iss + self.rcv_nxt
        for _ in range(count):
            at += arguments.near()
            end = at + arguments.pick((1, 100, 536, 1460, 2920)) + arguments.near()
            blocks += (at & MASK).to_bytes(4, "big") + (end & MASK).to_bytes(4, "big")
        return b"\x01\x01\x05" + bytes([2 + 8 * count]) + blocks


HONEST_IP = "10.9.0.50"


class Honest:
    """A client that does everything right, and what the server has had of its stream; the server sends as much back."""

    def __init__(self, stack: TestedStack, port: int, to_port: int = 7) -> None:
        self.stack, self.port, self.to_port = stack, port, to_port
        self.reset()

    def reset(self) -> None:
        self.client: Client | None = None
        self.syn: Segment | None = None  # what it could answer
        self.sent = self.taken = self.returned = 0  # bytes of the client's stream; of the server's that the client has
        self.written = 0
        self.handle = 0
        self.reason: int | None = None
        self.answers: set[tuple[int, int]] = set()  # seq and ack of the RSTs that segments forged in its name may bring
        self.closing = False

    def open(self) -> None:
        """Ask for the connection, or answer the stack's SYN."""
        where, to = (HONEST_IP, self.port), (self.stack.ip, self.to_port)
        self.client = Client(self._transmit, local=where, remote=to, window=WINDOW, syn=self.syn)

    def _transmit(self, segment: Segment) -> None:
        self.stack.wire.deliver(segment.frame(self.stack.wire.mac, b"\x02\0\0\0\0\x50"))

    def send(self, length: int) -> None:
        if self.client is not None and not self.closing:
            self.client.send(pattern(length, self.sent))
            self.sent += length

    def arrives(self, segment: Segment) -> None:
        if self.client is None:
            self.syn = segment if segment.flags == "S" else None
            return
        end = segment.seq + len(segment.payload) - self.client._rcv_nxt & MASK
        in_window = end <= WINDOW or end > MASK // 2 or "S" in segment.flags
        assert in_window or self._is_answer_to_forgery(segment), f"honest client: beyond its window: {segment}"
        self.client.arrives(segment, self.stack.now / 1e6)
        got = self.client.recv()
        assert got == pattern(len(got), self.returned), f"honest client: not what was written at {self.returned}"
        self.returned += len(got)

    def is_forged(self, segment: Segment) -> None:
        """Somebody sends this in its name. A RST that answers it has its numbers, not the connection's (RFC 9293 section 3.5.2)."""
        length = len(segment.payload) + ("S" in segment.flags) + ("F" in segment.flags)
        self.answers.add((segment.ack, 0) if "A" in segment.flags else (0, segment.seq + length & MASK))

    def _is_answer_to_forgery(self, segment: Segment) -> bool:
        return "R" in segment.flags and not segment.payload and (segment.seq, segment.ack) in self.answers

    def accepted(self, handle: int) -> None:
        """The server gets the connection, whose stream begins."""
        self.handle = handle
        self.taken = self.written = 0

    def takes(self, data: bytes) -> None:
        """The server's handler gets data."""
        assert data == pattern(len(data), self.taken), f"honest client: not what was sent at {self.taken}"
        self.taken += len(data)

    @property
    def is_served(self) -> bool:
        """All that was sent has arrived, and come back."""
        return self.client is None or (self.client.established and self.sent == self.taken == self.returned)
