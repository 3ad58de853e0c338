"""`KernelChannel`: `CoreChannel`'s interface, backed by kernel sockets. The same commands down, the same events up.

For laptops, for systems without DPDK, and to compare: the kernel's TCP stands where the stack would.
"""

from __future__ import annotations

import errno
import heapq
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

from mpserve.dataplane.completions import GENERATION_MASK, IDLE, OP_BITS, SLOT_BITS, SLOT_MASK, Command, Event, Reason
from mpserve.dataplane.errors import SetupError
from mpserve.dataplane.limits import Limits
from mpserve.framework.kernel_connection import HARD_LIMIT_SNDBUFS, KernelConnection, reason_of
from mpserve.framework.polling import IN, OUT, make_poll

AUTO_ACCEPT = 1 << 60
READ_BYTES = 1 << 17  # a connection and turn
MOST_ACCEPTS = 64  # a turn
NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
ACCEPT_AGAIN_US = 1_000_000
EPOCH_US = 1_000_000  # as the stack's clock, it begins at one second
READ, ACCEPT, EOF, WRITABLE, TIMEOUT, CLOSED, CONNECT = (
    int(event)
    for event in (Event.READ, Event.ACCEPT, Event.EOF, Event.WRITABLE, Event.TIMEOUT, Event.CLOSED, Event.CONNECT)
)
WRITE = int(Command.WRITE)
Row = tuple[int, int, int, int]


class KernelListener:
    """A listening socket and the accepts that may still complete without being asked for."""

    def __init__(self, sock: socket.socket, accepts: int) -> None:
        self.sock, self.accepts, self.in_poll = sock, accepts, False


class Counters:
    """The stack's names, where the kernel lets them be counted."""

    def __init__(self) -> None:
        self.turns = self.events = self.commands = self.sleeps = self.slow_readers = self.stale_commands = 0
        self.connections_accepted = self.connections_opened = self.connections_closed = 0
        self.connections_reset = self.connections_aborted = self.connections_timed_out = self.connections_refused = 0
        self.bytes_read = self.bytes_written = self.accept_events = self.read_events = 0


class KernelChannel:
    """One worker's channel. Not thread-safe: it belongs to the thread that turns it."""

    core = None  # there is no stack

    def __init__(self, limits: Limits, given: frozenset[str] = frozenset(), *, share_ports: bool = False) -> None:
        """`given`: the limits that somebody set; the kernel's own defaults stand for the others.

        `share_ports`: other processes listen on the same ports, and the kernel spreads connections over them.
        """
        self.words: list[int] = []
        self.payloads: list[bytes] = []
        self.put_word, self.put_payload = self.words.append, self.payloads.append
        self.away_since = 0  # when Python left the loop (us); 0 while it is in it, or sleeps
        self.counters = Counters()
        self.connections: list[KernelConnection | None] = [None] * limits.max_connections
        self.listeners: list[KernelListener] = []
        self.spin_us = 0.0
        self._limits, self._given, self._share_ports = limits, given, share_ports
        self._poll = make_poll()
        self._by_fd: dict[int, KernelConnection | KernelListener] = {}
        self._free = list(range(limits.max_connections - 1, -1, -1))
        self._generation = 0
        self._released: list[int] = []  # slots whose CLOSED was told in the last batch
        self._listed: list[KernelConnection] = []  # to be looked after: written to, resumed, ended
        self._deadlines: list[tuple[int, int, int]] = []  # (us, slot, generation), some of them outdated
        self._rows: list[Row] = []
        self._chunks: list[bytes] = []
        self._arena_used = 0
        self._started = time.monotonic_ns() // 1000 - EPOCH_US
        self.now_us = EPOCH_US
        self._idle_since = EPOCH_US
        self._accept_at = 0  # when to accept again, after there were no descriptors

    def fileno(self) -> int:
        """Readable when there is something for `turn`."""
        return self._poll.fileno()

    # -- down

    def command(self, op: Command, handle: int, argument: int = 0) -> None:
        """Put a command other than WRITE in the batch."""
        self.words.append(handle << OP_BITS | op)
        self.payloads.append(argument.to_bytes(8, "little", signed=True))

    def listen(self, port: int, address: str | None = None, accepts: int = AUTO_ACCEPT) -> int:
        """Bind a listening socket; its number. Raises OSError for an address that isn't to be had."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self._share_ports:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self._set_buffers(sock)
            sock.bind((address or "", port))
            sock.listen(self._limits.accept_queue)
        except OSError:
            sock.close()
            raise
        sock.setblocking(False)
        listener = KernelListener(sock, accepts)
        self.listeners.append(listener)
        self._by_fd[sock.fileno()] = listener
        self._watch_listeners()
        return len(self.listeners) - 1

    def connect(self, address: str, port: int, local_port: int = 0) -> int:
        """Begin a connection; its handle. Raises OSError for what can't even begin, SetupError for what is no address."""
        where = f"connect to {address}:{port}: "
        if not 0 < port < 65536 or not 0 <= local_port < 65536:
            raise OSError(errno.EINVAL, f"port {port} from port {local_port}: ports are 1 to 65535")
        try:
            socket.inet_pton(socket.AF_INET, address)
        except OSError:
            raise SetupError(f"{address!r} is not an IPv4 address") from None
        if not self._free:
            raise OSError(errno.ENOBUFS, f"{where}the connection table is full (--limit max_connections=...)")
        sock, refused = self._begin_connect(address, port, local_port, where)
        conn = self._add(sock, (address, port), -1)
        if refused:
            self.counters.connections_refused += 1
            self._end(conn, Reason.REFUSED)
        else:
            self._watch(conn)
        return conn.handle

    def _begin_connect(self, address: str, port: int, local_port: int, where: str) -> tuple[socket.socket, bool]:
        """The socket, and whether the kernel knew at once that nobody listens."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        self._set_buffers(sock)
        try:
            if local_port:
                sock.bind(("", local_port))
            number = sock.connect_ex((address, port))
        except OSError as error:
            number = error.errno or errno.EINVAL
        if number not in (0, errno.EINPROGRESS, errno.ECONNREFUSED):
            sock.close()
            why = {errno.EADDRINUSE: "the local port is in use", errno.ENETUNREACH: "no route"}
            raise OSError(number, where + why.get(number, os.strerror(number)))
        return sock, number == errno.ECONNREFUSED

    def execute(self) -> None:
        """Execute the commands of the batch now."""
        words, payloads = self.words, self.payloads
        if not words:
            return
        connections = self.connections
        self.counters.commands += len(words)
        for word, payload in zip(words, payloads, strict=True):
            op, handle = word & 0xFF, word >> OP_BITS
            if op == Command.ACCEPT:
                self._allow_accepts(handle, int.from_bytes(payload, "little", signed=True))
                continue
            if op == Command.STOP_LISTENING:
                self.stop_listening(handle)
                continue
            slot = handle & SLOT_MASK
            conn = connections[slot] if slot < len(connections) else None
            if conn is None or conn.generation != (handle >> SLOT_BITS) & GENERATION_MASK:
                self.counters.stale_commands += 1
            elif conn.reason is None:
                if op == WRITE:
                    self._write(conn, payload)
                else:
                    self._execute(conn, op, int.from_bytes(payload, "little", signed=True))
        words.clear()
        payloads.clear()
        for conn in self._listed:
            self._flush(conn)

    def announce(self) -> None:
        """The kernel has announced its addresses."""

    def stop_listening(self, number: int) -> None:
        """Close a listener: what waits for it is reset."""
        if 0 <= number < len(self.listeners) and self.listeners[number].accepts >= 0:
            listener = self.listeners[number]
            listener.accepts = -1
            self._watch_listeners()
            del self._by_fd[listener.sock.fileno()]
            listener.sock.close()

    def _allow_accepts(self, number: int, count: int) -> None:
        if 0 <= number < len(self.listeners) and self.listeners[number].accepts >= 0:
            self.listeners[number].accepts += count
            self._watch_listeners()
        else:
            self.counters.stale_commands += 1

    def _write(self, conn: KernelConnection, payload: bytes) -> None:
        if conn.fin_wanted or not payload:
            return
        if conn.queued + len(payload) > HARD_LIMIT_SNDBUFS * conn.sndbuf:
            self.counters.slow_readers += 1
            self._abort(conn, Reason.SLOW_READER)
            return
        conn.parts.append(payload)
        conn.queued += len(payload)
        self.counters.bytes_written += len(payload)
        self._list(conn)

    def _execute(self, conn: KernelConnection, op: int, argument: int) -> None:
        """Every command but WRITE and ACCEPT."""
        self._list(conn)
        match op:
            case Command.SHUTDOWN:
                conn.fin_wanted = True
            case Command.CLOSE:
                self._close(conn)
            case Command.ABORT:
                self._abort(conn, Reason.ABORTED)
            case Command.PAUSE:
                conn.reading = False
            case Command.RESUME:
                conn.reading = True
            case Command.READ_ONCE:
                conn.once = True
            case Command.WANT_WRITABLE:
                conn.writable_wanted = True
            case Command.TIMEOUT:
                conn.idle_us, conn.idle_at = argument, self.now_us + argument
                if argument > 0:
                    self._arm(conn, conn.idle_at)

    def _close(self, conn: KernelConnection) -> None:
        """The handle is given up: what still arrives is dropped, and the peer's FIN is waited for only so long."""
        if conn.close_wanted:
            return
        conn.close_wanted = conn.fin_wanted = True
        conn.writable_wanted, conn.idle_us = False, 0
        linger = conn.sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
        on, seconds = memoryview(linger).cast("i").tolist()
        if conn.connecting or (on and not seconds):
            self._abort(conn, Reason.ABORTED)
            return
        conn.state_at = self.now_us + int((seconds if on else self._limits.fin_wait_seconds) * 1e6)
        self._arm(conn, conn.state_at)

    def _arm(self, conn: KernelConnection, at_us: int) -> None:
        """One deadline a connection, the earliest: what was put off since is seen when it comes."""
        if not conn.timer_at or at_us < conn.timer_at:
            conn.timer_at = at_us
            heapq.heappush(self._deadlines, (at_us, conn.slot, conn.generation))

    def _abort(self, conn: KernelConnection, reason: Reason) -> None:
        conn.reset()
        self.counters.connections_aborted += 1
        self._end(conn, reason)

    def _flush(self, conn: KernelConnection) -> None:
        if conn.reason is None and not conn.connecting and (conn.parts or conn.fin_wanted):
            try:
                conn.flush()
            except OSError as error:
                self._lost(conn, error)

    def _lost(self, conn: KernelConnection, error: OSError) -> None:
        """The kernel says that a connection is over. What the peer sent before a RST is not delivered any more."""
        reason = reason_of(error.errno or 0)
        counters = self.counters
        counters.connections_reset += reason == Reason.RESET
        counters.connections_timed_out += reason == Reason.TIMED_OUT
        self._end(conn, reason)

    def _end(self, conn: KernelConnection, reason: Reason) -> None:
        """Close the socket; CLOSED is told by this turn's batch, or the next one's."""
        if conn.reason is None:
            conn.reason = reason
            if conn.in_poll >= 0:
                self._poll.unregister(conn.fd)
            conn.parts.clear()
            conn.queued = 0
            conn.sockname = conn.sock.getsockname()
            conn.sock.close()
            del self._by_fd[conn.fd]
            self.counters.connections_closed += 1
            self._list(conn)

    # -- the poll

    def _list(self, conn: KernelConnection) -> None:
        if not conn.listed:
            conn.listed = True
            self._listed.append(conn)

    def _watch(self, conn: KernelConnection) -> None:
        """Have the poll wait for what the connection wants."""
        mask = conn.mask
        if mask == conn.in_poll:
            return
        if mask < 0:
            self._poll.unregister(conn.fd)
        elif conn.in_poll < 0:
            self._poll.register(conn.fd, mask)
        else:
            self._poll.modify(conn.fd, mask)
        conn.in_poll = mask

    def _watch_listeners(self) -> None:
        """Full tables and used-up accepts leave connections in the kernel's queue."""
        for listener in self.listeners:
            wanted = bool(self._free) and listener.accepts > 0 and not self._accept_at
            if wanted and not listener.in_poll:
                self._poll.register(listener.sock.fileno(), IN)
            elif not wanted and listener.in_poll:
                self._poll.unregister(listener.sock.fileno())
            listener.in_poll = wanted

    def _set_buffers(self, sock: socket.socket) -> None:
        if "rcvbuf_bytes" in self._given:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._limits.rcvbuf_bytes)
        if "sndbuf_bytes" in self._given:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._limits.sndbuf_bytes)

    def _add(self, sock: socket.socket, peer: tuple[str, int], listener: int) -> KernelConnection:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._generation = (self._generation + 1) & GENERATION_MASK
        conn = KernelConnection(self._free.pop(), self._generation, sock, peer, listener, self._limits.sndbuf_bytes)
        self.connections[conn.slot] = self._by_fd[conn.fd] = conn
        return conn

    # -- up

    def turn(self) -> int:
        """Execute the batch and gather the next: how many events wait, 0, or IDLE when nothing happens."""
        self.away_since = 0
        self._clock()
        self._recycle()
        busy = bool(self.words)
        self.execute()
        self._rows, self._chunks, self._arena_used = [], [], 0
        self._look_after()
        room = self._limits.event_batch
        for fd, mask in self._poll.poll(0, room):
            found = self._by_fd.get(fd)
            if isinstance(found, KernelConnection):
                self._ready(found, mask)
            elif found is not None:
                self._accept(found)
        self._fire()
        self._look_after()
        self.counters.turns += 1
        self.counters.events += len(self._rows)
        if self._rows or busy:
            self._idle_since = self.away_since = self.now_us
            return len(self._rows)
        return IDLE if self.now_us - self._idle_since >= self.spin_us else 0

    def leave(self) -> None:
        """Python goes away from the loop without a batch: for timers and calls after a sleep."""
        self.away_since = self.now_us

    def _clock(self) -> None:
        self.now_us = time.monotonic_ns() // 1000 - self._started

    def _recycle(self) -> None:
        """Slots of the last batch's CLOSED events are free now that they have been told."""
        if self._released:
            for slot in self._released:
                self.connections[slot] = None
            self._free.extend(self._released)
            self._released = []
            self._watch_listeners()

    def _look_after(self) -> None:
        """Connections that something was done to: their events, and what to wait for next."""
        while self._listed:
            listed, self._listed = self._listed, []
            for conn in listed:
                conn.listed = False
                self._settle(conn)

    def _settle(self, conn: KernelConnection) -> None:
        if conn.reason is None:
            if conn.eof_told and conn.fin_sent:
                self._end(conn, Reason.FINISHED)
                return
            if conn.writable_wanted and not conn.connecting and conn.queued <= conn.sndbuf // 2:
                conn.writable_wanted = False
                self._rows.append((WRITABLE, conn.slot, 0, 0))
            self._watch(conn)
            return
        if conn.connecting:
            self._rows.append((CONNECT, conn.slot, conn.reason, 0))
        self._rows.append((CLOSED, conn.slot, conn.reason, 0))
        self._released.append(conn.slot)

    def _accept(self, listener: KernelListener) -> None:
        number = self.listeners.index(listener)
        for _ in range(MOST_ACCEPTS):
            if not self._free or listener.accepts <= 0:
                break
            try:
                sock, peer = listener.sock.accept()
            except OSError as error:
                if error.errno in NO_DESCRIPTORS:
                    self._accept_at = self.now_us + ACCEPT_AGAIN_US
                break
            conn = self._add(sock, peer, number)
            listener.accepts -= listener.accepts < AUTO_ACCEPT >> 1
            self.counters.connections_accepted += 1
            self.counters.accept_events += 1
            self._rows.append((ACCEPT, conn.slot, number, 0))
            self._read(conn)
            self._list(conn)
        self._watch_listeners()

    def _ready(self, conn: KernelConnection, mask: int) -> None:
        """What the poll says of a connection."""
        if conn.reason is not None:
            return
        self._list(conn)
        if conn.connecting:
            self._connected(conn)
            return
        if mask & OUT:
            self._flush(conn)
        if conn.reason is not None:
            return
        if conn.wants_input:
            self._read(conn)
        elif mask & ~(IN | OUT):
            self._hung_up(conn)

    def _hung_up(self, conn: KernelConnection) -> None:
        """Lost, or closed on both sides with something unread: that waits."""
        number = conn.error()
        if number:
            self._lost(conn, OSError(number, os.strerror(number)))
        conn.hung_up = True

    def _connected(self, conn: KernelConnection) -> None:
        number = conn.error()
        if number:
            reason = reason_of(number)
            self.counters.connections_refused += reason == Reason.REFUSED
            self._end(conn, reason)
            return
        conn.connecting = False
        self.counters.connections_opened += 1
        self._rows.append((CONNECT, conn.slot, 0, 0))
        self._flush(conn)

    def _read(self, conn: KernelConnection) -> None:
        """Take what there is, if it is wanted; after a close it is dropped."""
        if not conn.wants_input:
            return
        try:
            data = conn.sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(conn, error)
            return
        if data and not conn.close_wanted:
            self._give(conn, data)
        elif not data:
            conn.eof_told = True
            if not conn.close_wanted:
                self._rows.append((EOF, conn.slot, 0, 0))

    def _give(self, conn: KernelConnection, data: bytes) -> None:
        start, self._arena_used = self._arena_used, self._arena_used + len(data)
        self._chunks.append(data)
        self._rows.append((READ, conn.slot, start, self._arena_used))
        self.counters.read_events += 1
        self.counters.bytes_read += len(data)
        conn.once = False
        conn.idle_at = self.now_us + conn.idle_us

    def _fire(self) -> None:
        """Timeouts without data, closed handles whose peer doesn't end, accepts that had to wait."""
        if self._accept_at and self._accept_at <= self.now_us:
            self._accept_at = 0
            self._watch_listeners()
        while self._deadlines and self._deadlines[0][0] <= self.now_us:
            _, slot, generation = heapq.heappop(self._deadlines)
            conn = self.connections[slot]
            if conn is None or conn.generation != generation or conn.reason is not None:
                continue
            conn.timer_at = 0
            if conn.close_wanted and conn.state_at <= self.now_us:
                self._abort(conn, Reason.TIMED_OUT)
            elif conn.close_wanted:
                self._arm(conn, conn.state_at)
            elif conn.idle_us > 0:
                self._fire_idle(conn)

    def _fire_idle(self, conn: KernelConnection) -> None:
        if conn.idle_at <= self.now_us:
            self._rows.append((TIMEOUT, conn.slot, 0, 0))
            conn.idle_at = self.now_us + conn.idle_us
        self._arm(conn, conn.idle_at)

    def next_deadline(self, otherwise: int) -> int:
        """When (us) something may have to be done without the poll's word, if that is before `otherwise`."""
        deadline = min(otherwise, self._accept_at or otherwise)
        return min(deadline, self._deadlines[0][0]) if self._deadlines else deadline

    def move_clock(self, us: int) -> None:
        """Let the channel's clock run ahead of the machine's, for tests."""
        self._started -= us

    def set_return_at(self, now_us: int) -> None:
        """`turn` always comes back at once."""

    def events(self, count: int) -> Iterator[Row]:
        """(kind, slot, a, b) of the events that wait."""
        return iter(self._rows)

    def payload(self) -> bytes:
        """The payload of the batch; READ events are ranges of it."""
        return self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)

    @property
    def open_sockets(self) -> list[socket.socket]:
        """Of all connections."""
        return [found.sock for found in self._by_fd.values() if isinstance(found, KernelConnection)]

    def handle_of(self, slot: int) -> int:
        conn: Any = self.connections[slot]
        return int(conn.handle)

    def close(self) -> None:
        """Close every socket: what the kernel still holds of written data it goes on sending."""
        for found in self._by_fd.values():
            found.sock.close()
        self._by_fd.clear()
        self._poll.close()
