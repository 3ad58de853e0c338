"""The other end of a test's wire: a stack in virtual time, and peers that say what arrives when and what must leave.

    peer = Peer(stack)
    peer.send(0, flags="S", options=MSS_1460)      # at 0 us this segment arrives
    peer.recv(0, flags="SA", ack=1)                # by 0 us this one has left
    peer.nothing(999_000)                          # until then, none

Times are microseconds from the stack's start. Sequence numbers are relative: a peer's `seq` and the stack's `ack` count
from the peer's ISS, the stack's `seq` and the peer's `ack` from the stack's. The stack's wheel turns every 1024 us, so what
a timer sends is expected by `deadline + TICK`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mpserve.dataplane.events import Command, Event
from mpserve.dataplane.limits import Limits
from mpserve.dataplane.tcp.state import State
from mpserve.testing.segment import Segment, arp_reply, parse_tcp
from mpserve.testing.stack import Stack, StackEvent

MASK = 0xFFFFFFFF
TICK = 2048
MSS_1460 = b"\x02\x04\x05\xb4"
SCALE_7 = b"\x01\x03\x03\x07"
SACK_PERMITTED = b"\x01\x01\x04\x02"
MAC = b"\x02\x00\x00\x00\x00\x01"
SMALL: dict[str, Any] = dict(
    max_connections=32,
    syn_backlog=8,
    accept_queue=4,
    time_wait=16,
    neighbors=16,
    blocks=512,
    event_batch=64,
    rcvbuf_max_bytes=0,
    sndbuf_max_bytes=0,
)


def timestamps(value: int, echo: int = 0) -> bytes:
    """A timestamps option as nearly every stack lays it out."""
    return b"\x01\x01\x08\x0a" + struct.pack("!II", value & MASK, echo & MASK)


def pattern(length: int, start: int = 0) -> bytes:
    """Bytes `start` to `start + length` of a stream in which every place looks different."""
    words = np.arange(start // 4, (start + length) // 4 + 1, dtype=np.uint32)
    stream = (words * np.uint32(0x9E3779B1)).astype(">u4").tobytes()
    return stream[start % 4 : start % 4 + length]


# Selective acknowledgment, in the segments of 1460 bytes that the stack sends.


def report(peer: Peer, *ranges: tuple[int, int]) -> bytes:
    """A SACK option of segments [first, last) of the stack's data; of what is acknowledged it is a D-SACK."""
    numbers = [peer.stack_iss + 1 + 1460 * n & MASK for pair in ranges for n in pair]
    return b"\x01\x01\x05" + bytes([2 + 4 * len(numbers)]) + struct.pack(f"!{len(numbers)}I", *numbers)


def acks(peer: Peer, at_us: int, segments: int, *ranges: tuple[int, int]) -> None:
    """At this time, the stack's first `segments` segments are acknowledged, these ranges reported."""
    peer.send(at_us, ack=1 + segments * 1460, options=report(peer, *ranges) if ranges else b"")


def blocks(peer: Peer, segment: Segment) -> list[tuple[int, int]]:
    """The (start, end) pairs of the SACK option in a segment of the stack, relative."""
    option = segment.option(5) or b""
    numbers = [(number - peer.iss) & MASK for number in struct.unpack(f"!{len(option) // 4}I", option)]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


class TestedStack(Stack):
    """A stack whose frames are sorted by peer, and whose time jumps from deadline to deadline."""

    __test__ = False

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**SMALL, **settings})
        self.start = self.now
        self.peers: dict[tuple[str, int], Peer] = {}
        self.events: list[StackEvent] = []
        self.other_frames: list[bytes] = []  # what is not TCP for a peer
        self.last_frame = b""  # to a peer
        self.answer_arp: str | None = None  # the address whose ARP requests are answered, "*" for all

    def at(self) -> int:
        """Microseconds since the start."""
        return self.now - self.start

    def run(self, at_us: int, until_one_of: list[Any] | None = None) -> None:
        """Let everything happen up to this time, or until something is in that list."""
        while True:
            self._rest()
            until = self.start + at_us
            if self.now >= until or until_one_of:
                return
            self.now = min(until, self._next_deadline())

    def _next_deadline(self) -> int:
        timers = self.core.arrays["timers"]
        armed = timers.deadline[timers.armed == 1]
        if not len(armed):
            return max(self.next_release, self.now + 1)
        tick = max(int(armed.min()) >> 10, int(self.core.record.wheel_tick) + 1)
        return max(min((tick + 1) << 10, self.next_release), self.now + 1)

    def _rest(self) -> None:
        for _ in range(1000):
            self._take(self.settle())
            if not self._sort(self.wire.collect()):
                return
        raise AssertionError("stack and peers do not come to rest")

    def _take(self, events: list[StackEvent]) -> None:
        self.events += events
        for event in events:
            for peer in self.peers.values():
                peer.saw(event)

    def _sort(self, frames: list[bytes]) -> bool:
        """Give each frame to its peer; whether any peer has answered."""
        answered = False
        for frame in frames:
            segment = parse_tcp(frame)
            peer = self.peers.get((segment.destination, segment.dport)) if segment else None
            if peer is not None and segment is not None:
                peer.inbox.append((self.at(), segment))
                self.last_frame = frame
            else:
                self.other_frames.append(frame)
                answered |= self._answer(frame)
        return answered

    def _answer(self, frame: bytes) -> bool:
        target = ".".join(map(str, frame[38:42]))
        if frame[12:14] != b"\x08\x06" or frame[21] != 1 or self.answer_arp not in ("*", target):
            return False
        return self.wire.deliver(arp_reply(MAC, target, self.wire.mac, self.ip))

    def give(self, *frames: bytes) -> None:
        """These frames arrive now, in one burst."""
        for frame in frames:
            assert self.wire.deliver(frame)
        self._rest()

    def ask(self, op: Command, handle: int, payload: bytes | int = b"") -> None:
        """Execute a command now."""
        self.command(op, handle, payload)
        self._rest()

    def leaks(self) -> list[str]:
        """End every connection, let all waits run out, and name the pools that are not full again."""
        record, arrays = self.core.record, self.core.arrays
        for slot, tcb in enumerate(arrays["tcbs"]):
            if tcb.state != State.CLOSED:
                self.command(Command.ABORT, int(tcb.generation) << 24 | slot)
        for number in map(int, np.flatnonzero(arrays["listeners"].used)):
            self.command(Command.ACCEPT, number, 1 << 40)
        self._rest()
        for slot, tcb in enumerate(arrays["tcbs"]):
            if tcb.state != State.CLOSED:
                self.command(Command.ABORT, int(tcb.generation) << 24 | slot)
        self._rest()
        if record.free_syn_count < record.syn_count or record.wait_used > 0:
            self.run(self.at() + 100_000_000)
        self.turn()
        full = {
            "slots": (record.free_slot_count, record.connections),
            "blocks": (record.free_block_count, record.block_count),
            "syns": (record.free_syn_count, record.syn_count),
            "sent ranges": (record.free_sent_count, record.sent_count),
            "senders": (record.senders, 0),
            "time waits": (record.wait_used, 0),
            "mbufs": (self.wire.mbufs_free + record.spare_count + self.held, self.wire.mbufs),
            "flows": (arrays["flows"].value.any(), False),
            "syn flows": (arrays["syn_flows"].value.any(), False),
            "wait flows": (arrays["wait_flows"].value.any(), False),
            "wheel": ((arrays["wheel"].value != -1).any(), False),
            "lists": (record.output_count + record.delayed_count + record.notify_count + record.control_count, 0),
            "distinct slots": (len(set(arrays["free_slots"].value.tolist())), record.connections),
            "distinct blocks": (len(set(arrays["free_blocks"].value.tolist())), record.block_count),
            "faults": (record.fault, 0),
        }
        return [f"{name}: {int(got)}, not {int(want)}" for name, (got, want) in full.items() if got != want]


class Peer:
    """One flow to the stack. Nothing is automatic: it sends what it is told, and its acknowledgments default to what it saw."""

    def __init__(
        self,
        stack: TestedStack,
        *,
        ip: str = "10.9.0.1",
        port: int | None = None,
        iss: int = 0xFFFF_F000,
        window: int = 65535,
        to_port: int | None = None,
    ) -> None:
        self.stack, self.ip, self.port = stack, ip, port or 40_000 + len(stack.peers)
        self.iss, self.window, self.to_port = iss, window, to_port or stack.port
        self.snd_nxt = self.rcv_nxt = 0  # relative
        self.stack_iss = 0
        self.handle = 0
        self.received_at = 0
        self.options = b""
        self.inbox: list[tuple[int, Segment]] = []
        self.events: list[StackEvent] = []
        stack.peers[ip, self.port] = self

    # -- segments in

    def segment(self, flags: str = "A", seq: int | None = None, ack: int | None = None, **fields: Any) -> Segment:
        """A segment of this flow with relative numbers; the next ones by default."""
        seq = self.snd_nxt if seq is None else seq
        payload = fields.pop("data", b"")
        ack = (self.stack_iss + (self.rcv_nxt if ack is None else ack)) if "A" in flags else 0
        fields.setdefault("window", self.window)
        length = len(payload) + ("S" in flags) + ("F" in flags)
        self.snd_nxt = max(self.snd_nxt, seq + length)
        return Segment(
            self.port, self.to_port, self.iss + seq, ack, flags, payload=payload, source=self.ip,
            destination=self.stack.ip, **fields,
        )  # fmt: skip

    def frame(self, *arguments: Any, **fields: Any) -> bytes:
        return self.segment(*arguments, **fields).frame(self.stack.wire.mac, MAC)

    def send(self, at_us: int, flags: str = "A", **fields: Any) -> None:
        """At this time the segment arrives."""
        self.stack.run(at_us)
        self.stack.give(self.frame(flags, **fields))

    def burst(self, at_us: int, *segments: dict[str, Any]) -> None:
        """At this time these segments arrive, in one burst."""
        self.stack.run(at_us)
        self.stack.give(*[self.frame(**fields) for fields in segments])

    # -- segments out

    def recv(self, at_us: int | None = None, **expected: Any) -> Segment:
        """By this time (or by now) a segment leaves: the next one, with these fields. Time goes on until it does."""
        self.stack.run(self.stack.at() if at_us is None else at_us, self.inbox)
        assert self.inbox, f"no segment has left by {at_us} us"
        self.received_at, segment = self.inbox.pop(0)
        if "S" in segment.flags:
            self.stack_iss = segment.seq
        seen = self.relative(segment)
        assert {name: seen[name] for name in expected} == expected, f"left: {seen}"
        length = len(segment.payload) + ("S" in segment.flags) + ("F" in segment.flags)
        if seen["seq"] <= self.rcv_nxt < seen["seq"] + length:
            self.rcv_nxt = seen["seq"] + length
        return segment

    def relative(self, segment: Segment) -> dict[str, Any]:
        """A segment's fields as `recv` compares them."""
        return {
            "flags": segment.flags,
            "seq": (segment.seq - self.stack_iss) & MASK,
            "ack": (segment.ack - self.iss) & MASK if "A" in segment.flags else 0,
            "window": segment.window,
            "data": segment.payload,
            "length": len(segment.payload),
            "mss": segment.mss(),
            "scale": segment.window_scale(),
        }

    def nothing(self, at_us: int | None = None) -> None:
        """Until this time (or by now) nothing more has left."""
        self.stack.run(self.stack.at() if at_us is None else at_us)
        assert not self.inbox, f"left: {[(at, self.relative(s)) for at, s in self.inbox]}"

    def drain(self, at_us: int | None = None) -> list[dict[str, Any]]:
        """All segments that have left by this time."""
        self.stack.run(self.stack.at() if at_us is None else at_us)
        left = []
        while self.inbox:
            left.append(self.relative(self.recv()))
        return left

    # -- the channel's side

    def saw(self, event: StackEvent) -> None:
        if event.kind == Event.ACCEPT:
            conn = self.stack.core.arrays["conns"][event.slot]
            if int(conn.ports) == self._ports and int(conn.remote) & MASK == self._address:
                self.handle = event.handle
        if event.handle == self.handle:
            self.events.append(event)

    def ask(self, op: Command, payload: bytes | int = b"") -> None:
        """A command of the connection's handle, executed now."""
        self.stack.ask(op, self.handle, payload)

    def write(self, data: bytes) -> None:
        self.ask(Command.WRITE, data)

    def take(self) -> bytes:
        """The data of the READ events since the last call; they are taken out of `events`."""
        data = b"".join(event.data for event in self.events if event.kind == Event.READ)
        self.events = [event for event in self.events if event.kind != Event.READ]
        return data

    def kinds(self) -> list[Event]:
        """The kinds of the events since the last call."""
        kinds = [event.kind for event in self.events]
        self.events = []
        return kinds

    def closed_reason(self) -> int | None:
        """The reason of the one CLOSED event, or None if there was none."""
        ends = [event.a for event in self.events if event.kind == Event.CLOSED]
        assert len(ends) < 2, "closed twice"
        return ends[0] if ends else None

    # -- states

    @property
    def _ports(self) -> int:
        return self.port << 16 | self.to_port

    @property
    def _address(self) -> int:
        return int.from_bytes(bytes(map(int, self.ip.split("."))), "big")

    def _mine(self, name: str) -> Any:
        table = self.stack.core.arrays[name]
        return table[(table.ports == self._ports) & (table.remote & MASK == self._address)]

    @property
    def slot(self) -> int:
        return self.handle & 0xFFFFFF

    @property
    def tcb(self) -> Any:
        return self.stack.core.arrays["tcbs"][self.slot]

    @property
    def conn(self) -> Any:
        return self.stack.core.arrays["conns"][self.slot]

    @property
    def room(self) -> int:
        """Bytes of the stack's receive window that are open."""
        return (int(self.tcb.rcv_adv) - int(self.tcb.rcv_nxt)) & MASK

    @property
    def state(self) -> State:
        """The state that the stack holds this flow in."""
        if (self._mine("syns").used == 1).any():
            return State.SYN_RECEIVED
        if (self._mine("time_waits").until != 0).any():
            return State.TIME_WAIT
        return State(int(self.tcb.state)) if self.handle else State.CLOSED

    def establish(self, options: bytes = MSS_1460 + SCALE_7, *, ack_window: int | None = None) -> Peer:
        """ESTABLISHED, now."""
        self.reach(State.SYN_RECEIVED, options)
        window = self.window if ack_window is None else ack_window
        self.send(self.stack.at(), flags="A", window=window)
        self.nothing()
        return self

    def reach(self, state: State, options: bytes = MSS_1460 + SCALE_7) -> Peer:
        """Bring the connection into a state, now."""
        _ROADS[state](self, options)
        return self

    def _syn_received(self, options: bytes) -> None:
        self.send(self.stack.at(), flags="S", seq=0, options=options)
        self.recv(flags="SA", seq=0, ack=1)

    def _fin_wait_1(self, options: bytes) -> None:
        self.establish(options)
        self.ask(Command.SHUTDOWN)
        self.recv(flags="FA", seq=1, ack=1)

    def _fin_wait_2(self, options: bytes) -> None:
        self._fin_wait_1(options)
        self.send(self.stack.at())
        self.nothing()

    def _close_wait(self, options: bytes) -> None:
        self.establish(options)
        self.send(self.stack.at(), flags="FA")
        self.recv(flags="A", ack=2)

    def _last_ack(self, options: bytes) -> None:
        self._close_wait(options)
        self.ask(Command.SHUTDOWN)
        self.recv(flags="FA", seq=1, ack=2)

    def _closing(self, options: bytes) -> None:
        self._fin_wait_1(options)
        self.send(self.stack.at(), flags="FA", ack=1)
        self.recv(flags="A", ack=2)

    def _time_wait(self, options: bytes) -> None:
        self._fin_wait_2(options)
        self.send(self.stack.at(), flags="FA")
        self.recv(flags="A", seq=2, ack=2)


_ROADS: dict[State, Callable[[Peer, bytes], object]] = {
    State.SYN_RECEIVED: Peer._syn_received,
    State.ESTABLISHED: Peer.establish,
    State.FIN_WAIT_1: Peer._fin_wait_1,
    State.FIN_WAIT_2: Peer._fin_wait_2,
    State.CLOSE_WAIT: Peer._close_wait,
    State.CLOSING: Peer._closing,
    State.LAST_ACK: Peer._last_ack,
    State.TIME_WAIT: Peer._time_wait,
}
_OPENING = (Event.ACCEPT, Event.CONNECT)
SYNCHRONIZED = [state for state in _ROADS if state not in (State.SYN_RECEIVED, State.TIME_WAIT)]


class Watch:
    """What the events of each handle must look like: ACCEPT or CONNECT first, READ before EOF, CLOSED last and once."""

    def __init__(self, stack: TestedStack) -> None:
        self.stack, self.seen = stack, 0
        self.ended: dict[int, list[Event]] = {}

    def look(self) -> list[int]:
        """Check the new events; the handles that are open."""
        for event in self.stack.events[self.seen :]:
            before = self.ended.setdefault(event.handle, [])
            opens, is_open = event.kind in _OPENING, any(kind in _OPENING for kind in before)
            early = event.kind in (Event.TIMEOUT, Event.WRITABLE)  # of a handle that connects
            assert opens != is_open or early, (event, before)
            assert Event.CLOSED not in before, (event, before)
            assert event.kind not in (Event.READ, Event.EOF) or Event.EOF not in before, (event, before)
            before.append(event.kind)
        self.seen = len(self.stack.events)
        return [handle for handle, kinds in self.ended.items() if kinds[-1] != Event.CLOSED]


def stacks() -> Iterator[Callable[..., TestedStack]]:
    """What the fixture `make_stack` yields: a maker of stacks, each checked for leaks when the test is over."""
    made: list[TestedStack] = []

    def make(**settings: Any) -> TestedStack:
        made.append(TestedStack(**settings))
        return made[-1]

    yield make
    leaks = [stack.leaks() for stack in made]
    for stack in made:
        stack.close()
    assert not any(leaks), leaks


assert set(SMALL) <= set(Limits.__dataclass_fields__)
