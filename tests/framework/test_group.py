"""The memory that a server's processes share: what one writes the others read, and it outlives who wrote it."""

import ctypes
import errno
import os
import select

import pytest
from groups import member, members

from mpserve.dataplane.errors import SetupError
from mpserve.framework.group import ASLEEP, CORE, COUNTERS, GENERATION, MAIL, PID, STATE, Group, State


def test_rows_are_what_the_supervisor_says() -> None:
    with members(3, 5, 4) as (group, workers):
        assert [worker.cores for worker in workers] == [[3, 5, 4]] * 3
        assert workers[0].get(1, PID) == 101
        assert [workers[2].get(index, GENERATION) for index in range(3)] == [1, 1, 1]
        group.died(1)
        assert [State(workers[0].get(index, STATE)) for index in range(3)] == [State.SERVING, State.DEAD, State.SERVING]
        group.begin(1, 999)
        assert (workers[2].get(1, PID), workers[2].get(1, GENERATION)) == (999, 2)
        assert workers[2].get(1, STATE) == State.STARTING


def test_a_successor_finds_the_counters_of_the_one_before() -> None:
    with members(0, 1) as (group, workers):
        words = workers[1].counters_of(1)
        words[0], words[COUNTERS - 1] = 7, -1
        workers[1].close()
        workers[1] = member(group, 1)
        assert workers[1].counters_of(1).tolist() == [7, *[0] * (COUNTERS - 2), -1]
        assert not any(workers[1].counters_of(0))


def test_fields_and_rows_do_not_share_cache_lines() -> None:
    with members(0, 1) as (group, _):
        where = [8 * (group.row(index) + field) for index in (0, 1) for field in (CORE, ASLEEP, MAIL)]
        where += [8 * (group.row(1) + MAIL + 16), 8 * group.row(2)]
        lines = [at // 64 for at in where]
        assert len(set(lines)) == len(lines)
        assert {at % 128 for at in where} == {0}


def test_a_board_is_shared_and_says_who_has_died() -> None:
    with members(0, 1, board=True) as (group, (first, second)):
        os.ftruncate(first.board, 4096)
        os.pwrite(first.board, b"\2".ljust(8, b"\0") * 512, 0)
        group.died(1)
        rows = os.pread(second.board, 4096, 0)
        assert rows[512 + 128 : 512 + 136] == bytes(8) and rows.count(2) == 511


def test_addresses_of_rows_are_those_of_their_words() -> None:
    with members(0, 1) as (_, (first, second)):
        ctypes.c_int64.from_address(first.row_address(1) + 8 * ASLEEP).value = 1
        assert second.get(1, ASLEEP) == 1
        second.words[second.row(1) + ASLEEP] = 2
        assert ctypes.c_int64.from_address(first.row_address(1) + 8 * ASLEEP).value == 2


def test_one_wakes_another() -> None:
    with members(0, 1) as (_, (first, second)):
        poll = select.poll()
        poll.register(second.wakes[1].fileno(), select.POLLIN)
        assert poll.poll(0) == []
        first.wake(1)
        assert poll.poll(0) == [(second.wakes[1].fileno(), select.POLLIN)]
        second.wakes[1].clear()
        assert poll.poll(0) == []


def test_nobody_can_make_it_smaller_under_the_others() -> None:
    with members(0) as (group, _):
        with pytest.raises(PermissionError) as refused:
            os.ftruncate(group.fd, 0)
        assert refused.value.errno == errno.EPERM


def test_children_of_workers_do_not_inherit_it() -> None:
    with members(0, 1) as (group, (first, _)):
        assert not any(map(os.get_inheritable, first.descriptors))
        assert len(set(group.descriptors)) == 1 + 2 + 4


def test_another_memory_is_refused() -> None:
    group = Group.create([0])
    fd = os.memfd_create("other")
    os.ftruncate(fd, 4096)
    with pytest.raises(SetupError, match="not of one version"):
        Group(fd, [], [])
    os.close(fd)
    group.close()
