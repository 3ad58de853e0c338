"""`Rebalancer`: who hands new connections to whom, as the cores' loads change; time and loads are the test's."""

from collections.abc import Iterator, Mapping

import numpy as np
import pytest

from mpserve.dataplane.limits import Limits
from mpserve.dataplane.member_rows import ABSENT, SERVING
from mpserve.dataplane.memory import allocate, unregister
from mpserve.dataplane.switchboard import SHARES, Switchboard, size
from mpserve.framework.rebalance import LOOK_SECONDS, PATIENCE, Rebalancer

LIMITS = Limits(max_connections=16, syn_backlog=16, time_wait=16, blocks=16)
CORES = 3


class Cores:
    """Rebalancers of CORES cores that are busy as `loads` says."""

    def __init__(self) -> None:
        self._memory = allocate("u1", size(CORES, LIMITS))
        self.board = Switchboard(self._memory, CORES, LIMITS).make(
            seed=1, rss_key=bytes(40), rss_table=bytes(range(2)) * 64
        )
        self.loads, self.queued = [0.0] * CORES, [0.0] * CORES
        self.redirected: list[Mapping[int, int]] = []
        self._worked = [0.0] * CORES
        self.now = 1.0
        for member in range(CORES):
            self.board.set_state(member, SERVING)
        self.rebalancers = [self._make(member) for member in range(CORES)]

    def _make(self, member: int) -> Rebalancer:
        return Rebalancer(
            self.board,
            member,
            busy=lambda other: int(self._worked[other]),
            waiting=lambda: self.queued[member],
            redirect=self.redirected.append,
        )

    def look(self, times: int) -> None:
        for _ in range(times):
            self.now += 1.01 * LOOK_SECONDS
            for member, load in enumerate(self.loads):
                self._worked[member] += load * LOOK_SECONDS * 1e6
            for rebalancer in self.rebalancers:
                rebalancer.look(self.now)

    def share(self, member: int) -> int:
        return int(self.board.rows[member].redirect_share)

    def to(self, member: int) -> int:
        return int(self.board.rows[member].redirect_to)

    def close(self) -> None:
        self.board.close()
        unregister(self._memory.ctypes.data)


@pytest.fixture
def cores() -> Iterator[Cores]:
    made = Cores()
    yield made
    made.close()


def test_equal_cores_hand_on_nothing(cores):
    cores.loads = [0.8, 0.8, 0.75]
    cores.look(50)
    assert [cores.share(member) for member in range(CORES)] == [0, 0, 0]


def test_a_busy_core_hands_on_more_and_more_to_the_idlest(cores):
    cores.loads = [0.95, 0.5, 0.1]
    cores.look(PATIENCE + 2)
    first = cores.share(0)
    assert first > 0 and cores.to(0) == 2
    cores.look(50)
    assert cores.share(0) == SHARES and cores.to(0) == 2
    assert cores.share(2) == 0


def test_a_peak_of_one_look_changes_nothing(cores):
    cores.look(5)
    cores.loads = [0.3, 0.0, 0.0]
    cores.look(1)
    cores.loads = [0.0, 0.0, 0.0]
    cores.look(20)
    assert cores.share(0) == 0


def test_what_is_handed_on_comes_back_when_loads_are_equal_again(cores):
    cores.loads = [1.0, 0.0, 0.0]
    cores.look(60)
    assert cores.share(0) == SHARES
    cores.loads = [0.5, 0.5, 0.5]
    cores.look(60)
    assert cores.share(0) == 0


def test_a_full_accept_queue_is_load(cores):
    cores.queued[1] = 0.9
    cores.look(30)
    assert cores.share(1) > 0 and cores.share(0) == cores.share(2) == 0


def test_nothing_is_handed_to_a_core_that_is_down(cores):
    cores.loads = [0.9, 0.5, 0.0]
    cores.board.set_state(2, ABSENT)
    cores.look(30)
    assert cores.share(0) > 0 and cores.to(0) == 1
    cores.board.set_state(1, ABSENT)
    cores.look(1)
    assert cores.share(0) == 0


def test_a_successor_begins_without_handing_on(cores):
    cores.board.rows[0].redirect_share = SHARES
    cores._make(0)
    assert cores.share(0) == 0


def test_groups_of_flows_follow_where_the_device_has_a_table(cores):
    """One at a time, only what is this core's, and never the last."""
    cores.loads = [1.0, 0.05, 0.0]
    cores.look(60)
    moved = [entry for entries in cores.redirected for entry in entries]
    assert moved and all(entry % 2 == 0 for entry in moved)
    assert all(set(entries.values()) == {2} for entries in cores.redirected)
    table = np.asarray(cores.board.header.rss_table)
    assert [int(table[entry]) for entry in moved] == [2] * len(moved)
    cores.look(5000)
    assert (np.asarray(cores.board.header.rss_table) == 0).sum() == 1
