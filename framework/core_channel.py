"""`CoreChannel`, between one core's stack and Python: commands down and completion events up, a batch at a time.

Commands gather in two lists (`words`, `payloads`); `turn` hands them down as one buffer, lets the stack work, and leaves
the events as columns. Python and compiled code cross once a turn.
"""

from __future__ import annotations

import errno
from array import array
from collections.abc import Iterator
from typing import NamedTuple

import cffi
import numpy as np

from mpserve.dataplane.commands import commands
from mpserve.dataplane.control import ARP_REQUEST
from mpserve.dataplane.core import Core, ipv4
from mpserve.dataplane.egress import egress
from mpserve.dataplane.events import OP_BITS, Command, Event
from mpserve.dataplane.ingress import ingress
from mpserve.dataplane.jit import JIT
from mpserve.dataplane.layout import COMMAND_ROWS, CORE, EVENT_ROWS, LISTENERS, V4_MAPPED
from mpserve.dataplane.memory import allocate, register, unregister
from mpserve.dataplane.tcp.connect import IN_USE, NO_PORT, NO_ROUTE, TABLE_FULL, connect
from mpserve.dataplane.tcp.timers import timers
from mpserve.dataplane.turn import IDLE as IDLE
from mpserve.dataplane.turn import execute, turn
from mpserve.dataplane.wire.ethernet import BROADCAST

_FFI = cffi.FFI()
AUTO_ACCEPT = 1 << 60
SMALL_BLOB = 1 << 16
_CANNOT_CONNECT = {
    TABLE_FULL: (errno.ENOBUFS, "the connection table is full (--limit max_connections=...)"),
    NO_PORT: (errno.EADDRNOTAVAIL, "no local port is free for this destination"),
    NO_ROUTE: (errno.ENETUNREACH, "no route: it is not on the link, and no router leads there (--gateway, --route)"),
    IN_USE: (errno.EADDRINUSE, "the local port is in use for this destination"),
}


class Completion(NamedTuple):
    """One completion event. `data` is the payload of a READ; a and b are as `Event` says."""

    kind: Event
    handle: int
    a: int
    b: int
    data: bytes


def _view(table: np.ndarray) -> memoryview:
    """int64 words, quicker to read and write one or a few at a time than through numpy."""
    return memoryview(table.view(np.uint8)).cast("q")  # type: ignore[arg-type]


def _word(core: Core, name: str) -> int:
    """The index of a CORE field in the record taken as int64 words."""
    return CORE.fields[name][1] // 8  # type: ignore[index]


class CoreChannel:
    """One core's channel. Not thread-safe: it belongs to the thread that turns the core."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.words: list[int] = []
        self.payloads: list[bytes] = []
        self.put_word, self.put_payload = self.words.append, self.payloads.append  # one method each for all sockets
        record = core.record
        record.unit_ingress, record.unit_egress = ingress.address, egress.address
        record.unit_commands, record.unit_timers = commands.address, timers.address
        self._call, self._execute = turn.call, execute.call
        self._address = core.address
        self._core_words = memoryview(core.arrays["core"].view(np.int64))  # type: ignore[arg-type]
        self._arena_used, self._now, self._base, self._return_at, self._away_since = (
            _word(core, name) for name in ("arena_used", "now", "command_base", "return_at", "away_since")
        )
        table = _view(core.arrays["command_table"])
        self._word_column, self._length_column = table[:COMMAND_ROWS], table[2 * COMMAND_ROWS :]
        rows = _view(core.arrays["events"])
        self._columns = [rows[first : first + EVENT_ROWS] for first in range(0, 5 * EVENT_ROWS, EVENT_ROWS)]
        self._small_blobs = allocate(np.uint8, SMALL_BLOB)
        self._small_blob = memoryview(self._small_blobs)  # type: ignore[arg-type]
        self._small_base = self._small_blobs.ctypes.data
        self._large_base = 0
        self._arena = memoryview(core.arrays["arena"])  # type: ignore[arg-type]
        self._blob = b""

    # -- down

    def command(self, op: Command, handle: int, argument: int = 0) -> None:
        """Put a command other than WRITE in the batch."""
        self.words.append(handle << OP_BITS | op)
        self.payloads.append(argument.to_bytes(8, "little", signed=True))

    def listen(self, port: int, address: str | None = None, accepts: int = AUTO_ACCEPT) -> int:
        """Add a partitioned listener of this core; its number. `accepts` connections complete without being asked for.

        Raises OSError (EADDRINUSE) if there is one for that address and port already.
        """
        listeners = self.core.arrays["listeners"]
        local = V4_MAPPED | ipv4(address) if address else 0
        if ((listeners.used == 1) & (listeners.port == port) & (listeners.address == local)).any():
            raise OSError(errno.EADDRINUSE, f"there is a listener for {address or ''}:{port} already")
        number = int(np.argmin(listeners.used))
        if listeners[number].used:
            raise ValueError(f"a core has {LISTENERS} listeners at most")
        listener = listeners[number]
        listener.port, listener.address, listener.accepts = port, local, accepts
        listener.used = 1
        return number

    def connect(self, address: str, port: int, local_port: int = 0) -> int:
        """Begin a connection; its handle. A CONNECT event tells whether it was established, CLOSED follows if not.

        `local_port` 0 has one chosen (RFC 6056). Raises OSError for what can't even begin: no route, no free port, table full.
        """
        remote = V4_MAPPED | ipv4(address)
        if not 0 < port < 65536 or not 0 <= local_port < 65536:
            raise OSError(errno.EINVAL, f"port {port} from port {local_port}: ports are 1 to 65535")
        handle = connect(self._address, remote, port, local_port)
        if handle < 0:
            number, why = _CANNOT_CONNECT[handle]
            raise OSError(number, f"connect to {address}:{port}: {why}")
        return handle

    def execute(self) -> None:
        """Execute the commands of the batch now, so that what is read of a connection shows them; frames leave with the turn."""
        count = len(self.words)
        if count:
            self._execute(self._address, self._load(count), 0)

    def announce(self) -> None:
        """Owe a gratuitous ARP request (RFC 5227 section 3), so that neighbours forget who had the address before."""
        record = self.core.record
        control = self.core.arrays["controls"][int(record.control_count)]
        control.kind, control.mac, control.block = ARP_REQUEST, BROADCAST, -1
        control.remote = control.local = record.address
        record.control_count += 1

    def turn(self) -> int:
        """Execute the batch and gather the next: how many events wait, 0 when time is up, IDLE when nothing happens."""
        count = len(self.words)
        if count:
            count = self._load(count)
        return self._call(self._address, count)

    def _load(self, count: int) -> int:
        """Put the batch in the command table; what is beyond its length is executed first, table by table."""
        words, payloads = self.words, self.payloads
        if count == 1 and len(payloads[0]) <= SMALL_BLOB:
            self._load_one(words.pop(), payloads.pop())
            return 1
        first = 0
        while count - first > COMMAND_ROWS:
            self._fill(words[first : first + COMMAND_ROWS], payloads[first : first + COMMAND_ROWS], COMMAND_ROWS)
            self._execute(self._address, COMMAND_ROWS, 1)
            first += COMMAND_ROWS
        self._fill(words[first:] if first else words, payloads[first:] if first else payloads, count - first)
        words.clear()
        payloads.clear()
        return count - first

    def _load_one(self, word: int, payload: bytes) -> None:
        self._word_column[0] = word
        self._length_column[0] = length = len(payload)
        self._small_blob[:length] = payload
        self._core_words[self._base] = self._small_base

    def _fill(self, words: list[int], payloads: list[bytes], count: int) -> None:
        blob = b"".join(payloads)
        self._word_column[:count] = array("q", words)
        self._length_column[:count] = array("q", list(map(len, payloads)))
        if len(blob) <= SMALL_BLOB:  # a copy costs less than asking for the address
            self._small_blob[: len(blob)] = blob
            self._core_words[self._base] = self._small_base
        else:
            self._blob = blob
            self._core_words[self._base] = self._address_of(blob)

    def _address_of(self, blob: bytes) -> int:
        """Where the bytes lie; plain-Python code is given leave to read them."""
        if not JIT:
            unregister(self._large_base)
            self._large_base = register(np.frombuffer(blob, np.uint8))
            return self._large_base
        return int(_FFI.cast("intptr_t", _FFI.from_buffer(blob)))

    def close(self) -> None:
        """Let the memory of batches go."""
        unregister(self._small_base)
        unregister(self._large_base)

    # -- up

    @property
    def now_us(self) -> int:
        """The stack's clock, as of this turn."""
        return self._core_words[self._now]

    @property
    def away_since(self) -> int:
        """When Python left the loop (us); 0 while it is in it, or sleeps."""
        return self._core_words[self._away_since]

    def leave(self) -> None:
        """Python goes away from the loop without a batch: for timers and calls after a sleep."""
        self._core_words[self._away_since] = self._core_words[self._now]

    def set_return_at(self, now_us: int) -> None:
        """When `turn` comes back even if nothing happens."""
        self._core_words[self._return_at] = now_us

    def events(self, count: int) -> Iterator[tuple[int, int, int, int]]:
        """(kind, slot, a, b) of the events that wait."""
        kinds, slots, _, starts, ends = self._columns
        if count == 1:  # what slicing five columns costs is most of a lone request's way
            return iter(((kinds[0], slots[0], starts[0], ends[0]),))
        return zip(
            kinds[:count].tolist(), slots[:count].tolist(), starts[:count].tolist(), ends[:count].tolist(), strict=True
        )

    def payload(self) -> bytes:
        """The payload of the batch; READ events are ranges of it."""
        return bytes(self._arena[: self._core_words[self._arena_used]])

    def completions(self, count: int) -> list[Completion]:
        """The events that wait, one object each."""
        blob = self.payload()
        rows = zip(*(column[:count].tolist() for column in self._columns), strict=True)
        return [Completion(Event(k), h, a, b, blob[a:b] if k == Event.READ else b"") for k, _, h, a, b in rows]
