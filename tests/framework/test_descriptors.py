"""`worker.add_reader` and its kin: readiness of kernel descriptors in the worker's loop, over epoll and its stand-in."""

import os
import selectors
import socket
import threading

import pytest

import mpserve
from mpserve.framework import polling
from mpserve.framework.descriptors import Descriptors
from mpserve.framework.kernel_machine import KernelSockets
from mpserve.framework.worker import Worker
from mpserve.testing.kernel_host import KernelHost

pytestmark = pytest.mark.on_kernel_sockets


class Keep(mpserve.Handler):
    def on_start(self, worker):
        self.worker = worker


@pytest.fixture
def worker(mpserve_host):
    handler = Keep()
    mpserve_host(handler)
    return handler.worker


@pytest.fixture
def pair():
    left, right = socket.socketpair()
    for end in (left, right):
        end.setblocking(False)
    yield left, right
    left.close()
    right.close()


def test_a_reader_is_called_while_there_is_something(worker, pair):
    left, right = pair
    seen = []
    worker.add_reader(left, lambda: seen.append(left.recv(1)))
    worker.step(sleep=False)
    assert seen == []
    right.send(b"abc")
    for _ in range(5):
        worker.step(sleep=False)
    assert seen == [b"a", b"b", b"c"]
    assert worker.remove_reader(left) is True and worker.remove_reader(left) is False
    right.send(b"d")
    worker.step(sleep=False)
    assert len(seen) == 3


def test_a_writer_by_number_and_with_arguments(worker, pair):
    left, _ = pair
    seen = []
    worker.add_writer(left.fileno(), seen.append, "room")
    worker.step(sleep=False)
    assert seen == ["room"]
    while True:
        try:
            left.send(bytes(65536))
        except BlockingIOError:
            break
    seen.clear()
    worker.step(sleep=False)
    assert seen == []
    assert worker.remove_writer(left.fileno()) is True


def test_the_last_given_is_the_one(worker, pair):
    left, right = pair
    seen = []
    worker.add_reader(left, seen.append, 1)
    worker.add_reader(left, seen.append, 2)
    worker.add_writer(left, seen.append, "w")
    right.send(b"x")
    worker.step(sleep=False)
    assert seen == [2, "w"]
    worker.remove_reader(left)
    worker.step(sleep=False)
    assert seen == [2, "w", "w"]


def test_an_exception_is_logged_and_counted(worker, pair):
    worker.add_writer(pair[0], lambda: 1 / 0)
    worker.step(sleep=False)
    worker.remove_writer(pair[0])
    assert worker.stats["handler_errors"] == 1


def test_one_taken_back_by_another_is_not_called(worker, pair):
    left, right = pair
    seen = []

    def only_one(number):
        seen.append(number)
        worker.remove_writer(left)
        worker.remove_writer(right)

    worker.add_writer(left, only_one, 1)
    worker.add_writer(right, only_one, 2)
    worker.step(sleep=False)
    worker.step(sleep=False)
    assert len(seen) == 1


def test_what_cannot_be_watched(worker, tmp_path):
    with pytest.raises(OSError), open(tmp_path / "file", "w") as file:
        worker.add_reader(file, print)
    closed = socket.socket()
    closed.close()
    with pytest.raises(ValueError, match="is closed"):
        worker.add_reader(closed, print)
    assert worker.descriptors.watched == 0


def test_a_number_closed_before_it_was_removed(worker):
    reader, writer = os.pipe()
    worker.add_reader(reader, print)
    os.close(reader)
    assert worker.remove_reader(reader) is True
    assert worker.descriptors.watched == 0
    os.close(writer)


@pytest.mark.parametrize("busy_poll", [False, True])
def test_a_sleeping_and_a_busy_worker_wake_for_it(pair, busy_poll):
    """In real time, and so over kernel sockets; on a device: `tests/system/test_to_socket.py`."""
    left, right = pair
    seen = []
    worker = Worker(Keep(), KernelSockets(), ip="", listen=[("127.0.0.1", KernelHost.free_port())], busy_poll=busy_poll)

    def readable():
        seen.append(left.recv(10))
        worker.stop()

    worker.add_reader(left, readable)
    timer = threading.Timer(0.2, right.send, (b"x",))
    timer.start()
    worker.call_later(30.0, worker.stop)
    worker.run()
    worker.close()
    assert seen == [b"x"]


@pytest.fixture(params=["epoll", "poll"])
def descriptors(request, monkeypatch):
    if request.param == "poll":
        stand_in = polling.PortablePoll(selectors.PollSelector())
        monkeypatch.setattr("mpserve.framework.descriptors.make_poll", lambda: stand_in)
    made = Descriptors(lambda: None)
    yield made
    made.close()


def test_every_kind_of_readiness(descriptors, pair):
    left, right = pair

    def due():
        return sorted(watch.function for watch in descriptors.ready())

    descriptors.add_reader(left, "read")
    assert due() == []
    right.send(b"x")
    assert due() == ["read"]
    descriptors.add_writer(left, "write")
    assert due() == ["read", "write"]
    descriptors.remove_reader(left)
    assert due() == ["write"]
    descriptors.remove_writer(left)
    assert due() == [] and descriptors.watched == 0
    descriptors.add_hang_up(left, "hang-up")
    assert due() == []
    right.shutdown(socket.SHUT_WR)
    assert due() == []
    descriptors.add_reader(left, "read")
    assert due() == ["read"]
    descriptors.remove(left)
    assert due() == [] and descriptors.watched == 0


def test_a_hang_up(pair):
    left, right = pair
    descriptors = Descriptors(lambda: None)
    descriptors.add_hang_up(left, "hang-up")
    right.close()
    assert [watch.function for watch in descriptors.ready()] == ["hang-up"]
    descriptors.close()
