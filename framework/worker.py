"""`Worker`: one core's poll loop, from completion events to a handler's callbacks and back."""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import math
import os
import select
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mpserve.dataplane.errors import DeviceError, SetupError
from mpserve.dataplane.events import (
    ACCEPT,
    CLOSED,
    CONNECT,
    EOF,
    READ,
    SLOT_BITS,
    SLOT_MASK,
    WRITABLE,
    Command,
    Reason,
)
from mpserve.dataplane.impair_grammar import Impairment
from mpserve.dataplane.jit import CHECKS
from mpserve.dataplane.layout import BLOCK_BYTES, NEVER, Core
from mpserve.dataplane.limits import DEFAULTS, Limits
from mpserve.dataplane.tcp.state import CLOSED as STATE_CLOSED
from mpserve.framework import socket_options
from mpserve.framework.compiled_handler import CompiledHandler
from mpserve.framework.core_channel import IDLE, CoreChannel
from mpserve.framework.handler import Handler
from mpserve.framework.lwsocket import CLOSING, GONE, LwSocket
from mpserve.framework.machine import Machine
from mpserve.framework.record import Recorder
from mpserve.framework.request_batch import BAD_REQUEST, RequestBatch
from mpserve.framework.standby import Standby
from mpserve.framework.timers import Timer, Timers

ALL = -1  # every worker, in place of a core
HOUSEKEEPING_SECONDS = 0.05  # how long compiled code may keep Python, and so its signals, waiting
DEVICE_ERRORS = 300  # looks at a descriptor in error, 10 ms apart, before the worker gives up
NAP_SECONDS = 0.001  # between looks at a device that has no descriptor to sleep on ...
LONGEST_NAP_SECONDS = 0.004  # ... twice as long each time that nothing had happened
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
        self._machine = Machine(
            device,
            limits,
            ip=ip,
            prefix_length=prefix_length,
            gateway=gateway,
            routes=routes,
            counters=counters,
            impairment=impairment,
        )
        self.faulty_wire = self._machine.faulty_wire
        memory = self.memory
        memory.record.idle_spin_us = NEVER if busy_poll else idle_spin_us
        self.channel = CoreChannel(memory)
        self._listeners = {self.channel.listen(port, address or None): (address, port) for address, port in listen}
        self._recorder = Recorder(memory, record) if record else None
        self._sockets: list[LwSocket | None] = [None] * limits.max_connections
        self._closing: dict[int, LwSocket] = {}
        self.endpoints: dict[int, Any] = {}  # by slot: connections that belong to a Channel, not to the handler
        self.acceptors: dict[int, Any] = {}  # by number: the same of listeners
        self.each_turn: list[Callable[[], None]] = []  # called behind the callbacks of each turn
        self.longest_turn = HOUSEKEEPING_SECONDS  # how long compiled code may go on while nothing happens
        self._spare: list[LwSocket] = []
        tcbs = memory.arrays["tcbs"]
        self._queued_column, self._generations = tcbs.snd_queued, tcbs.generation
        self._sndbuf_column = memory.arrays["conns"].sndbuf
        self._timers, self._calls = Timers(), deque[tuple[Callable[..., Any], tuple[Any, ...]]]()
        self._threads: concurrent.futures.ThreadPoolExecutor | None = None
        self._stopping = False
        self._device_errors = 0
        self._nap = NAP_SECONDS
        self._next_timer, self._renew_at = math.inf, -1.0
        self.wake_at_us = NEVER  # when a step without events is wanted, whatever else
        self.now = self.channel.now_us / 1e6  # seconds on the stack's clock, as of this batch
        self._on_ready = on_ready
        self._standby = Standby(self.channel, self.log, slow_callback)
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._idle_poll = self._make_poll(device.wait_fds)
        self.handler_errors = 0
        self._batch = getattr(handler, "on_batch", None)
        self._requests: RequestBatch | None = None
        self._install(handler)
        if self._batch is not None and type(handler).on_data is not Handler.on_data:
            raise SetupError(f"{type(handler).__name__} defines both on_data and on_batch: keep one of them")

    def _install(self, handler: Handler) -> None:
        """A compiled handler into the loop; a codec before a Python one."""
        if isinstance(handler, CompiledHandler):
            handler.install(self.memory)
        elif handler.codec is not None:
            self._requests = RequestBatch(self.memory, handler.codec)

    @property
    def memory(self) -> Core:
        """The core's memory."""
        return self._machine.core

    def _make_poll(self, wait_fds: list[int]) -> select.poll:
        poll = select.poll()
        for fd in (self._wake, *wait_fds):
            poll.register(fd, select.POLLIN)
        return poll

    # -- the loop

    def run(self) -> None:
        """Turn until `stop`. An exception of `on_start` comes out; others are logged and abort their connection."""
        self.handler.on_start(self)
        self.channel.announce()
        if self._on_ready is not None:
            self._on_ready()
        self._standby.start()
        try:
            while not self._stopping:
                self.step()
        finally:
            self._finish()
            self._standby.stop()

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
            self._nap = NAP_SECONDS
            self._dispatch(count)
        elif count == IDLE and sleep and not self._stopping and not channel.words:
            self._sleep()
            channel.leave()
        if self._calls:
            self._run_calls()
        if self.now >= self._next_timer:
            self._run_timers()
        for function in self.each_turn:
            function()
        if self._recorder is not None:
            self._recorder.drain()
        if CHECKS:
            self._machine.check()
        return max(count, 0)

    def _schedule_return(self) -> None:
        """Have compiled code come back for the next timer, and for signals; looked at again in half that time."""
        self._renew_at = self.now + self.longest_turn / 2
        until = min(self.now + self.longest_turn, self._next_timer)
        self.channel.set_return_at(min(int(until * 1e6) + 1, self.wake_at_us))

    def _finish(self) -> None:
        try:
            self.handler.on_stop()
        except Exception:
            self._log_error("on_stop")
        self.drain()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        if self._recorder is not None:
            self._recorder.close()

    def drain(self, seconds: float = 0.2) -> None:
        """Close every connection and give their last frames a little time to leave."""
        self._close_all()
        until = time.monotonic() + seconds
        self.memory.record.idle_spin_us = 0  # come back whenever nothing happens
        while True:
            self.channel.set_return_at(self.channel.now_us)
            self.channel.turn()
            held = self.faulty_wire is not None and self.faulty_wire.held
            owed = held or self.memory.record.output_count or self.memory.record.tx_count
            if time.monotonic() > until or not owed:
                break

    def _close_all(self) -> None:
        for sock in filter(None, self._sockets):
            sock.close()
        for endpoint in self.endpoints.values():
            endpoint.finish()
        if self.handler.is_compiled:
            self.memory.record.handler = 0  # no callback follows `on_stop`
            tcbs = self.memory.arrays["tcbs"]
            for slot in np.flatnonzero(tcbs.state != STATE_CLOSED):
                self.channel.command(Command.CLOSE, int(tcbs[slot].generation) << SLOT_BITS | int(slot))

    def close(self) -> None:
        """Give the core's memory back; `run` has returned."""
        if isinstance(self.handler, CompiledHandler):
            self.handler.uninstall(self.memory)
        if self._requests is not None:
            self._requests.close()
        if self.faulty_wire is not None:
            self.log.info("the faulty wire: %s", self.faulty_wire)
        self.channel.close()
        self._machine.close()
        os.close(self._wake)

    def stop(self) -> None:
        """Let `run` return. May be called from any thread and from a signal handler."""
        self._stopping = True
        self._interrupt()

    def _interrupt(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            os.eventfd_write(self._wake, 1)

    def watch(self, fd: int) -> None:
        """Wake from sleep when `fd` is readable, too; a function of `each_turn` sees to it."""
        self._idle_poll.register(fd, select.POLLIN)

    def unwatch(self, fd: int) -> None:
        self._idle_poll.unregister(fd)

    def renew_schedule(self) -> None:
        """`longest_turn` or `wake_at_us` has changed."""
        self._renew_at = -1.0

    def _sleep(self, longest: float = math.inf) -> None:
        """Wait for a frame, a call from another thread, or the next deadline of the stack or of a timer; seconds at most."""
        record = self.memory.record
        now = self.channel.now_us
        until = min(int(record.sleep_until), self.wake_at_us)
        if self._next_timer < math.inf:
            until = min(until, int(self._next_timer * 1e6))
        if self.faulty_wire is not None:
            until = min(until, self.faulty_wire.wake_at(now))
        wait = min(max(until - now, 0) / 1e6, longest)
        if record.tx_count or record.output_count:
            wait = min(wait, NAP_SECONDS)
        elif not self.device.wait_fds:
            wait = min(wait, self._nap)
            self._nap = min(2 * self._nap, LONGEST_NAP_SECONDS)
        if self._calls or self._stopping or wait == 0:
            return
        self.memory.counters.sleeps += 1
        ready = self._idle_poll.poll(wait * 1000)
        if ready:
            record.idle_since = 0  # what woke us is about to be seen: spin again
            self._check_device(ready)
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake)

    def _check_device(self, ready: list[tuple[int, int]]) -> None:
        """An interface that is down or gone has its descriptor in error at every look: wait a little, and at last give up."""
        if not any(fd in self.device.wait_fds and state & ~select.POLLIN for fd, state in ready):
            self._device_errors = 0
            return
        self._device_errors += 1
        if self._device_errors > DEVICE_ERRORS:
            name = self.device.description or self.device.spec
            raise DeviceError(f"the interface of {name} is gone: start again when it is back")
        time.sleep(10 * NAP_SECONDS)

    # -- events to callbacks

    def _dispatch(self, count: int) -> None:
        """The callbacks of a batch. After an exception, the batch goes on with the next event."""
        channel = self.channel
        blob = channel.payload()
        dispatch = self._dispatch_rows if self._batch is None else self._dispatch_batch
        if self._requests is None:
            rows = channel.events(count)
            while not dispatch(rows, blob):
                pass
            return
        for rows, joined in self._requests.passes(count, blob):
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
            handle = int(self._generations[slot]) << SLOT_BITS | slot
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
            sock.close()
        elif kind == WRITABLE:
            if sock._drained():
                handler.on_writable(sock)
        elif kind == CONNECT:
            if sock._state != CLOSING:
                handler.on_connect(sock)
        elif sock._state != CLOSING:
            (handler.on_eof if kind == EOF else handler.on_timeout)(sock)

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
        self._closing[sock._slot] = sock

    def send_room(self, sock: Any) -> int:
        """Bytes that the socket's send buffer and the pool of blocks have room for, this batch's writes counted."""
        channel, record = self.channel, self.memory.record
        pending = sum(len(p) for w, p in zip(channel.words, channel.payloads, strict=True) if w == sock._word)
        room = int(self._sndbuf_column[sock._slot]) - int(self._queued_column[sock._slot]) - pending
        blocks = int(record.free_block_count) - sum(map(len, channel.payloads)) // (BLOCK_BYTES // 2)
        return max(min(room, blocks * (BLOCK_BYTES // 2)), 0)

    def check_hard_limit(self, sock: LwSocket) -> None:
        """Give up a peer that doesn't read what is written."""
        if sock._backlog_bytes > WRITE_HARD_LIMIT:
            self.memory.counters.slow_readers += 1
            sock.abort()

    def names(self, slot: int) -> tuple[tuple[str, int], tuple[str, int]]:
        """((address, port) of the peer, (address, port) of this side)."""
        conn = self.memory.arrays["conns"][slot]
        ports = int(conn.ports)
        return (dotted(int(conn.remote)), ports >> 16), (dotted(int(conn.local)), ports & 0xFFFF)

    def listener_of(self, slot: int) -> tuple[str, int] | None:
        return self._listeners.get(int(self.memory.arrays["conns"][slot].listener))

    def read_option(self, slot: int, level: int, name: int) -> int | bytes:
        """A socket option of a connection, with the batch's commands executed."""
        self.channel.execute()
        return socket_options.read(self.memory, slot, level, name)

    def tcp_info(self, slot: int) -> socket_options.TcpInfo:
        self.channel.execute()
        return socket_options.tcp_info(self.memory, slot)

    def set_listener_option(self, listen: tuple[str, int], level: int, name: int, value: int) -> None:
        """Set TCP_DEFER_ACCEPT (seconds), TCP_MAXSEG, IP_TOS, IP_TTL or SO_REUSEADDR of a listener, as given to `listen`.

        Raises KeyError if there is no such listener, OSError for an option that listeners don't have.
        """
        number = next((n for n, where in self._listeners.items() if where == listen), None)
        if number is None:
            raise KeyError(f"no listener at {listen}: there are {list(self._listeners.values())}")
        socket_options.set_of_listener(self.memory.arrays["listeners"][number], level, name, value)

    # -- what handlers ask

    @property
    def stats(self) -> dict[str, int]:
        """The core's counters, by name; on a faulty wire also what it did to frames."""
        counters = self.memory.counters
        found = {name: int(counters[name]) for name in counters.dtype.names}
        faults = self.faulty_wire.counters if self.faulty_wire is not None else {}
        requests = self._requests.counters if self._requests is not None else {}
        if isinstance(self.handler, CompiledHandler):
            self.handler_errors, requests = self.handler.errors, self.handler.counters
        own = {"handler_errors": self.handler_errors, "slow_callbacks": self._standby.slow_callbacks}
        return found | faults | requests | own

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
        """Call a function on this worker's thread after so many seconds."""
        timer = self._timers.add(self.now + seconds, function, arguments)
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
        self._calls.append((self.handler.on_message, (self.core, bytes(data))))

    def run_in_thread(self, function: Callable[..., Any], *arguments: Any) -> concurrent.futures.Future[Any]:
        """Run a function that may block in a thread; the future is completed on this worker's thread."""
        if self._threads is None:
            self._threads = concurrent.futures.ThreadPoolExecutor(thread_name_prefix="mpserve")
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def run() -> None:
            try:
                result = function(*arguments)
            except BaseException as error:
                self.call_soon_threadsafe(future.set_exception, error)
            else:
                self.call_soon_threadsafe(future.set_result, result)

        self._threads.submit(run)
        return future

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


def dotted(address: int) -> str:
    """The low 32 bits as an IPv4 address."""
    return ".".join(str(address >> shift & 0xFF) for shift in (24, 16, 8, 0))
