"""`Channel`: MegaPipe's interface (OSDI '12) to the stack of one core, and to regular file descriptors beside it.

Commands are gathered and carried out in batches; each ends in one completion, which `dispatch` gives. Nothing tells of
readiness. `docs/channel.md` has a row for each method and says where the paper is left.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
import operator
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mpserve.dataplane.errors import SetupError
from mpserve.dataplane.layout import NEVER
from mpserve.framework.completions import Completion
from mpserve.framework.endpoints import Endpoint, Listener, connect
from mpserve.framework.errors import Closed
from mpserve.framework.machine import dotted
from mpserve.framework.regular_fds import Poller, make_regular
from mpserve.framework.regular_files import Threads
from mpserve.framework.worker import HOUSEKEEPING_SECONDS, Worker

BATCH = 32  # commands
LOOK_SECONDS = 0.0002  # between looks at regular descriptors while the core polls its device
LONGEST_WAIT_SECONDS = 1e9
MOST_ACCEPTS = 1 << 31
MOST_TELLS = 8  # calls of on_completions in one turn
_CHANNEL_BITS = 16
_numbers = itertools.count(1)


class Channel:
    """A channel of one core. Not thread-safe: it belongs to the thread that made it.

    `Channel()` alone opens a device, by default `device="veth"`, `ip="10.9.0.2/24"`, with the settings of the command line
    by keyword (gateway, routes, busy_poll, idle_spin_us, max_connections, ...); its `dispatch` drives the stack. While more
    than 2 ms pass between two calls, a second thread turns it, unless `standby` is False: what arrives is acknowledged and
    kept, what is lost is sent again. Use it as a context manager, or call `destroy`.

    `Channel(worker)` shares the core of a worker, whose loop drives the stack: `dispatch` never waits there, and
    `on_completions(channel)` is called behind the callbacks of each turn that leaves completions to dispatch. With
    `drives`, nobody else turns the worker, and `dispatch` does.

    `batch` commands are carried out together; 1 turns batching off.
    """

    def __init__(
        self,
        worker: Worker | None = None,
        *,
        batch: int = BATCH,
        on_completions: Callable[[Channel], None] | None = None,
        drives: bool = False,
        standby: bool = True,
        device: Any = None,
        ip: str | None = None,
        **settings: Any,
    ) -> None:
        if on_completions is not None and not callable(on_completions):
            raise TypeError(f"on_completions = {on_completions!r}: give a function of a channel")
        if operator.index(batch) < 1:
            raise ValueError(f"a batch of {batch} commands: give 1 or more")
        if worker is not None and (device is not None or ip is not None or settings):
            raise ValueError("a channel in a worker has the worker's device and settings: leave them out")
        if worker is not None and worker.memory is None:
            raise SetupError("a channel needs the stack, which --device kernel has not: take another device")
        if worker is not None and worker.handler.is_compiled:
            raise SetupError(f"{type(worker.handler).__name__} is compiled and takes every event: use a Handler")
        self._undo = contextlib.ExitStack()
        if worker is None:
            from mpserve.framework.alone import open_worker

            worker = open_worker(self._undo, device, ip, settings, standby)
            drives = True
        self.worker = worker
        self.ready: deque[Completion] = deque()
        self.poller, self.threads = Poller(), Threads()
        self._batch: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._batch_size, self._drives, self._on_completions = batch, drives, on_completions
        self._endpoints: dict[int, Endpoint] = {}
        self._descriptors: dict[int, int] = {}  # handle by descriptor
        self._number = next(_numbers) & ((1 << _CHANNEL_BITS) - 1)
        self._given = 0  # handles so far
        self._looks_often = self._closed = False
        worker.watch(self.poller.fileno())
        worker.each_turn.append(self._each_turn)

    # -- endpoints and handles

    def listen(self, address: tuple[str, int]) -> Listener:
        """A listener of our stack at (address, port), "" for any address of ours; it listens when it is registered.

        Raises ValueError for an address that is not ours and a port out of 1 to 65535.
        """
        host, port = address
        ours = dotted(int(self.worker.memory.record.address))
        if host not in ("", "0.0.0.0", ours):
            raise ValueError(f"{host} is not an address of this stack: give {ours}, or '' for any")
        if not 0 < port < 65536:
            raise ValueError(f"port {port}: ports are 1 to 65535")
        return Listener(self, ours if host == ours else "", port)

    def register(self, endpoint: Any, cookie: Any = None, cpu_mask: int = 0) -> int:
        """A handle of an endpoint: a listener, the endpoint of an ACCEPT, a descriptor or an object with `fileno()`.

        `cookie` comes with each of its completions. `cpu_mask` 0 stands for this channel's core, the only one there may be.
        Raises ValueError for another core, a second registration and what belongs to another channel, OSError for what
        can't be listened on, read or written, Closed for an endpoint that was closed.
        """
        self._require_open()
        self._check_mask(cpu_mask)
        if not isinstance(endpoint, Endpoint):
            endpoint = self._make_regular(endpoint)
        if endpoint.channel is not self:
            raise ValueError(f"{endpoint!r} belongs to another channel")
        if endpoint.closed:
            raise Closed(f"{endpoint!r} was closed")
        if endpoint.handle:
            raise ValueError(f"{endpoint!r} is registered already")
        self._carry_out()  # the end of what it was before may stand in the batch
        endpoint.begin()
        return self._give_handle(endpoint, cookie)

    def unregister(self, handle: int) -> Any:
        """Give an endpoint back as it was registered, to be used without the channel or registered again.

        All its pending commands are cancelled and none of them completes, not even those whose completions wait to be
        dispatched. What of a WRITE the send buffer has not taken is not sent. A listener of ours stops listening, and
        connections whose ACCEPTs were not dispatched are closed.
        """
        endpoint = self._get(handle)
        self._carry_out()
        self._drop_handle(handle, endpoint)
        endpoint.forget()
        endpoint.handle, endpoint.cookie = 0, None
        dropped = [completion for completion in self.ready if completion.handle == handle]
        self.ready = deque(completion for completion in self.ready if completion.handle != handle)
        _close_unseen(dropped)
        endpoint.put_back([completion.data for completion in dropped if completion.data])
        return endpoint.given_back()

    def _check_mask(self, cpu_mask: int) -> None:
        here = 1 << self.worker.core
        if cpu_mask not in (0, here):
            raise ValueError(
                f"cpu_mask {cpu_mask:#x}: this channel serves core {self.worker.core} alone: give {here:#x}, or 0 for it"
            )

    def _make_regular(self, thing: Any) -> Endpoint:
        endpoint = make_regular(self, thing)
        if endpoint.fd in self._descriptors:  # type: ignore[attr-defined]
            raise ValueError(f"{thing!r} is registered already")
        return endpoint

    def _give_handle(self, endpoint: Endpoint, cookie: Any) -> int:
        self._given += 1
        endpoint.handle = handle = self._given << _CHANNEL_BITS | self._number
        endpoint.cookie = cookie
        self._endpoints[handle] = endpoint
        if hasattr(endpoint, "fd"):
            self._descriptors[endpoint.fd] = handle
        return handle

    def _drop_handle(self, handle: int, endpoint: Endpoint) -> None:
        del self._endpoints[handle]
        if hasattr(endpoint, "fd"):
            del self._descriptors[endpoint.fd]

    def _get(self, handle: int) -> Endpoint:
        """Raises Closed for a handle that was, ValueError for one that never was, or is another channel's."""
        endpoint = self._endpoints.get(handle)
        if endpoint is None:
            raise self._no_such(handle)
        return endpoint

    def _no_such(self, handle: Any) -> Exception:
        if self._closed:
            return Closed("the channel was closed")
        if type(handle) is not int:
            return TypeError(f"{handle!r} is no handle: give what register or connect returned")
        if handle & ((1 << _CHANNEL_BITS) - 1) != self._number:
            return ValueError(f"{handle:#x} is no handle of this channel")
        if 0 < handle >> _CHANNEL_BITS <= self._given:
            return Closed(f"the handle {handle:#x} was closed or unregistered")
        return ValueError(f"{handle:#x} is a handle that this channel has never given")

    # -- commands

    def accept(self, handle: int, count: int = 1, regular: bool = False) -> None:
        """Ask for `count` connections of a listener, each of which completes on its own as an ACCEPT.

        A kernel listener's are `socket.socket` objects, ours are lightweight, or `socket.socket` objects if `regular`: one
        end of a pair, as `sock.to_socket()` of a handler gives it, with `peername` and `sockname`.
        """
        endpoint = self._get(handle)
        if not endpoint.listens:
            raise ValueError(f"{endpoint!r} is no listener: it takes no accept")
        if not 0 < operator.index(count) < MOST_ACCEPTS:
            raise ValueError(f"accept of {count} connections: ask for 1 to {MOST_ACCEPTS - 1}")
        self._put(endpoint.accept, count, bool(regular))

    def read(self, handle: int, size: int, offset: int | None = None) -> None:
        """Ask for 1 to `size` bytes. READ brings them, or 0 bytes at the end of the stream, or a negative errno.

        A file is read at `offset`, or at its position, which moves.
        """
        endpoint = self._stream(handle, "read", offset)
        if operator.index(size) < 1:
            raise ValueError(f"read of {size} bytes: ask for 1 or more")
        self._put(endpoint.read, size, offset)

    def write(self, handle: int, data: bytes | bytearray | memoryview, offset: int | None = None) -> None:
        """Send all of `data`, which is copied before this returns. WRITE tells when the send buffer has taken it."""
        endpoint = self._stream(handle, "write", offset)
        if endpoint.shut:
            raise Closed(f"the handle {handle:#x} was disconnected: it takes no more writes")
        self._put(endpoint.write, data if type(data) is bytes else bytes(memoryview(data)), offset)

    def writev(self, handle: int, parts: Sequence[bytes | bytearray | memoryview], offset: int | None = None) -> None:
        """`write` of several pieces as one: one WRITE completes."""
        self.write(handle, b"".join(parts), offset)

    def connect(self, address: tuple[str, int], cookie: Any = None, *, source_port: int = 0) -> int:
        """Begin a connection to (IPv4 address, port); its handle. CONNECT tells the outcome; commands may be given before.

        Raises OSError for what can't even begin: no route, no free port, the table full.
        """
        self._require_open()
        return self._give_handle(connect(self, address[0], address[1], source_port), cookie)

    def disconnect(self, handle: int) -> None:
        """End the stream behind what was written (FIN), as shutdown(SHUT_WR) does; reading goes on, the handle stays.

        DISCONNECT tells when the send buffer has taken all of it.
        """
        endpoint = self._stream(handle, "disconnect", None)
        if not endpoint.takes_disconnect:
            raise ValueError(f"{endpoint!r} is no socket: it takes no disconnect, close it")
        endpoint.shut = True
        self._put(endpoint.disconnect)

    def close(self, handle: int) -> None:
        """Close an endpoint and give its handle up at once.

        What was written before is still sent, its WRITEs complete; what else is pending completes with -ECANCELED.
        """
        endpoint = self._get(handle)
        self._drop_handle(handle, endpoint)
        endpoint.closed = True
        self._put(endpoint.end)

    def setsockopt(self, handle: int, level: int, name: int, value: int | bytes | str) -> None:
        """Set a socket option by the numbers of Python's `socket` module, at once, behind the commands given before.

        Raises OSError for one that the endpoint does not have or a value out of range.
        """
        endpoint = self._get(handle)
        self._carry_out()
        endpoint.setsockopt(level, name, value)

    def getsockopt(self, handle: int, level: int, name: int) -> int | bytes:
        """A socket option's value. Raises OSError for one that the endpoint does not have."""
        endpoint = self._get(handle)
        self._carry_out()
        return endpoint.getsockopt(level, name)

    def _stream(self, handle: int, command: str, offset: int | None) -> Endpoint:
        endpoint = self._get(handle)
        if endpoint.listens:
            raise ValueError(f"{endpoint!r} is a listener: it takes no {command}")
        if offset is not None:
            if not endpoint.seeks:
                raise OSError(errno.ESPIPE, f"{endpoint!r} is no file: it has no offset")
            if not 0 <= operator.index(offset) < 1 << 63:
                raise ValueError(f"offset {offset}: give 0 or more")
        return endpoint

    # -- batches

    def _put(self, command: Callable[..., None], *arguments: Any) -> None:
        self._batch.append((command, arguments))
        if len(self._batch) >= self._batch_size:
            self.flush()

    def _carry_out(self) -> None:
        """Have the endpoints begin the commands of the batch."""
        batch, self._batch = self._batch, []
        for command, arguments in batch:
            command(*arguments)

    def flush(self) -> None:
        """Carry out the commands of the batch now. In a worker, frames leave when its callback returns."""
        self._carry_out()
        if self._drives:
            self.worker.step(sleep=False, spin=False)
            self.worker.channel.leave()

    def _each_turn(self) -> None:
        """Behind the callbacks of a turn of the worker."""
        self.poller.poll()
        if self.poller.waits != self._looks_often:
            self._looks_often = self.poller.waits
            self.worker.longest_turn = LOOK_SECONDS if self._looks_often else HOUSEKEEPING_SECONDS
            self.worker.renew_schedule()
        if not self._drives:
            self._tell()

    def _tell(self) -> None:
        """In a worker: flush where nothing is pending, and have the user dispatch, again where that completes at once."""
        for _ in range(MOST_TELLS):
            if not self.ready:
                self._carry_out()
            before = len(self.ready)
            if not before or self._on_completions is None:
                return
            self.worker._guarded_call(self._on_completions, (self,))
            if len(self.ready) >= before:
                return  # he does not want them now
        self.worker.call_soon_threadsafe(_nothing)  # so that the worker does not sleep over what is left

    # -- completions

    def dispatch(self, timeout: float | None = None, max_events: int = 256) -> list[Completion]:
        """Completions, `max_events` at most, in the order in which they came about; none if there were none in time.

        Without any pending, the batch is flushed and `timeout` seconds are waited for the first; None: for ever, 0: not at
        all. In a worker nothing is ever waited for.
        """
        self._require_open()
        if operator.index(max_events) < 1:
            raise ValueError(f"max_events {max_events}: give 1 or more")
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"a timeout of {timeout} s: give 0 or more, or None to wait for ever")
        if not self.ready:
            if self._drives and timeout != 0:
                self._wait(timeout)
                self.worker.channel.leave()
            else:
                self.flush()
        ready = self.ready
        if len(ready) <= max_events:
            self.ready = deque()
            return list(ready)
        return [ready.popleft() for _ in range(max_events)]

    def _wait(self, timeout: float | None) -> None:
        """Drive the stack until something completes, or `timeout` is over on the stack's clock."""
        worker = self.worker
        self._carry_out()
        if timeout is not None or self.ready:
            worker.step(sleep=False, spin=False)
        if timeout is None:
            while not self.ready:
                worker.step()
            return
        clock = worker.channel
        worker.wake_at_us = until_us = clock.now_us + math.ceil(min(timeout, LONGEST_WAIT_SECONDS) * 1e6)
        worker.renew_schedule()
        try:
            while not self.ready and clock.now_us < until_us:
                worker.step()
        finally:
            worker.wake_at_us = NEVER
            worker.renew_schedule()

    # -- the end

    def _require_open(self) -> None:
        if self._closed:
            raise Closed("the channel was closed")

    def destroy(self) -> None:
        """Close everything the channel has, and the device that it has opened. Twice is once.

        Completions that wait are dropped. Connections get 0.2 s for their last frames where the channel stands alone; one
        that has WRITEs which its send buffer has not taken is reset. Files are written to the end.
        """
        if self._closed:
            return
        self._carry_out()
        for handle, endpoint in list(self._endpoints.items()):
            self._drop_handle(handle, endpoint)
            endpoint.closed = True
            endpoint.end()
        self._closed = True
        for connection in [e for e in self.worker.endpoints.values() if e.channel is self]:
            connection.close()
        self.worker.each_turn.remove(self._each_turn)
        self.worker.unwatch(self.poller.fileno())
        self.threads.close()
        self.poller.close()
        _close_unseen(self.ready)
        self.ready.clear()
        self._undo.close()

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *_: object) -> None:
        self.destroy()


def _close_unseen(completions: Iterable[Completion]) -> None:
    """Close the connections of ACCEPTs that nobody will see."""
    for completion in completions:
        if completion.endpoint is not None:
            completion.endpoint.close()


def _nothing() -> None:
    pass
