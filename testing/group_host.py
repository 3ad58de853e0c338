"""`GroupHost`: a handler on several cores, on one virtual wire, in virtual time: what `--cores` does, without processes.

A function stands for the NIC: it says on which core's queue a client's segment arrives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mpserve.dataplane.limits import Limits
from mpserve.dataplane.memory import allocate, unregister
from mpserve.dataplane.switchboard import Seat, Switchboard, size
from mpserve.framework.handler import Handler
from mpserve.testing.client import Client
from mpserve.testing.host import STEP_SECONDS, Host
from mpserve.testing.segment import Segment

CORES_LIMITS = {"max_connections": 1024, "blocks": 1024, "time_wait": 512, "syn_backlog": 128, "neighbors": 64}


class _Member(Host):
    """One core of a group; what clients send goes through the group."""

    def __init__(self, group: GroupHost, handler: Handler, seat: Seat, **settings: Any) -> None:
        super().__init__(handler, seat=seat, **settings)
        self._group = group
        self._clients, self._listening, self._accepted = group.clients, group.listening, group.accepted
        self.worker.machine.begin_serving()

    def _arrive(self, segment: Segment) -> None:
        self._group.arrive(segment)

    def take(self, segment: Segment) -> None:
        """A segment on this core's queue."""
        super()._arrive(segment)

    def turn(self) -> bool:
        """Whether anything happened. A frame may have gone on to another core without a trace here."""
        waited = self._wire.waiting
        events = self.worker.step(sleep=False)
        return bool(self._carry() or waited or events or self._pending())


class GroupHost:
    """`make_handler()` makes each core's handler; `nic(segment, count)` is the number of the core where it arrives.

    `accepting` are the cores that listen, all if it is not given; `one_receives` has new flows spread by steering, as on a
    device with one queue. Other settings are Host's.
    """

    def __init__(
        self,
        make_handler: Callable[[], Handler],
        *,
        cores: int = 2,
        nic: Callable[[Segment, int], int] = lambda segment, count: segment.sport % count,
        accepting: tuple[int, ...] | None = None,
        one_receives: bool = False,
        port: int = 7,
        seed: int = 1,
        **settings: Any,
    ) -> None:
        self.nic, self.ip, self.port = nic, "10.9.0.2", port
        self.clients: dict[tuple[str, int], Client] = {}
        self.listening: dict[tuple[str, int], list[Client]] = {}
        self.accepted: dict[tuple[str, int, int], Client] = {}
        self.arrived = [0] * cores  # segments on each core's queue
        self._settings = CORES_LIMITS | settings
        self._make_handler, self._accepting = make_handler, range(cores) if accepting is None else accepting
        limits = Limits(**{k: v for k, v in self._settings.items() if k in Limits.__dataclass_fields__})
        self._memory = allocate("u1", size(cores, limits))
        self.board = Switchboard(self._memory, cores, limits).make(one_receives=one_receives, seed=seed)
        self._next_port = 40_000
        self.members: list[_Member | None] = [None] * cores
        for member in range(cores):
            self.start(member)

    def start(self, member: int) -> _Member:
        """Have a core serve, in place of one that was killed."""
        port = self.port if member in self._accepting else 0
        made = _Member(self, self._make_handler(), Seat(self.board, member), port=port, **self._settings)
        made.port = self.port
        made.record.now = max([made.record.now, *(m.record.now for m in self._alive)])
        made.record.wheel_tick = made.record.now >> 10
        self.members[member] = made
        return made

    def kill(self, member: int) -> None:
        """End a core as SIGKILL ends a process: nothing is said to anybody; the supervisor notices."""
        dead = self.members[member]
        assert dead is not None
        self.members[member] = None
        dead.worker.close()
        dead._wire.close()

    @property
    def _alive(self) -> list[_Member]:
        return [member for member in self.members if member is not None]

    def arrive(self, segment: Segment) -> None:
        """A client's segment, on the queue that the NIC chooses; if its core is down, it is lost."""
        chosen = self.nic(segment, len(self.members))
        self.arrived[chosen] += 1
        member = self.members[chosen]
        if member is not None:
            member.take(segment)

    def connect(self, port: int | None = None, *, sport: int | None = None, **client: Any) -> Client:
        """Open a connection and let the handshake finish."""
        self._next_port += 1
        local = ("10.9.0.1", sport or self._next_port)
        made = Client(self.arrive, local=local, remote=(self.ip, port or self.port), **client)
        self.clients[local] = made
        self.settle()
        return made

    def listen(self, port: int, address: str = "10.9.0.1") -> list[Client]:
        """Be a server for handlers to connect to: its connections are appended to the list."""
        return self.listening.setdefault((address, port), [])

    def settle(self) -> None:
        """Let everything that can happen now happen, on every core."""
        for _ in range(100_000):
            if not any([member.turn() for member in self._alive]):
                return
        raise AssertionError("the cores do not come to rest")

    def advance(self, seconds: float) -> None:
        """Let virtual time pass on every core."""
        self.settle()
        for _ in range(round(seconds / STEP_SECONDS)):
            for member in self._alive:
                member.record.now += round(STEP_SECONDS * 1e6)
            for client in (*self.clients.values(), *self.accepted.values()):
                client.tick(self._alive[0].now)
            self.settle()

    def stats(self, name: str) -> list[int]:
        """A counter of each core; 0 of one that is down."""
        return [0 if member is None else member.stats[name] for member in self.members]

    def stop(self) -> None:
        """Stop every core. The host can't be used any more."""
        for member in self._alive:
            member.stop()
        self.board.close()
        unregister(self._memory.ctypes.data)
