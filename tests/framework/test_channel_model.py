"""A channel against a model, by hypothesis, over good and lossy wires: whatever is asked in whatever order, each command
completes exactly once or is cancelled as the page says, in order, with its own cookie and its own connection's bytes."""

import errno
import os
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, multiple, rule

import mpserve
from mpserve import Completion, Kind
from mpserve.testing import ChannelHost, Client

CANCELED = -errno.ECANCELED
COMPILED = os.environ.get("NUMBA_DISABLE_JIT") != "1"
SIZES = st.one_of(st.integers(1, 20), st.sampled_from([1000, 70_000, 1 << 40]))
LONG_SECONDS = 5.0  # on a lossy wire an RTO backs off to a minute, until an RTT can be taken again (RFC 6298)
LENGTHS = st.one_of(st.integers(0, 20), st.sampled_from([1460, 20_000, 300_000]))


@dataclass
class Wire:
    """One connection: what its peer has sent and what was written to it, as far as they are known."""

    peer: Client
    sent: bytearray = field(default_factory=bytearray)
    read: int = 0
    written: bytearray = field(default_factory=bytearray)
    received: bytearray = field(default_factory=bytearray)
    peer_ended = was_reset = False
    is_cut = False  # unregistered with WRITEs that were pending: the rest of them is not sent


@dataclass
class Held:
    """What a handle should still give. `cookie` is unique."""

    wire: Wire
    cookie: object = field(default_factory=object)
    reads: deque[int] = field(default_factory=deque)
    writes: deque[tuple[Kind, int]] = field(default_factory=deque)
    shut = closed = False


class ChannelMachine(RuleBasedStateMachine):
    endpoints = Bundle("endpoints")
    handles = Bundle("handles")
    stale = Bundle("stale")

    @initialize(
        loss=st.sampled_from([0.0, 0.0, 0.05, 0.2]),
        seed=st.integers(0, 1000),
        batch=st.sampled_from([1, 2, 32]),
        small=st.booleans(),
    )
    def begin(self, loss: float, seed: int, batch: int, small: bool) -> None:
        buffers = {"sndbuf_bytes": 8192, "sndbuf_max_bytes": 8192, "rcvbuf_bytes": 8192, "rcvbuf_max_bytes": 8192}
        self.host = ChannelHost(
            batch=batch, loss=loss, seed=seed, max_connections=64, blocks=4096, **(buffers if small else {})
        )
        self.channel = self.host.channel
        self.listener = self.channel.register(self.channel.listen(("", 7)), "listener")
        self.accepts: deque[int] = deque()  # what each still asks for
        self.wires: dict[int, Wire] = {}
        self.held: dict[int, Held] = {}
        self.arrived: list[tuple[Any, Wire]] = []
        self.ending = False

    # -- the other side

    @rule()
    def peer_connects(self) -> None:
        self.connects()

    def connects(self) -> None:
        if len(self.wires) < 20:
            peer = self.host.connect(7)
            self.wires[peer.local[1]] = Wire(peer)

    @rule(handle=handles, sizes=st.lists(SIZES, max_size=4), lengths=st.lists(LENGTHS, max_size=3))
    def reads_and_what_they_get(self, handle: int, sizes: list[int], lengths: list[int]) -> None:
        for size in sizes:
            self.read(handle, size)
        for length in lengths:
            self.sends(self.held[handle].wire, length)
            self.host.settle()

    @rule(which=st.integers(0, 19), length=LENGTHS)
    def peer_sends(self, which: int, length: int) -> None:
        self.sends(self.some_wire(which), length)

    def sends(self, wire: Wire | None, length: int) -> None:
        if wire and not wire.peer_ended:
            start = len(wire.sent)
            data = b"".join(
                (wire.peer.local[1] * 1_000_003 + n).to_bytes(8, "big") for n in range(start, start + length)
            )
            data = data[:length]
            wire.sent += data
            wire.peer.send(data)

    @rule(which=st.integers(0, 19), how=st.sampled_from(["close", "reset"]))
    def peer_ends(self, which: int, how: str) -> None:
        wire = self.some_wire(which)
        if wire and not wire.peer_ended and wire.peer.established:
            wire.peer_ended = True
            wire.was_reset = how == "reset"
            getattr(wire.peer, how)()

    def some_wire(self, which: int) -> Wire | None:
        wires = list(self.wires.values())
        return wires[which % len(wires)] if wires else None

    # -- commands

    @rule(count=st.integers(1, 5))
    def ask_for_accepts(self, count: int) -> None:
        self.accept(count)

    def accept(self, count: int) -> None:
        self.channel.accept(self.listener, count)
        self.accepts.append(count)

    @rule(target=endpoints)
    def take(self) -> Any:
        arrived, self.arrived = self.arrived, []
        return multiple(*arrived)

    @rule(target=handles, pair=consumes(endpoints))
    def take_up(self, pair: tuple[Any, Wire]) -> int:
        return self.register(pair)

    def register(self, pair: tuple[Any, Wire]) -> int:
        endpoint, wire = pair
        held = Held(wire)
        handle = self.channel.register(endpoint, held.cookie)
        assert handle not in self.held
        self.held[handle] = held
        return handle

    @rule(target=handles, count=st.integers(1, 3))
    def open(self, count: int) -> Any:
        """So many connections at once, up to their handles."""
        self.accept(count)
        for _ in range(count):
            self.connects()
        for _ in range(20):
            self.dispatch(0.1, 256)
        arrived, self.arrived = self.arrived, []
        return multiple(*(self.register(pair) for pair in arrived))

    @rule(handle=handles, size=SIZES)
    def ask_to_read(self, handle: int, size: int) -> None:
        self.read(handle, size)

    def read(self, handle: int, size: int) -> None:
        self.channel.read(handle, size)
        self.held[handle].reads.append(size)

    @rule(handle=handles, length=LENGTHS, vector=st.booleans())
    def write(self, handle: int, length: int, vector: bool) -> None:
        held = self.held[handle]
        data = bytes((len(held.wire.written) + n) * 7 & 0xFF for n in range(length))
        if held.shut:
            with pytest.raises(mpserve.Closed):
                self.channel.write(handle, data)
            return
        if vector:
            self.channel.writev(handle, [data[:3], data[3:]])
        else:
            self.channel.write(handle, data)
        held.wire.written += data
        held.writes.append((Kind.WRITE, length))

    @rule(handle=handles)
    def disconnect(self, handle: int) -> None:
        held = self.held[handle]
        self.channel.disconnect(handle)
        held.shut = True
        held.writes.append((Kind.DISCONNECT, 0))

    @rule(target=stale, handle=consumes(handles))
    def close(self, handle: int) -> int:
        self.channel.close(handle)
        self.held[handle].closed = True
        return handle

    @rule(target=stale, handle=consumes(handles))
    def unregister_and_close(self, handle: int) -> int:
        held = self.held.pop(handle)
        held.wire.is_cut |= bool(held.writes)
        self.channel.unregister(handle).close()
        return handle

    @rule(target=endpoints, handle=consumes(handles))
    def unregister(self, handle: int) -> Any:
        held = self.held.pop(handle)
        if held.shut or held.writes:  # it would not do to write on behind half of something
            self.channel.unregister(handle).close()
            held.wire.is_cut |= bool(held.writes)
            return multiple()
        return self.channel.unregister(handle), held.wire

    @rule(handle=stale)
    def use_a_stale_handle(self, handle: int) -> None:
        for use in (
            lambda: self.channel.read(handle, 1),
            lambda: self.channel.write(handle, b"x"),
            lambda: self.channel.disconnect(handle),
            lambda: self.channel.close(handle),
            lambda: self.channel.unregister(handle),
        ):
            with pytest.raises(mpserve.Closed):
                use()

    @rule()
    def flush(self) -> None:
        self.channel.flush()

    @rule(timeout=st.sampled_from([0, 0.001, 0.05, 0.7]), most=st.sampled_from([1, 3, 256]))
    def take_completions(self, timeout: float, most: int) -> None:
        self.dispatch(timeout, most)

    def dispatch(self, timeout: float, most: int) -> None:
        events = self.channel.dispatch(timeout, most)
        assert len(events) <= most
        for event in events:
            self.check(event)

    # -- what must hold

    def check(self, event: Completion) -> None:
        if event.kind == Kind.ACCEPT:
            self.check_accept(event)
            return
        held = self.held[event.handle]  # none but of handles that are registered, or closed with commands pending
        assert event.cookie is held.cookie
        if event.kind == Kind.READ:
            self.check_read(event, held)
            return
        kind, length = held.writes.popleft()
        assert event.kind == kind and event.data == b""
        assert event.result == length or (event.result < 0 and held.wire.peer_ended and event.result != CANCELED)

    def check_accept(self, event: Completion) -> None:
        assert (event.handle, event.cookie) == (self.listener, "listener")
        left = self.accepts.popleft()  # fails where nobody has asked
        if event.result != 0:
            assert event.result == CANCELED and self.ending and event.endpoint is None
            return
        if left > 1:
            self.accepts.appendleft(left - 1)
        assert event.waiting >= 0
        wire = self.wires[event.endpoint.peername[1]]
        assert all(wire is not other for _, other in self.arrived)
        self.arrived.append((event.endpoint, wire))

    def check_read(self, event: Completion, held: Held) -> None:
        size = held.reads.popleft()
        wire = held.wire
        if event.result > 0:
            assert event.result == len(event.data) <= size
            assert event.data == wire.sent[wire.read : wire.read + event.result]
            wire.read += event.result
        elif event.result == 0:
            assert wire.peer_ended and wire.read == len(wire.sent)
        else:
            assert event.data == b""
            assert event.result == CANCELED if held.closed and not wire.was_reset else event.result < 0
            assert held.closed or wire.was_reset

    def teardown(self) -> None:
        if not hasattr(self, "host"):
            return
        for handle, held in self.held.items():
            if not held.closed:
                self.channel.close(handle)
                held.closed = True
        self.channel.close(self.listener)
        self.ending = True
        for _ in range(300):
            events = self.channel.dispatch(LONG_SECONDS)
            for event in events:
                self.check(event)
            if not events and not self.is_pending():
                break
        assert not self.is_pending(), "a command has not completed"
        for endpoint in list(self.channel.worker.endpoints.values()):
            endpoint.close()
        for _ in range(
            600
        ):  # 300 kB at a fifth of frames lost, with an RTO of up to a minute, have taken more than five minutes
            if self.has_all_arrived():
                break
            assert self.channel.dispatch(LONG_SECONDS) == []
        assert self.has_all_arrived()
        assert self.channel.dispatch(0) == []
        self.host.stop()

    def is_pending(self) -> bool:
        return bool(self.accepts) or any(held.reads or held.writes for held in self.held.values())

    def has_all_arrived(self) -> bool:
        """Whether each peer has what was written to it, or is excused; never anything else."""
        done = True
        for wire in self.wires.values():
            wire.received += wire.peer.recv()
            assert wire.written.startswith(wire.received)
            excused = wire.was_reset or wire.peer.was_reset or wire.is_cut
            done &= excused or wire.received == wire.written
        return done


ChannelMachine.TestCase.settings = settings(
    max_examples=60 if COMPILED else 3,
    stateful_step_count=40 if COMPILED else 25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestChannel = ChannelMachine.TestCase
