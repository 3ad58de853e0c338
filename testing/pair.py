"""`Pair`: two stacks on one cable, in virtual time. What one sends to the other is checked as it arrives."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

from mpserve.dataplane.core import ipv4
from mpserve.dataplane.events import SLOT_MASK, Command, Event
from mpserve.dataplane.layout import V4_MAPPED
from mpserve.dataplane.tcp.connect import connect
from mpserve.testing.stack import Stack, StackEvent
from mpserve.testing.streams import CHUNK, stream

CLIENT_IP, SERVER_IP, PORT = "10.9.0.1", "10.9.0.2", 7


class End:
    """One end of the pair's connection: what is still to be written, and the count and CRC of what has arrived."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.handle = stack, 0
        self.unwritten: Iterator[bytes] = iter(())
        self.received = self.crc = 0
        self.eof = False
        self.reason: int | None = None  # why the connection ended
        self._closing = False

    def send(self, length: int) -> None:
        """Write a stream of so many bytes, as the send buffer has room, and FIN behind it."""
        self.unwritten, self._closing = stream(length), True

    def saw(self, events: list[StackEvent]) -> None:
        for event in events:
            if event.kind in (Event.ACCEPT, Event.CONNECT) and event.a == 0:
                self.handle = event.handle
            elif event.kind == Event.READ:
                self.received += len(event.data)
                self.crc = zlib.crc32(event.data, self.crc)
            elif event.kind == Event.EOF:
                self.eof = True
            elif event.kind == Event.CLOSED:
                self.reason = event.a

    def fill(self) -> bool:
        """Write what there is room for; whether anything was written."""
        if not self.handle or self.reason is not None or not self._closing:
            return False
        room = self.room
        wrote = False
        while room >= CHUNK and not self.stack.batch_is_full:
            piece = next(self.unwritten, None)
            if piece is None:
                self.stack.command(Command.SHUTDOWN, self.handle)
                self._closing = False
                return True
            self.stack.command(Command.WRITE, self.handle, piece)
            room -= len(piece)
            wrote = True
        return wrote

    @property
    def room(self) -> int:
        """Bytes that the send buffer takes."""
        slot = self.handle & SLOT_MASK
        arrays = self.stack.core.arrays
        return int(arrays["conns"][slot]["sndbuf"] - arrays["tcbs"][slot]["snd_queued"])


class Pair:
    """A client at 10.9.0.1 and a server at 10.9.0.2, port 7, with a clock for both.

    `impair` (as `--impair` takes it) is what the cable does to frames: `tx.` from the client to the server, `rx.` back.
    The clock jumps to what happens next, but at least `quantum_us`. `limits` are both stacks'.
    """

    def __init__(self, impair: str = "", *, quantum_us: int = 1, mbufs: int = 4096, **limits: Any) -> None:
        self.quantum_us = quantum_us
        self.client = End(Stack(CLIENT_IP, impair=impair, mac=b"\x02\0\0\0\0\x01", mbufs=mbufs, seed=2, **limits))
        self.server = End(Stack(SERVER_IP, PORT, mbufs=mbufs, **limits))
        self.stacks = (self.client.stack, self.server.stack)
        self.stacks[0].wire.connect(self.stacks[1].wire)
        self.start = self.now = max(stack.now for stack in self.stacks)

    @property
    def elapsed(self) -> float:
        """Virtual seconds since the start."""
        return (self.now - self.start) / 1e6

    def connect(self) -> None:
        """Ask for a connection; it is there when both ends have a handle."""
        connect(self.stacks[0].core.address, V4_MAPPED | ipv4(SERVER_IP), PORT, 0)

    def step(self) -> None:
        """Let everything happen that happens now, then go to the time of what happens next."""
        self.settle()
        self.advance()

    def settle(self) -> None:
        """Let everything happen that happens now."""
        for stack in self.stacks:
            stack.now = self.now
        while self._turn():
            pass

    def advance(self) -> None:
        """Go to the time of what happens next."""
        following = min(min(int(stack.core.record.sleep_until), stack.next_release) for stack in self.stacks)
        self.now = max(following, self.now + self.quantum_us)

    def _turn(self) -> bool:
        """One turn of each stack, with what its end has to write; whether there is more to do now."""
        busy = False
        for end in (self.client, self.server):
            busy |= end.fill()
            end.saw(end.stack.turn())
        return busy or not all(stack.is_at_rest for stack in self.stacks)

    def close(self) -> None:
        for stack in self.stacks:
            stack.close()
