"""`Mailbox`: messages between the workers of a server, from `worker.post` of one to `on_message` of another.

Each worker has a box: a pair of Unix sockets that the supervisor made and holds open, one end to take from, the other, which all
share, to put in. The kernel takes a datagram whole or not at all, so a process may be killed anywhere. Messages leave once
a turn, many in a datagram; a large one travels as a memfd. What the kernel has no room for waits here, up to a bound.

A message is for the process that serves, or is starting, when it is posted: its successor drops it.
"""

from __future__ import annotations

import array
import errno
import os
import socket
import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from mpserve.framework.group import GENERATION, MAIL, STATE, Group, State

MOST_BYTES = 1 << 20  # of a message
QUEUE_BYTES = 8 << 20  # that may wait here for one worker
DATAGRAM_BYTES = 1 << 16  # well below any system's net.core.wmem_default
PADDING = 32  # bytes of a memfd for one of its datagram
MOST_DATAGRAMS = 16  # that are taken a turn
COUNTERS = ("messages_posted", "messages_delivered", "messages_dropped", "messages_lost")
_POSTED, _DELIVERED, _DROPPED, _LOST = range(4)  # the first words of a row's counters
_HEAD = struct.Struct(
    "=qqqq"
)  # the sender's index, the receiver's generation, messages, bytes of the one that is a memfd
_SIZE = struct.Struct("=I")
_SHORT_OF_SOMETHING = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS, errno.EINTR)
_ONE_DESCRIPTOR = socket.CMSG_SPACE(4)
_FLAGS = socket.MSG_DONTWAIT | getattr(socket, "MSG_CMSG_CLOEXEC", 0)


@dataclass(slots=True)
class _Datagram:
    content: bytes
    messages: int
    held_bytes: int
    memfd: int = -1


@dataclass(slots=True)
class _Outgoing:
    """What goes to one worker: datagrams, and messages of one generation that are gathered for the next datagram."""

    datagrams: deque[_Datagram] = field(default_factory=deque)
    gathered: bytearray = field(default_factory=bytearray)
    messages: int = 0
    generation: int = 0
    held_bytes: int = 0

    def seal(self, sender: int) -> None:
        """Make a datagram of what was gathered."""
        if self.messages:
            head = _HEAD.pack(sender, self.generation, self.messages, 0)
            self.datagrams.append(_Datagram(head + self.gathered, self.messages, len(self.gathered)))
            self.gathered, self.messages = bytearray(), 0


class Mailbox:
    """One worker's. Not thread-safe."""

    def __init__(self, group: Group) -> None:
        index = group.index
        self._group, self._index = group, index
        self._taking = socket.socket(fileno=os.dup(group.boxes[index][0]))
        self._putting = [socket.socket(fileno=os.dup(putting)) for _, putting in group.boxes]
        self._outgoing = [_Outgoing() for _ in group.boxes]
        self._words = group.words
        self.mail = group.row(index) + MAIL  # the word that says so when there is mail
        self._counters = group.counters_of(index)
        self._generation = group.get(index, GENERATION)
        self.waiting: set[int] = set()  # workers that something goes to

    def fileno(self) -> int:
        """Readable while there is a message."""
        return self._taking.fileno()

    @property
    def has_mail(self) -> bool:
        """Whether somebody has sent something; cheap. One who was killed between sending and saying so is not known here."""
        return bool(self._words[self.mail])

    def look_again(self) -> None:
        """Somebody may have sent something without saying so."""
        self._words[self.mail] = 1

    @property
    def holds_output(self) -> bool:
        """Whether something has not become the kernel's."""
        return bool(self.waiting)

    def post(self, to: int, data: bytes) -> bool:
        """Have a worker, by its index, given a message of at most MOST_BYTES; it leaves with `flush`.

        False: that worker is dead, or too much waits for it; nothing will come of the message, and it is counted.
        """
        out, counters = self._outgoing[to], self._counters
        counters[_POSTED] += 1
        if self._group.get(to, STATE) == State.DEAD:
            counters[_LOST] += 1
            return False
        size = len(data) + _SIZE.size
        if out.held_bytes + size > QUEUE_BYTES:
            self.flush()
        if out.held_bytes + size > QUEUE_BYTES:
            counters[_DROPPED] += 1
            return False
        try:
            self._gather(out, self._group.get(to, GENERATION), size, data)
        except OSError:  # no descriptor is left
            counters[_DROPPED] += 1
            return False
        self.waiting.add(to)
        return True

    def _gather(self, out: _Outgoing, generation: int, size: int, data: bytes) -> None:
        if generation != out.generation or len(out.gathered) + size > DATAGRAM_BYTES:
            out.seal(self._index)
        out.generation = generation
        if size > DATAGRAM_BYTES:
            head = _HEAD.pack(self._index, generation, 1, len(data))
            # The kernel counts a datagram's bytes and not those of the memfd: make it hold a few MiB of these, not hundreds.
            content = head + bytes(len(data) // PADDING)
            out.datagrams.append(_Datagram(content, 1, size, _in_memory(data)))
        else:
            out.gathered += _SIZE.pack(len(data)) + data
            out.messages += 1
        out.held_bytes += size

    def flush(self) -> None:
        """Give the kernel what it takes."""
        for to in list(self.waiting):
            out = self._outgoing[to]
            out.seal(self._index)
            while out.datagrams and self._send(to, out.datagrams[0]):
                out.held_bytes -= out.datagrams.popleft().held_bytes
            if not out.datagrams:
                self.waiting.discard(to)

    def _send(self, to: int, datagram: _Datagram) -> bool:
        """False where it has to wait: the box is full, or the system is short of something."""
        descriptor = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [datagram.memfd]))]
        try:
            self._putting[to].sendmsg(
                [datagram.content], descriptor if datagram.memfd >= 0 else [], socket.MSG_DONTWAIT
            )
        except OSError as error:
            if error.errno in _SHORT_OF_SOMETHING:
                return False
            self._counters[_LOST] += datagram.messages
        if datagram.memfd >= 0:
            os.close(datagram.memfd)
        self._words[self._group.row(to) + MAIL] = 1
        return True

    def take(self) -> Iterator[tuple[int, bytes]]:
        """(the sender's index, data) of messages that have come, a bounded number; `has_mail` says whether there are more."""
        self._words[self.mail] = 0
        for _ in range(MOST_DATAGRAMS):
            try:
                content, ancillary, _, _ = self._taking.recvmsg(_HEAD.size + DATAGRAM_BYTES, _ONE_DESCRIPTOR, _FLAGS)
            except BlockingIOError:
                return
            yield from self._open(content, [array.array("i", data)[0] for _, _, data in ancillary])
        self.look_again()

    def _open(self, content: bytes, memfds: list[int]) -> Iterator[tuple[int, bytes]]:
        """The messages of a datagram. Those of an earlier generation are lost, and one whose memfd there was no room for."""
        sender, generation, messages, size = _HEAD.unpack_from(content)
        try:
            if generation != self._generation or bool(size) != bool(memfds):
                self._counters[_LOST] += messages
            elif size:
                self._counters[_DELIVERED] += 1
                yield sender, os.pread(memfds[0], size, 0)
            else:
                yield from self._messages(sender, content)
        finally:
            for memfd in memfds:
                os.close(memfd)

    def _messages(self, sender: int, content: bytes) -> Iterator[tuple[int, bytes]]:
        at = _HEAD.size
        while at < len(content):
            (length,) = _SIZE.unpack_from(content, at)
            at += _SIZE.size + length
            self._counters[_DELIVERED] += 1
            yield sender, content[at - length : at]

    def close(self) -> None:
        """What waits here is lost."""
        for out in self._outgoing:
            out.seal(self._index)
            for datagram in out.datagrams:
                self._counters[_LOST] += datagram.messages
                if datagram.memfd >= 0:
                    os.close(datagram.memfd)
        for sock in (self._taking, *self._putting):
            sock.close()
        self._counters.release()


def _in_memory(data: bytes) -> int:
    """A memfd that holds a message."""
    fd = os.memfd_create("mpserve-message", os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    return fd
