"""Messages between processes: whole, once, in order; bounded; those to and of the dead are lost and counted."""

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from groups import member, members

from mpserve.framework import mailbox
from mpserve.framework.group import Group
from mpserve.framework.mailbox import MOST_BYTES, QUEUE_BYTES, Mailbox


class Boxes:
    """A mailbox for each of some workers, in this process."""

    def __init__(self, group: Group, workers: list[Group]) -> None:
        self.group, self.workers = group, workers
        self.all = [Mailbox(worker) for worker in workers]

    def successor(self, index: int) -> Mailbox:
        """The supervisor finds the worker dead, and starts another."""
        self.group.died(index)
        self.all[index].close()
        self.workers[index].close()
        self.group.begin(index, 200 + index)
        self.workers[index] = member(self.group, index)
        self.all[index] = Mailbox(self.workers[index])
        return self.all[index]

    def counters(self, index: int) -> dict[str, int]:
        return dict(zip(mailbox.COUNTERS, self.group.counters_of(index), strict=False))


@contextlib.contextmanager
def boxes(count: int) -> Iterator[Boxes]:
    before = len(os.listdir("/proc/self/fd"))
    with members(*range(count)) as (group, workers):
        made = Boxes(group, workers)
        yield made
        for box in made.all:
            box.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_messages_arrive_once_and_in_order() -> None:
    with boxes(3) as made:
        first, second, third = made.all
        sent = [b"%d" % n * (n % 50) for n in range(1000)]
        for data in sent:
            assert first.post(2, data)
            assert second.post(2, data[::-1])
        assert not third.has_mail
        first.flush()
        second.flush()
        assert third.has_mail
        got = list(third.take())
        assert [data for sender, data in got if sender == 0] == sent
        assert [data for sender, data in got if sender == 1] == [data[::-1] for data in sent]
        assert list(third.take()) == [] and not third.has_mail
        assert not (first.holds_output or second.holds_output)
        assert made.counters(0)["messages_posted"] == 1000 and made.counters(2)["messages_delivered"] == 2000


@pytest.mark.parametrize("size", [0, 1, 65_531, 65_532, 65_533, 65_536, MOST_BYTES])
def test_every_size_between_others(size: int) -> None:
    with boxes(2) as made:
        first, second = made.all
        sent = [b"before", os.urandom(size), b"behind", b""]
        for data in sent:
            first.post(1, data)
        first.flush()
        assert list(second.take()) == [(0, data) for data in sent]


@pytest.mark.parametrize("size", [60_000, 70_000, MOST_BYTES])
def test_a_full_box_holds_the_sender_back_and_not_up(size: int) -> None:
    with boxes(2) as made:
        first, second = made.all
        sent, data = 0, bytes(size)
        while first.post(1, data):
            sent += 1
        assert sent >= QUEUE_BYTES // (size + 4)
        assert sent * size <= 2 * QUEUE_BYTES, "the kernel holds more than what waits here"
        assert first.holds_output
        assert made.counters(0)["messages_dropped"] == 1
        got = 0
        while first.holds_output or second.has_mail:
            got += len(list(second.take()))
            first.flush()
        assert got == sent
        assert first.post(1, data)


def test_large_messages_take_no_descriptors_that_stay() -> None:
    with boxes(2) as made:
        first, second = made.all
        before = len(os.listdir("/proc/self/fd"))
        for n in range(20):
            assert first.post(1, bytes([n]) * 300_000)
            first.flush()
        got = []
        while first.holds_output or second.has_mail:
            got += [data[0] for _, data in second.take()]
            first.flush()
        assert got == list(range(20))
        assert len(os.listdir("/proc/self/fd")) == before


def test_what_was_for_one_that_died_is_not_for_its_successor() -> None:
    with boxes(3) as made:
        first, _, third = made.all
        for data in (b"a", b"b", bytes(200_000)):
            first.post(1, data)
        first.flush()
        first.post(1, b"still with the sender")
        second = made.successor(1)
        third.post(1, b"for the new one")
        third.flush()
        first.post(1, b"as well")
        first.flush()
        assert list(second.take()) == [(2, b"for the new one"), (0, b"as well")]
        assert made.counters(1)["messages_lost"] == 4


def test_a_dead_worker_gets_nothing_and_that_is_said() -> None:
    with boxes(2) as made:
        first = made.all[0]
        made.group.died(1)
        assert not first.post(1, b"x")
        assert not first.holds_output
        assert made.counters(0)["messages_lost"] == 1


def test_what_a_worker_had_not_sent_is_lost_and_counted_when_it_ends() -> None:
    with boxes(2) as made:
        made.all[0].post(1, b"x")
        made.all[0].post(1, bytes(200_000))
        made.successor(0)
        assert made.counters(0)["messages_lost"] == 2
        assert list(made.all[1].take()) == []


def test_mail_whose_sender_was_killed_before_it_said_so_is_found() -> None:
    with boxes(2) as made:
        first, second = made.all
        first.post(1, b"x")
        first.flush()
        made.group._put(1, mailbox.MAIL, 0)
        assert not second.has_mail
        second.look_again()
        assert list(second.take()) == [(0, b"x")]


SENDER = """
import json, os, sys
from mpserve.framework.group import Group
from mpserve.framework.mailbox import Mailbox
box = Mailbox(Group.attach(json.loads(sys.argv[1]), int(sys.argv[2])))
number = 0
while True:
    for _ in range(10):
        size = (number * 7919) % 3000 if number % 16 else 100_000
        if box.post(0, b"%d:" % number + bytes([number % 256]) * size):
            number += 1
    box.flush()
"""


def test_senders_that_are_killed_anywhere_leave_whole_messages_in_order() -> None:
    draw = random.Random(1)
    with boxes(3) as made:
        receiver, received = made.all[0], 0
        for round_ in range(6):
            senders = []
            for index in (1, 2):
                made.group.begin(index, 1)
                words = [sys.executable, "-c", SENDER, json.dumps(made.group.invitation()), str(index)]
                senders.append(subprocess.Popen(words, pass_fds=made.group.descriptors))
            expected = dict.fromkeys((1, 2), 0)
            deadline = time.monotonic() + 60
            enough = draw.randrange(200, 3000)
            while sum(expected.values()) < enough:
                assert time.monotonic() < deadline, (round_, expected)
                receiver.look_again()
                for sender, data in receiver.take():
                    check(data, expected, sender)
            for process in senders:
                process.kill()
                process.wait()
            while receiver.has_mail:
                for sender, data in receiver.take():
                    check(data, expected, sender)
            received += sum(expected.values())
        assert made.counters(0)["messages_delivered"] == received
        assert made.counters(0)["messages_lost"] == 0


def check(data: bytes, expected: dict[int, int], sender: int) -> None:
    """It is the next one of this sender, and whole."""
    head, _, rest = data.partition(b":")
    number = expected[sender]
    assert head == b"%d" % number
    assert rest == bytes([number % 256]) * ((number * 7919) % 3000 if number % 16 else 100_000)
    expected[sender] += 1
