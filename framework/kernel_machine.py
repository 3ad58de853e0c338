"""Kernel sockets in place of a device and the stack: `--device kernel`. What a worker asks of `Machine`, answered over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mpserve.dataplane.errors import SetupError
from mpserve.dataplane.limits import Limits
from mpserve.framework import kernel_options, socket_options
from mpserve.framework.handler import Handler
from mpserve.framework.kernel_channel import KernelChannel
from mpserve.framework.kernel_connection import KernelConnection, Name
from mpserve.framework.kernel_settings import DESCRIPTION

if TYPE_CHECKING:
    from mpserve.framework.kernel_requests import KernelRequests

LONGEST_SLEEP_US = 1_000_000


class KernelSockets:
    """Stands where a `Device` would. `given`: the limits that were set; the kernel's defaults hold for other buffers."""

    def __init__(self, given: frozenset[str] = frozenset(), *, share_ports: bool = False) -> None:
        """`share_ports`: other workers listen on the same ones."""
        self.spec = self.description = DESCRIPTION
        self.wait_fds: list[int] = []
        self._given, self._share_ports = given, share_ports

    def make_machine(self, limits: Limits, **settings: Any) -> KernelMachine:
        """Raises SetupError for what kernel sockets can't honour."""
        for name in ("gateway", "routes", "impairment", "record"):
            if settings.get(name):
                raise SetupError(f"kernel sockets have no {name}: leave it out")
        self.channel = KernelChannel(limits, self._given, share_ports=self._share_ports)
        self.wait_fds = [self.channel.fileno()]
        return KernelMachine(self.channel)

    def close(self) -> None:
        """Nothing was opened."""


class KernelMachine:
    """What a worker asks about its connections, by slot."""

    core = None  # there is no stack
    faulty_wire = None
    hurries = False
    attend: Callable[[], None] | None = None

    def __init__(self, channel: KernelChannel) -> None:
        self.channel, self.counters = channel, channel.counters

    # -- the loop

    def spin(self, us: float) -> None:
        """How long the channel looks about before it says IDLE; math.inf: for ever."""
        self.channel.spin_us = us

    @property
    def holds_output(self) -> bool:
        """Whether something that was written has not become the kernel's."""
        return any(conn is not None and conn.parts for conn in self.channel.connections)

    def sleep_until(self, now_us: int) -> int:
        """The next deadline (us), after IDLE."""
        return self.channel.next_deadline(now_us + LONGEST_SLEEP_US)

    def begin_serving(self) -> None:
        """The kernel does that as it listens."""

    def begin_draining(self) -> None:
        """Nobody steers anything here."""

    def may_sleep(self) -> bool:
        return True

    def slept(self) -> None:
        """Nobody asks."""

    def woken(self) -> None:
        """The channel looks before it says IDLE, in any case."""

    # -- handlers that compiled code serves

    def install(self, handler: Handler) -> KernelRequests | None:
        """What puts a codec before a handler. Raises SetupError for a compiled one."""
        if handler.is_compiled:
            raise SetupError(
                f"{type(handler).__name__} is compiled into the stack's loop, and kernel sockets have none: "
                "take another --device, or make it a Handler"
            )
        if handler.codec is None:
            return None
        from mpserve.framework.kernel_requests import KernelRequests

        return KernelRequests(self.channel, handler.codec)

    def uninstall(self, handler: Handler) -> None:
        """There was nothing installed."""

    # -- connections

    def handle_of(self, slot: int) -> int:
        return self._conn(slot).handle

    def _conn(self, slot: int) -> KernelConnection:
        conn = self.channel.connections[slot]
        assert conn is not None
        return conn

    def send_room(self, slot: int, word: int) -> int:
        """Bytes that may be queued for a connection, this batch's writes (`word`) counted."""
        channel, conn = self.channel, self._conn(slot)
        pending = sum(len(p) for w, p in zip(channel.words, channel.payloads, strict=True) if w == word)
        return max(conn.sndbuf - conn.queued - pending, 0)

    def queued(self, slot: int) -> int:
        """Bytes that were written and have not become the kernel's."""
        conn = self.channel.connections[slot]
        return conn.queued if conn is not None else 0

    def stop_listening(self, number: int) -> None:
        self.channel.stop_listening(number)

    def retire_listeners(self) -> None:
        """The kernel does that by itself."""

    def names(self, slot: int) -> tuple[Name, Name]:
        """((address, port) of the peer, (address, port) of this side)."""
        conn = self._conn(slot)
        return conn.peer, conn.sockname or conn.sock.getsockname()

    def listener_of(self, slot: int) -> int:
        """The number of the listener that accepted the connection; -1 if none did."""
        return self._conn(slot).listener

    def option_arguments(self, slot: int, level: int, name: int, value: int | bytes | str) -> list[int]:
        """Set an option behind what is in the batch; nothing is left to be commanded. Raises OSError."""
        self.channel.execute()
        conn = self._conn(slot)
        kernel_options.write(conn.sock, level, name, value)
        if (level, name) == kernel_options.BUFFERS[1]:
            assert isinstance(value, int)
            conn.sndbuf = value
        return []

    def read_option(self, slot: int, level: int, name: int) -> int | bytes:
        """A socket option of a connection, with the batch's commands executed."""
        self.channel.execute()
        return kernel_options.read(self._conn(slot).sock, level, name)

    def tcp_info(self, slot: int) -> socket_options.TcpInfo:
        """TCP_INFO of a connection, with the batch's commands executed."""
        self.channel.execute()
        conn = self._conn(slot)
        return kernel_options.tcp_info(conn.sock, conn.queued)

    def set_listener_option(self, number: int, level: int, name: int, value: int) -> None:
        """Raises OSError for an option that listeners of the stack don't have."""
        socket_options.require_listener_option(level, name, value)
        self.channel.listeners[number].sock.setsockopt(level, name, value)

    # -- the rest

    def stats(self) -> dict[str, int]:
        """What is counted, by the names that the stack's counters have."""
        return dict(vars(self.counters))

    def all_stats(self) -> list[dict[str, int]]:
        """Nothing is counted in a segment."""
        return []

    def close_recorder(self) -> None:
        """There is none."""

    def close(self) -> None:
        self.channel.close()
