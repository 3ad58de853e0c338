"""What a worker has to do with the others of its server: `Peers`, or `Alone` where there are none.

Messages, counters that all can read, and how the worker sleeps and is woken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mpserve.framework.counters import Published, read_published
from mpserve.framework.group import ASLEEP, Group
from mpserve.framework.mailbox import MOST_BYTES, Mailbox
from mpserve.framework.polling import Wake

if TYPE_CHECKING:
    from mpserve.framework.worker import Worker

ALL = -1  # every worker, in place of a core
NAP_SECONDS = 0.001  # between attempts to send what the kernel had no room for
EXCHANGE_SECONDS = 0.05  # how old published counters may be
BUSY_SECONDS = 0.0001  # how long compiled code may keep a message waiting while it polls without sleep


class Alone:
    """A worker without others: in tests, behind a `Channel`, under an event loop of asyncio's."""

    row = (0, 1)  # which one, of how many rows of counters
    wait_fds: tuple[int, ...] = ()

    def __init__(self, core: int) -> None:
        self.cores = [core]
        self.wake = Wake()

    def begin(self, worker: Worker) -> None:
        """The worker has been made."""

    def post(self, worker: Worker, core: int, data: bytes) -> bool:
        """See `Worker.post`."""
        return _post_to_self(worker, core, data, self.cores)

    def total(self, counted: dict[str, int]) -> dict[str, int]:
        """What the worker has counted, and those who were there before it."""
        return counted

    def all_stats(self, worker: Worker) -> list[dict[str, int]]:
        """See `Worker.all_stats`."""
        return [{"core": worker.core} | worker.stats]

    def sleep(self, worker: Worker, seconds: float) -> list[tuple[int, int]]:
        """Until something is ready; what that is."""
        return worker.idle_poll.poll(seconds * 1000)

    def finish(self, worker: Worker) -> None:
        """The worker has turned for the last time."""

    def close(self) -> None:
        self.wake.close()


class Peers:
    """The others, as the worker of `group.index` sees them. `over_kernel`: there are kernel sockets in place of a stack."""

    def __init__(self, group: Group, *, over_kernel: bool) -> None:
        self.group, self.cores = group, group.cores
        self.row = group.index, group.workers
        self.mailbox = Mailbox(group)
        self.wait_fds = (self.mailbox.fileno(),)
        self.wake = group.wakes[group.index]
        self._published = Published(group, over_kernel)
        self._index_of = {core: index for index, core in enumerate(self.cores)}
        self._asleep = group.row(group.index) + ASLEEP
        self._exchange_at = -1.0

    def begin(self, worker: Worker) -> None:
        """From now on see to messages each turn, and to what is published now and then."""
        words, mail, waiting = self.group.words, self.mailbox.mail, self.mailbox.waiting

        def each_turn() -> None:  # of every turn: as little as can be
            if worker.now >= self._exchange_at or words[mail] or waiting:
                self._exchange(worker)

        worker.each_turn.append(each_turn)
        if worker.polls_busily and len(self.cores) > 1:
            worker.longest_turn = BUSY_SECONDS

    def _exchange(self, worker: Worker) -> None:
        """Take messages from other workers, send those to them."""
        mailbox = self.mailbox
        if worker.now >= self._exchange_at:
            self._exchange_at = worker.now + EXCHANGE_SECONDS
            self._published.publish(worker.counted)
            mailbox.look_again()
        if mailbox.has_mail:
            for sender, data in mailbox.take():
                worker.guarded_call(worker.give_message, (self.cores[sender], data))
        if mailbox.holds_output:
            mailbox.flush()

    def post(self, worker: Worker, core: int, data: bytes) -> bool:
        """See `Worker.post`."""
        to_self = _post_to_self(worker, core, data, self.cores)
        own = self.group.index
        receivers = [self._index_of[core]] if core != ALL else range(self.group.workers)
        return all([self.mailbox.post(index, data) for index in receivers if index != own]) and to_self

    def total(self, counted: dict[str, int]) -> dict[str, int]:
        """What the worker has counted, and those who were there before it."""
        return self._published.total(counted)

    def all_stats(self, worker: Worker) -> list[dict[str, int]]:
        """See `Worker.all_stats`."""
        self._published.publish(worker.counted)
        rows = read_published(self.group, self._published.names)
        stacks = worker.machine.all_stats() or [{} for _ in rows]
        return [{"core": core} | stack | row for core, stack, row in zip(self.cores, stacks, rows, strict=True)]

    def sleep(self, worker: Worker, seconds: float) -> list[tuple[int, int]]:
        """Until something is ready; what that is. The others know of it meanwhile."""
        mailbox = self.mailbox
        if mailbox.holds_output:
            seconds = min(seconds, NAP_SECONDS)
        self._published.publish(worker.counted)
        words, asleep = self.group.words, self._asleep
        words[asleep] = 1
        ready = worker.idle_poll.poll(0 if mailbox.has_mail else seconds * 1000)
        words[asleep] = 0
        for fd, _ in ready:
            if fd == self.wait_fds[0]:
                mailbox.look_again()
        return ready

    def finish(self, worker: Worker) -> None:
        """The worker has turned for the last time: what `on_stop` posted leaves."""
        self.mailbox.flush()
        self._published.publish(worker.counted)

    def close(self) -> None:
        self.mailbox.close()
        self._published.close()
        self.group.close()


def _post_to_self(worker: Worker, core: int, data: bytes, cores: list[int]) -> bool:
    """What of a message is for its sender; True. Raises ValueError for what can't be sent at all."""
    if len(data) > MOST_BYTES:
        raise ValueError(f"a message of {len(data)} bytes: {MOST_BYTES} at most, post it in parts")
    if core != ALL and core not in cores:
        raise ValueError(f"no worker runs on core {core}: there are {', '.join(map(str, cores))}, and ALL")
    if core in (ALL, worker.core):
        worker.add_call(worker.give_message, (worker.core, data))
    return True


def invited(invitation: Mapping[str, Any], index: int, *, over_kernel: bool) -> Peers:
    """The peers of a worker process, from what the supervisor told it."""
    return Peers(Group.attach(invitation, index), over_kernel=over_kernel)
