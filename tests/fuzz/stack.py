"""The stack under the fuzzer: rewound in place, its frames checked as they leave, its handler played by `Life`."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from peer import MASK, TestedStack, Watch, pattern

from fuzz.door import Door, Verdict
from fuzz.outgoing import check_outgoing
from fuzz.peers import HONEST_IP, Honest, Hostile, content
from mpserve.dataplane.core import ipv4
from mpserve.dataplane.events import SLOT_MASK, Command, Event
from mpserve.dataplane.layout import V4_MAPPED
from mpserve.dataplane.memory import rows
from mpserve.dataplane.tcp import flags
from mpserve.dataplane.tcp.connect import connect
from mpserve.dataplane.tcp.state import CLOSED, ESTABLISHED
from mpserve.testing.segment import Segment
from mpserve.testing.stack import StackEvent

HONEST_SERVED = 20_002  # our port of the connection that the stack asks an honest server for
# Rewinding leaves these as they are: nothing reads what it has not written.
_NOT_REWOUND = ("datagram_data", "fragments", "arena", "scratch", "sents", "blocks")


@dataclass
class Life:
    """A connection as its handler knows it: what it has read and written."""

    peer: Hostile | None
    honest: Honest | None = None
    written: int = 0
    is_shut: bool = False
    position: int | None = None  # the sequence number behind what was read
    fresh: bytearray = field(default_factory=bytearray)


class FuzzStack(TestedStack):
    """A TestedStack with hostile and honest peers that can be used again and again."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.core.record = rows(self.core.arrays["core"])[0]
        self.core.counters = rows(self.core._kept[-1])[0]
        self.wire._wire = rows(self.wire._arrays["wire"])[0]
        self.tcbs, self.conns = rows(self.core.arrays["tcbs"]), rows(self.core.arrays["conns"])
        self.honest = [Honest(self, 50_000), Honest(self, 50_001), Honest(self, 50_002, HONEST_SERVED)]
        self.door = Door(self.ip, self.wire.mac, self.wire.mtu, settings.get("fragments") != "refuse")
        self._saved: dict[str, Any] = {}

    def save(self) -> None:
        """Remember this state for `rewind`."""
        arrays = {**self.core.arrays, "counters": self.core._kept[-1], **self.wire._arrays}
        self._arrays = {name: array for name, array in arrays.items() if name not in _NOT_REWOUND and name != "memory"}
        self._saved = {name: copy.copy(array) for name, array in self._arrays.items()}

    def rewind(self) -> None:
        """Everything as it was when it was saved."""
        for name, array in self._arrays.items():
            array[...] = self._saved[name]
        self._pending = self._argument_at = 0
        self.events.clear()
        self.other_frames.clear()
        self.last_frame, self.answer_arp = b"", "*"
        for peer in (*self.peers.values(), *self.honest):
            peer.reset()  # type: ignore[union-attr]
        self.watch = Watch(self)
        self.lives: dict[int, Life] = {}
        self.door.clear()
        self.expected: Counter[str] = Counter()
        self.echoes: Counter[bytes] = Counter()
        self.passed = 0  # frames that got past the door, to TCP or to the look at a quote
        self.held_mbufs: list[int] = []
        self.edges: dict[int, tuple[int, int, int]] = {}

    # -- frames in

    def arrive(self, frame: bytes, segments: int = 1) -> Verdict | None:
        """Put a frame on the wire, and note what has to become of it; None if the device has no mbuf for it."""
        if not self.wire.deliver(frame, segments):
            return None
        verdict = self.door.arrives(frame, self.now)
        if verdict.drop:
            self.expected[verdict.drop] += 1
        self.expected["fragments_received"] += verdict.fragment
        self.passed += verdict.tcp or verdict.error
        if verdict.echo:
            self.echoes[verdict.echo[4:]] += 1
        return verdict

    def ask_honest(self) -> None:
        """Ask the honest server for a connection."""
        server = self.honest[-1]
        handle = connect(self.core.address, V4_MAPPED | ipv4(HONEST_IP), server.port, server.to_port)
        if handle >= 0:
            server.handle = handle
            self.lives[handle] = Life(None, server)

    def write(self, handle: int, life: Life, length: int) -> None:
        """The handler writes the next bytes of its stream, unless it has shut it."""
        if not self.batch_is_full and not life.is_shut:
            self.command(Command.WRITE, handle, pattern(length, life.written))
            life.written += length

    def check_edges(self) -> None:
        """What has been acknowledged stays so, and a window's right edge never moves left (RFC 9293 section 3.8.6)."""
        for slot in map(int, (self.core.arrays["tcbs"].state >= ESTABLISHED).nonzero()[0]):
            tcb = self.tcbs[slot]
            handle, edges = int(tcb.generation) << 24 | slot, (int(tcb.snd_una), int(tcb.rcv_nxt), int(tcb.rcv_adv))
            for now, before in zip(edges, self.edges.get(handle, edges), strict=True):
                assert (now - before) & MASK < 1 << 31, (
                    f"slot {slot}: snd_una, rcv_nxt, rcv_adv = {edges}, back from {before}"
                )
            self.edges[handle] = edges

    def tcb_of(self, ip: str, local_port: int, remote_port: int) -> Any:
        """The TCB of a connection, None if it has none."""
        conns, ports = self.core.arrays["conns"], remote_port << 16 | local_port
        far = int.from_bytes(bytes(map(int, ip.split("."))), "big")
        live = (conns.ports == ports) & (conns.remote & MASK == far) & (self.core.arrays["tcbs"].state != CLOSED)
        return self.tcbs[live.nonzero()[0][0]] if live.any() else None

    def leave_mbufs(self, count: int) -> None:
        """Somebody else takes the device's free mbufs but for `count`, or gives them back."""
        wire = self.wire
        free_list, record = wire._arrays["free_list"], wire._wire
        while self.held_mbufs and record.free_count < count:
            free_list[record.free_count] = self.held_mbufs.pop()
            record.free_count += 1
        while record.free_count > count:
            self.held_mbufs.append(wire._pop())

    # -- frames out and events

    def settle(self) -> list[StackEvent]:
        """Turn until nothing more happens, or nothing more can: what has no mbuf stays owed."""
        events: list[StackEvent] = []
        starved = self.counter("mbuf_shortage") + 8
        for _ in range(1000):
            events += self.turn()
            if self.is_at_rest or self.counter("mbuf_shortage") > starved:
                return events
        raise AssertionError("the stack does not come to rest")

    def _rest(self) -> None:
        for _ in range(1000):
            self._take(self.settle())
            frames = self.wire.collect()
            answered = self._sort(frames)
            if not answered and not self._pending and (self.is_at_rest or not frames):
                return
        raise AssertionError("stack and peers do not come to rest")

    def _sort(self, frames: list[bytes]) -> bool:
        answered = False
        for frame in frames:
            segment = check_outgoing(frame, self.door.ip, self.wire.mac, self.wire.mtu)
            honest = self._honest_of(segment) if segment is not None else None
            if segment is not None and honest is not None:
                honest.arrives(segment)
                answered = True
            else:
                answered |= super()._sort([frame])
                if segment is not None:
                    self._check_payload(segment)
        for peer in self.peers.values():
            peer.follow()  # type: ignore[attr-defined]
        self._check_others()
        return answered or self.wire.waiting > 0

    def _honest_of(self, segment: Segment) -> Honest | None:
        if segment.destination != HONEST_IP:
            return None
        return next((honest for honest in self.honest if honest.port == segment.dport), None)

    def _check_payload(self, segment: Segment) -> None:
        """What leaves to a hostile peer is what was written at that place, whichever of its SYN-ACKs it has answered."""
        peer = self.peers.get((segment.destination, segment.dport))
        if not segment.payload or self._honest_of(segment) is not None:
            return
        assert isinstance(peer, Hostile), "data to somebody who isn't there"
        first = [(segment.seq - iss - 1) & MASK for iss in (*peer.stack_initial, *(s.seq for _, s in peer.inbox))]
        assert any(start < 1 << 24 and segment.payload == pattern(len(segment.payload), start) for start in first), (
            f"not what was written: {segment}"
        )

    def _check_others(self) -> None:
        """Echo replies give back what was asked, as often as it was asked."""
        for frame in self.other_frames:
            if frame[12:14] == b"\x08\x00" and frame[23] == 1:
                data = frame[38:]
                self.echoes[data] -= 1
                assert self.echoes[data] >= 0, "an echo reply that nobody asked for"
        self.other_frames.clear()

    def _take(self, events: list[StackEvent]) -> None:
        super()._take(events)
        for event in events:
            self._live(event)
        self.watch.look()
        for handle, life in self.lives.items():
            if life.fresh:
                self._check_read(handle, life)
        self._serve()

    def _live(self, event: StackEvent) -> None:
        if event.kind in (Event.ACCEPT, Event.CONNECT) and event.handle not in self.lives:
            self.lives[event.handle] = self._life_of(event)
        life = self.lives.get(event.handle)
        assert life is not None, f"an event of a connection that was never given: {event}"
        if event.kind == Event.READ:
            life.fresh += event.data
            if life.honest is not None:
                assert event.handle == life.honest.handle, "data of a connection that is over"
                life.honest.takes(event.data)
                life.fresh.clear()
        elif event.kind == Event.CLOSED and life.honest is not None:
            life.honest.reason = event.a

    def _life_of(self, event: StackEvent) -> Life:
        """Whose connection it is, by the address and port of its record."""
        conn = self.conns[event.slot]
        remote, ports = int(conn.remote) & MASK, int(conn.ports)
        address = ".".join(str(remote >> shift & 255) for shift in (24, 16, 8, 0))
        for honest in self.honest:
            if (address, ports >> 16) == (HONEST_IP, honest.port) and honest.client is not None:
                self._check_first(honest)
                honest.accepted(event.handle)
                return Life(None, honest)
        peer = self.peers.get((address, ports >> 16))
        assert isinstance(peer, Hostile), f"a connection from nobody: {address}:{ports >> 16}"
        return Life(peer)

    def _check_first(self, honest: Honest) -> None:
        """A client's connection is accepted once. Only a SYN cookie, which nothing remembers to have been used, makes another
        of the client's ACK after the first has ended without its knowing (no mbuf for the RST)."""
        if honest.handle:
            tcb = self.tcbs[honest.handle & SLOT_MASK]
            is_over = int(tcb.generation) != honest.handle >> 24 or tcb.state == CLOSED
            assert is_over and self.counter("syn_cookies_taken") > 1, "honest client: accepted twice"

    def _check_read(self, handle: int, life: Life) -> None:
        """What was read follows what was read before, and is what the peer sends at those sequence numbers."""
        data, slot = bytes(life.fresh), handle & SLOT_MASK
        life.fresh.clear()
        tcb = self.tcbs[slot]
        if int(tcb.generation) == handle >> 24 and tcb.state != CLOSED and not int(tcb.flags) & flags.USER_CLOSED:
            unread = int(self.conns[slot].rcv_queued) + bool(int(tcb.flags) & flags.FIN_RECEIVED)
            end = (int(tcb.rcv_nxt) - unread) & MASK
        elif life.position is not None:
            end = (life.position + len(data)) & MASK
        else:
            return  # begun and ended at once: `position` was never known
        start = (end - len(data)) & MASK
        assert life.position in (None, start), f"read up to {life.position}, then from {start}"
        assert data == content(start, len(data)), f"{len(data)} bytes at {start} are not what was sent"
        life.position = end

    def _serve(self) -> None:
        """The handler of honest connections sends back what it has got, as far as there is room."""
        for honest in self.honest:
            owed = honest.taken - honest.written
            if not owed or honest.reason is not None:
                continue
            tcb, conn = self.tcbs[honest.handle & SLOT_MASK], self.conns[honest.handle & SLOT_MASK]
            part = min(owed, int(conn.sndbuf) - int(tcb.snd_queued))
            if part > 0 and tcb.state != CLOSED and not self._pending:
                self.command(Command.WRITE, honest.handle, pattern(part, honest.written))
                honest.written += part

    # -- time

    def wait(self, microseconds: int) -> None:
        """Let time pass; honest clients look at their clocks every quarter of a second."""
        until = self.at() + microseconds
        while True:
            waits = [h.client for h in self.honest if h.client is not None and not (h.is_served and not h.closing)]
            self.run(min(until, self.at() + 250_000) if waits else until)
            if self.at() >= until:
                return
            for client in waits:
                client.tick(self.now / 1e6)
