"""`Worker`: one core's poll loop, from completion events to a handler's callbacks and back."""

from __future__ import annotations

import concurrent.futures
import functools
import logging
import math
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mpserve.dataplane.completions import IDLE, NEVER, SLOT_MASK, Event, Reason
from mpserve.dataplane.errors import SetupError
from mpserve.dataplane.impair_grammar import Impairment
from mpserve.dataplane.limits import DEFAULTS, Limits
from mpserve.framework.codec import BAD_REQUEST
from mpserve.framework.descriptors import Descriptors
from mpserve.framework.device_watch import DeviceWatch
from mpserve.framework.errors import Closed
from mpserve.framework.handler import Handler
from mpserve.framework.joint import Joint, OnOver, join
from mpserve.framework.lwsocket import CLOSING, FORGOTTEN, GONE, LwSocket
from mpserve.framework.polling import Wake
from mpserve.framework.standby import Standby
from mpserve.framework.thread_pool import ThreadPool
from mpserve.framework.timers import Timer, Timers, seconds_from_now

if TYPE_CHECKING:
    from mpserve.dataplane.layout import Core
    from mpserve.framework.machine import Machine

READ, ACCEPT, EOF, WRITABLE = int(Event.READ), int(Event.ACCEPT), int(Event.EOF), int(Event.WRITABLE)
CLOSED, CONNECT = int(Event.CLOSED), int(Event.CONNECT)
ALL = -1  # every worker, in place of a core
HOUSEKEEPING_SECONDS = 0.05  # how long compiled code may keep Python, and so its signals, waiting
LOOK_SECONDS = 0.0001  # between looks at other descriptors while there is work
SLOW_CALLBACK_SECONDS = 0.1  # a callback that runs for so long is logged
WRITE_HARD_LIMIT = 64 << 20  # bytes that one socket may hold back for a slow reader


class Worker:
    """Owns a Core on a device and runs a handler on it, on the thread that calls `run`.

    `listen` is a list of (address, port); an empty address means any of ours. Raises SetupError for what can't be had.
    """

    def __init__(
        self,
        handler: Handler,
        device: Any,
        *,
        ip: str,
        prefix_length: int = 24,
        listen: list[tuple[str, int]],
        gateway: str | None = None,
        routes: Sequence[tuple[str, int, str]] = (),
        core: int = 0,
        busy_poll: bool = False,
        idle_spin_us: int = 200,
        limits: Limits = DEFAULTS,
        log: logging.Logger | None = None,
        record: str | None = None,
        counters: str | None = None,
        impairment: Impairment | None = None,
        slow_callback: float = SLOW_CALLBACK_SECONDS,
        on_ready: Callable[[], None] | None = None,
    ) -> None:
        self.handler, self.device, self.core = handler, device, core
        self.log = log or logging.getLogger("mpserve.worker")
        self.machine: Machine = _maker_of(device)(
            limits,
            ip=ip,
            prefix_length=prefix_length,
            gateway=gateway,
            routes=routes,
            counters=counters,
            impairment=impairment,
            record=record,
        )
        machine = self.machine
        self.faulty_wire = machine.faulty_wire
        machine.spin(math.inf if busy_poll else idle_spin_us)
        self.channel = machine.channel
        self._listeners = {self._listen(address, port): (address, port) for address, port in listen}
        self._sockets: list[LwSocket | None] = [None] * limits.max_connections
        self._closing: dict[int, LwSocket] = {}
        self.endpoints: dict[int, Any] = {}  # by slot: connections of a Channel or a regular socket, not the handler's
        self.acceptors: dict[int, Any] = {}  # by number: the same of listeners
        self.each_turn: list[Callable[[], None]] = []  # called behind the callbacks of each turn
        self.longest_turn = HOUSEKEEPING_SECONDS  # how long compiled code may go on while nothing happens
        self._joints: set[Joint] = set()  # regular sockets' ends that are open
        self._spare: list[LwSocket] = []
        self._timers, self._calls = Timers(), deque[tuple[Callable[..., Any], tuple[Any, ...]]]()
        self._threads = ThreadPool(self.call_soon_threadsafe)
        self._stopping = False
        self._watch = DeviceWatch(device)
        self._next_timer, self._renew_at = math.inf, -1.0
        self.wake_at_us = NEVER  # when a step without events is wanted, whatever else
        self.now = self.channel.now_us / 1e6  # seconds on the stack's clock, as of this batch
        self._on_ready = on_ready
        self.standby = Standby(self.channel, self.log, slow_callback)
        self._wake = Wake()
        self.descriptors, self._look_at = Descriptors(self.renew_schedule), -1.0
        self._idle_poll = self._make_poll([self.descriptors.fileno(), *device.wait_fds])
        self.handler_errors = 0
        self._batch = getattr(handler, "on_batch", None)
        self.requests = machine.install(handler)  # what puts a codec before the handler, if there is one
        if self._batch is not None and type(handler).on_data is not Handler.on_data:
            raise SetupError(f"{type(handler).__name__} defines both on_data and on_batch: keep one of them")

    def _listen(self, address: str, port: int) -> int:
        try:
            return self.channel.listen(port, address or None)
        except OSError as error:
            why = f"--listen {address}:{port}: {error.strerror}: choose another port or address"
            self.machine.close()
            raise SetupError(why) from None

    @property
    def memory(self) -> Core:
        """The core's memory; kernel sockets have none."""
        return self.machine.core

    def _make_poll(self, wait_fds: list[int]) -> select.poll:
        poll = select.poll()
        for fd in (self._wake.fileno(), *wait_fds):
            poll.register(fd, select.POLLIN)
        return poll

    # -- the loop

    def run(self) -> None:
        """Turn until `stop`. An exception of `on_start` comes out; others are logged and abort their connection."""
        self.handler.on_start(self)
        self.channel.announce()
        if self._on_ready is not None:
            self._on_ready()
        self.standby.start()
        try:
            while not self._stopping:
                self.step()
        finally:
            self._finish()
            self.standby.stop()

    def step(self, sleep: bool = True, spin: bool = True) -> int:
        """One batch: the stack's turn, the callbacks of its events, the calls that are due. How many events there were.

        Without `spin` the turn comes back at once, whatever there is.
        """
        channel = self.channel
        if self.now >= self._renew_at:
            self._schedule_return()
        if not spin:
            channel.set_return_at(channel.now_us)
            self._renew_at = -1.0
        count = channel.turn()
        self.now = channel.now_us / 1e6
        if count > 0:
            self._watch.worked()
            self._dispatch(count)
        elif count == IDLE and sleep and not self._stopping and not channel.words:
            self._sleep()
            channel.leave()
        if self.descriptors.watched and (self.now >= self._look_at or not sleep):
            self._look()
        if self._calls:
            self._run_calls()
        if self.now >= self._next_timer:
            self._run_timers()
        for function in self.each_turn:
            function()
        if self.machine.attend is not None:
            self.machine.attend()
        return max(count, 0)

    def _schedule_return(self) -> None:
        """Have compiled code come back for the next timer, for signals and descriptors; renewed in half that time."""
        longest = min(self.longest_turn, LOOK_SECONDS) if self.descriptors.watched else self.longest_turn
        self._renew_at = self.now + longest / 2
        until = min(self.now + longest, self._next_timer)
        self.channel.set_return_at(min(int(until * 1e6) + 1, self.wake_at_us))

    def _look(self) -> None:
        """Call for the descriptors that are ready."""
        self._look_at = self.now + LOOK_SECONDS
        for watch in self.descriptors.ready():
            if not watch.cancelled:
                self._guarded_call(watch.function, watch.arguments)

    def _finish(self) -> None:
        try:
            self.handler.on_stop()
        except Exception:
            self._log_error("on_stop")
        self.drain()
        self._threads.close()
        self.machine.close_recorder()

    def drain(self, seconds: float = 0.2) -> None:
        """Close every connection and give their last frames a little time to leave."""
        self._close_all()
        until = time.monotonic() + seconds
        self.machine.spin(0)  # come back whenever nothing happens
        while True:
            self.channel.set_return_at(self.channel.now_us)
            self.channel.turn()
            if time.monotonic() > until or not self.machine.holds_output:
                break

    def _close_all(self) -> None:
        for sock in filter(None, self._sockets):
            sock.close()
        for endpoint in self.endpoints.values():
            endpoint.finish()
        if self.handler.is_compiled:
            self.machine.close_compiled()

    def close(self) -> None:
        """Give the core's memory back; `run` has returned."""
        self.machine.uninstall(self.handler)
        if self.requests is not None:
            self.requests.close()
        if self.faulty_wire is not None:
            self.log.info("the faulty wire: %s", self.faulty_wire)
        for joint in list(self._joints):
            joint.close()
        self.descriptors.close()
        self.machine.close()
        self._wake.close()

    def stop(self) -> None:
        """Let `run` return. May be called from any thread and from a signal handler."""
        self._stopping = True
        self._interrupt()

    def _interrupt(self) -> None:
        self._wake.set()

    def watch(self, fd: int) -> None:
        """Wake from sleep when `fd` is readable, too; a function of `each_turn` sees to it."""
        self._idle_poll.register(fd, select.POLLIN)

    def unwatch(self, fd: int) -> None:
        self._idle_poll.unregister(fd)

    def renew_schedule(self) -> None:
        """`longest_turn` or `wake_at_us` has changed, or there are descriptors to look at."""
        self._renew_at = -1.0

    def _sleep(self, longest: float = math.inf) -> None:
        """Wait for a frame, a call from another thread, or the next deadline of the stack or of a timer; seconds at most."""
        machine, now = self.machine, self.channel.now_us
        until = min(machine.sleep_until(now), self.wake_at_us)
        if self._next_timer < math.inf:
            until = min(until, int(self._next_timer * 1e6))
        wait = self._watch.longest_wait(min(max(until - now, 0) / 1e6, longest), machine.hurries)
        if self._calls or self._stopping or wait == 0:
            return
        machine.counters.sleeps += 1
        ready = self._idle_poll.poll(wait * 1000)
        if ready:
            machine.woken()
            self._look_at = -1.0
            self._watch.check(ready)
            self._wake.clear()

    # -- events to callbacks

    def _dispatch(self, count: int) -> None:
        """The callbacks of a batch. After an exception, the batch goes on with the next event."""
        channel = self.channel
        blob = channel.payload()
        dispatch = self._dispatch_rows if self._batch is None else self._dispatch_batch
        if self.requests is None:
            rows = channel.events(count)
            while not dispatch(rows, blob):
                pass
            return
        for rows, joined in self.requests.passes(count, blob):
            while not dispatch(rows, joined):
                pass

    def _dispatch_rows(self, rows: Any, blob: bytes) -> bool:
        """Call back for each event; False if one raised, the rest of `rows` still to come."""
        sockets, on_data, endpoints = self._sockets, self.handler.on_data, self.endpoints
        slot = 0
        try:
            for kind, slot, start, end in rows:
                if kind == READ:
                    sock = sockets[slot]
                    if sock is not None:
                        on_data(sock, blob[start:end])
                    elif slot in endpoints:
                        endpoints[slot].on_data(blob[start:end])
                else:
                    sock = None  # so that nobody but its table holds a socket that closes
                    self._event(kind, slot, start, end)
        except Exception:
            self._abort_after_error("a callback", sockets[slot])
            return False
        return True

    def _dispatch_batch(self, rows: Any, blob: bytes) -> bool:
        """`on_batch` gets the reads of a batch at once; ends of connections come after it, accepts before."""
        sockets = self._sockets
        items: list[tuple[LwSocket, bytes]] = []
        slot = 0
        try:
            for kind, slot, start, end in rows:
                sock = sockets[slot]
                if kind == READ:
                    if sock is not None:
                        items.append((sock, blob[start:end]))
                    elif slot in self.endpoints:
                        self.endpoints[slot].on_data(blob[start:end])
                    continue
                sock = None
                if kind != ACCEPT:
                    self._give_batch(items)
                self._event(kind, slot, start, end)
        except Exception:
            self._abort_after_error("a callback", sockets[slot])
            self._give_batch(items)
            return False
        self._give_batch(items)
        return True

    def _give_batch(self, items: list[tuple[LwSocket, bytes]]) -> None:
        """Call `on_batch` with what there is, and empty the list."""
        if not items:
            return
        given = items.copy()
        items.clear()
        try:
            self._batch(given)  # type: ignore[misc]
        except Exception:
            self._log_error("on_batch")
            for sock, _ in given:
                sock.abort()

    def _event(self, kind: int, slot: int, a: int, b: int) -> None:
        """Every event but READ."""
        handler = self.handler
        if kind == ACCEPT:
            handle = self.machine.handle_of(slot)
            if a in self.acceptors:
                self.acceptors[a].on_accept(slot, handle, b)
            else:
                handler.on_accept(self._make_socket(slot, handle))
            return
        if slot in self.endpoints:
            self.endpoints[slot].on_event(kind, a)
            return
        if kind == CLOSED:
            self._closed(slot, Reason(a))
            return
        if kind == CONNECT and a != 0:
            return  # CLOSED follows
        sock = self._sockets[slot] or self._closing.get(slot)
        if sock is None:
            return
        if kind == BAD_REQUEST:
            self._end_stream(sock, bool(a))
        elif kind == WRITABLE:
            if sock._drained():
                handler.on_writable(sock)
        elif kind == CONNECT:
            if sock._state != CLOSING:
                handler.on_connect(sock)
        elif sock._state != CLOSING:
            sock._eof |= kind == EOF
            (handler.on_eof if kind == EOF else handler.on_timeout)(sock)

    def _end_stream(self, sock: LwSocket, codec_raised: bool) -> None:
        """A stream that is none of the codec's, or at which the codec itself has failed."""
        if not codec_raised:
            sock.close()
            return
        self.handler_errors += 1
        self.log.error(
            "%s: exception in its codec: run it with NUMBA_DISABLE_JIT=1 to see it", type(self.handler).__name__
        )
        sock.abort()

    def _make_socket(self, slot: int, handle: int) -> LwSocket:
        if self._spare:
            sock = self._spare.pop()
            sock._reuse(slot, handle)
        else:
            sock = LwSocket(self, slot, handle)
        self._sockets[slot] = sock
        return sock

    def _closed(self, slot: int, reason: Reason) -> None:
        """The connection is over: tell the handler, and keep the object if nobody else holds it."""
        sock = self._sockets[slot] or self._closing.pop(slot, None)
        self._sockets[slot] = None
        if sock is None:
            return
        sock._state, sock._credit, sock._backlog, sock._backlog_bytes = GONE, -1, None, 0
        try:
            self.handler.on_close(sock, reason)
        except Exception:
            self._log_error("on_close")
        sock.cookie = None
        if sys.getrefcount(sock) == 2 and len(self._spare) < 4096:
            self._spare.append(sock)
        else:
            sock._state = FORGOTTEN

    def _abort_after_error(self, where: str, sock: LwSocket | None) -> None:
        self._log_error(where)
        if sock is not None:
            sock.abort()

    def _log_error(self, where: str) -> None:
        self.handler_errors += 1
        self.log.exception("%s: exception in %s", type(self.handler).__name__, where)

    # -- what sockets ask

    def forget(self, sock: LwSocket) -> None:
        """A socket was closed by the handler: no more callbacks but `on_close`."""
        self._sockets[sock._slot] = None
        joint = self.endpoints.get(sock._slot)
        if joint is None:
            self._closing[sock._slot] = sock
        else:
            joint.let_go()

    def join(self, sock: LwSocket, unread: bytes = b"", on_over: OnOver | None = None) -> socket.socket:
        """A regular socket for a connection, which gets no more callbacks but `on_close`, or `on_over` in its place."""
        slot = sock._slot
        if slot in self.endpoints:
            raise Closed("the connection was given to a regular socket before")
        if self.requests is not None and on_over is None:
            raise ValueError("what a codec has cut can't be given to a regular socket: leave the codec out")
        joint, regular = join(self, sock, self._joints, on_over or self._joined_is_over)
        self._sockets[slot], self.endpoints[slot] = None, joint
        joint.begin(unread)
        return regular

    def _joined_is_over(self, sock: LwSocket, reason: Reason) -> None:
        """The connection of a regular socket that the handler asked for is no more."""
        self._sockets[sock._slot] = sock
        self._closed(sock._slot, reason)

    def send_room(self, sock: Any) -> int:
        """Bytes that the socket's send buffer and the pool of blocks have room for, this batch's writes counted."""
        return self.machine.send_room(sock._slot, sock._word)

    def check_hard_limit(self, sock: LwSocket) -> None:
        """Give up a peer that doesn't read what is written."""
        if sock._backlog_bytes > WRITE_HARD_LIMIT:
            self.machine.counters.slow_readers += 1
            sock.abort()

    def listener_of(self, slot: int) -> tuple[str, int] | None:
        return self._listeners.get(self.machine.listener_of(slot))

    def set_listener_option(self, listen: tuple[str, int], level: int, name: int, value: int) -> None:
        """Set TCP_DEFER_ACCEPT (seconds), TCP_MAXSEG, IP_TOS, IP_TTL or SO_REUSEADDR of a listener, as given to `listen`.

        Raises KeyError if there is no such listener, OSError for an option that listeners don't have.
        """
        number = next((n for n, where in self._listeners.items() if where == listen), None)
        if number is None:
            raise KeyError(f"no listener at {listen}: there are {list(self._listeners.values())}")
        self.machine.set_listener_option(number, level, name, value)

    # -- what handlers ask

    @property
    def stats(self) -> dict[str, int]:
        """The core's counters, by name; on a faulty wire also what it did to frames."""
        requests = self.requests.counters if self.requests is not None else {}
        if self.handler.is_compiled:
            compiled: Any = self.handler
            self.handler_errors, requests = compiled.errors, compiled.counters
        own = {"handler_errors": self.handler_errors, "slow_callbacks": self.standby.slow_callbacks}
        return self.machine.stats() | requests | own

    def connect(self, address: tuple[str, int], cookie: Any = None, *, source_port: int = 0) -> LwSocket:
        """Begin a connection to (IPv4 address, port). `on_connect` follows, or `on_close` with the reason if it can't be had.

        What is written before is sent when the connection is there. Raises OSError for what can't even begin: no route, no
        free port, the table full; and SetupError if the address is not an IPv4 address.
        """
        if self.handler.is_compiled:
            raise SetupError(
                f"{type(self.handler).__name__} is compiled, and such handlers don't connect: use a Handler"
            )
        handle = self.channel.connect(address[0], address[1], source_port)
        sock = self._make_socket(handle & SLOT_MASK, handle)
        sock.cookie = cookie
        return sock

    def call_later(self, seconds: float, function: Callable[..., Any], *arguments: Any) -> Timer:
        """Call a function on this worker's thread after so many seconds; less than 0 is at once, as 0 is."""
        timer = self._timers.add(self.now + seconds_from_now(seconds), function, arguments)
        self._next_timer = min(self._next_timer, timer.when)
        self._renew_at = -1.0
        return timer

    def call_soon_threadsafe(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Have a function called on this worker's thread; may be called from any thread."""
        self._calls.append((function, arguments))
        self._interrupt()

    def post(self, core: int, data: bytes) -> None:
        """Send bytes to the worker on a core, or with ALL to every worker, this one included: its `on_message` gets them.

        Called on this worker's thread; not from within the call. Raises ValueError for a core without a worker.
        """
        if core not in (self.core, ALL):
            raise ValueError(f"no worker runs on core {core}: there is one, on core {self.core}")
        self._calls.append((self.handler.on_message, (self.core, bytes(memoryview(data)))))

    def add_reader(self, file: Any, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a function on this worker's thread while a kernel descriptor (a number, or what has `fileno`) can be read.

        As asyncio's: it is called again and again until something is read, at the end of file too. Replaces the one before.
        """
        self.descriptors.add_reader(file, function, *arguments)

    def remove_reader(self, file: Any) -> bool:
        """Call nothing any more; do it before closing `file`. Whether there was one."""
        return self.descriptors.remove_reader(file)

    def add_writer(self, file: Any, function: Callable[..., Any], *arguments: Any) -> None:
        """The same while a descriptor can be written."""
        self.descriptors.add_writer(file, function, *arguments)

    def remove_writer(self, file: Any) -> bool:
        """Whether there was one."""
        return self.descriptors.remove_writer(file)

    def run_in_thread(self, function: Callable[..., Any], *arguments: Any) -> concurrent.futures.Future[Any]:
        """Run a function that may block in a thread; the future is completed on this worker's thread."""
        return self._threads.run(function, arguments)

    @property
    def calls_wait(self) -> bool:
        """Whether calls from threads wait to be made."""
        return bool(self._calls)

    def _run_calls(self) -> None:
        for _ in range(len(self._calls)):
            function, arguments = self._calls.popleft()
            self._guarded_call(function, arguments)

    def _run_timers(self) -> None:
        for timer in self._timers.due(self.now):
            self._guarded_call(timer.function, timer.arguments)
        self._next_timer = self._timers.next_at
        self._renew_at = -1.0

    def _guarded_call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            function(*arguments)
        except Exception:
            self._log_error(getattr(function, "__qualname__", repr(function)))


def _maker_of(device: Any) -> Callable[..., Machine]:
    """What makes the machine behind a device: its own, if it has one, else the stack's, which is loaded only then."""
    own: Callable[..., Machine] | None = getattr(device, "make_machine", None)
    if own is not None:
        return own
    from mpserve.framework.machine import Machine

    return functools.partial(Machine, device)
