"""The compiled clients against our handlers, in virtual time: what they ask, what they count, when requests are due."""

from collections.abc import Iterator
from typing import Any

import pytest

import mpserve
from mpserve.apps.http.fixed import FixedReply
from mpserve.apps.load.generator import Generator
from mpserve.apps.load.histogram import BUCKETS, Histogram, middle, note
from mpserve.apps.load.loop import turn_load
from mpserve.apps.load.plan import Plan
from mpserve.apps.memcached.handler import Memcached
from mpserve.dataplane.errors import SetupError
from mpserve.dataplane.jit import unit
from mpserve.testing.host import Host
from mpserve.testing.wire import Wire

MAC = b"\x02\0\0\0\0\x01"


class Echo(mpserve.Handler):
    def on_data(self, sock, data):
        sock.write(data)


class Two:
    """A handler on one end of a cable, a generator on the other, one clock."""

    def __init__(self, handler: mpserve.Handler, port: int = 7, **plan: Any) -> None:
        self.host = Host(handler, port=port, max_connections=256, msl_seconds=0.01)
        self.wire = Wire(MAC)
        self.wire.connect(self.host._wire)
        self.generator = Generator(self.wire, Plan(**plan), ip="10.9.0.1", server="10.9.0.2", port=port)
        self.record = self.generator.record
        self.now = int(self.host.record.now)
        self._set_time()
        self.generator.clear()

    def _set_time(self) -> None:
        self.host.record.now = self.generator.core.record.now = self.generator.core.record.tsc = self.now

    def run(self, us: int, step: int = 10) -> None:
        until = self.now + us
        while self.now < until:
            self.now += step
            self._set_time()
            for _ in range(3):
                turn_load.call(self.generator._loads.ctypes.data, 0)
                self.host.worker.step(sleep=False)
        self.record.cycles += us

    def result(self) -> dict[str, Any]:
        return self.generator.result()

    def close(self) -> None:
        self.generator.close()
        self.host.stop()
        self.wire.close()


@pytest.fixture
def two() -> Iterator[Any]:
    made: list[Two] = []

    def make(*args: Any, **settings: Any) -> Two:
        made.append(Two(*args, **settings))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_closed_loop_keeps_each_connection_asking(two):
    load = two(Echo(), connections=8)
    load.run(20_000)
    result = load.result()
    assert result["opened"] == 8 and result["requests"] > 1000
    assert result["failures"] == result["refused"] == result["retransmits"] == 0
    assert load.host.worker.stats["bytes_read"] == pytest.approx(64 * result["requests"], abs=64 * 16)
    assert load.generator.histogram.total == result["requests"]


@pytest.mark.parametrize("message", [1, 1460, 5000, 65_536])
def test_messages_of_any_size(two, message):
    load = two(Echo(), connections=2, message=message)
    load.run(100_000)
    assert load.result()["requests"] >= 10 and load.result()["failures"] == 0


def test_several_requests_at_once(two):
    load = two(Echo(), connections=2, pipeline=16)
    load.run(20_000)
    result = load.result()
    assert result["requests"] % 16 == 0 and result["requests"] > 100 and result["failures"] == 0


@pytest.mark.parametrize("closes_first", [True, False])
def test_a_connection_for_each_request(two, closes_first):
    load = two(FixedReply(), 80, protocol="http", connections=4, transactions=1, closes_first=closes_first)
    load.run(200_000)
    result = load.result()
    assert result["requests"] > 50 and result["failures"] == result["refused"] == 0
    assert result["opened"] - result["requests"] <= 4
    assert load.host.worker.stats["connections_accepted"] >= result["requests"]


def test_http_replies_end_where_their_head_says(two):
    class Long(mpserve.Handler):
        """In pieces that end anywhere."""

        def on_data(self, sock, data):
            reply = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\ncontent-length: 3000\r\n\r\n" + bytes(3000)
            for at in range(0, len(reply), 7):
                sock.write(reply[at : at + 7])

    load = two(Long(), 80, protocol="http", connections=4)
    load.run(20_000)
    result = load.result()
    assert result["requests"] > 100 and result["failures"] == 0


def test_a_reply_that_is_no_success_is_a_failure(two):
    class Missing(mpserve.Handler):
        def on_data(self, sock, data):
            sock.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    load = two(Missing(), 80, protocol="http", connections=1)
    load.run(5000)
    assert load.result()["failures"] > 0


def test_a_server_that_hangs_up_is_a_failure(two):
    class Rude(mpserve.Handler):
        def on_data(self, sock, data):
            sock.close()

    load = two(Rude(), connections=1)
    load.run(5000)
    assert load.result()["failures"] > 0 and load.result()["requests"] == 0


class Stored(mpserve.Handler):
    """Has every other key."""

    def on_start(self, worker):
        self.asked: set[int] = set()

    def on_data(self, sock, data):
        number = int(data.split(b"key:")[1])
        self.asked.add(number)
        sock.write((Plan(protocol="memcached").value(number) if number % 2 else b"") + b"END\r\n")


def test_memcached_hits_and_misses(two):
    handler = Stored()
    load = two(handler, 11211, protocol="memcached", connections=4, keys=50)
    load.run(20_000)
    assert load.result()["requests"] > 500 and load.result()["failures"] == 0
    assert handler.asked == set(range(50))


def test_our_memcached_answers_as_it_should(two):
    load = two(Memcached(), 11211, protocol="memcached", connections=4, keys=50)
    load.run(20_000)
    result = load.result()
    assert result["requests"] > 100 and result["failures"] == 0  # all of them misses


def test_an_open_loop_keeps_its_rate(two):
    load = two(Echo(), connections=8, rate=10_000)
    load.run(10_000)
    load.generator.clear()
    load.run(100_000)
    result = load.result()
    assert result["requests"] == pytest.approx(1000, abs=3)
    assert result["p99_us"] < 100


def test_a_stall_shows_in_the_latency_of_an_open_loop(two):
    """Requests that were due meanwhile count from when they were due: no coordinated omission."""
    load = two(Echo(), connections=4, rate=10_000)
    load.run(10_000)
    load.generator.clear()
    load.run(50_000)
    step, load.host.worker.step = load.host.worker.step, lambda **_: 0
    load.run(20_000)
    load.host.worker.step = step
    load.run(30_000)
    result = load.result()
    assert result["requests"] == pytest.approx(1000, abs=10)
    assert 15_000 < result["max_us"] < 25_000
    assert 5_000 < load.generator.histogram.percentile(90) < 15_000  # a fifth of all waited, evenly from 20 ms to none


def test_one_shot_connections_at_a_rate(two):
    load = two(Echo(), connections=64, transactions=1, rate=2000)
    load.run(100_000)
    result = load.result()
    assert result["requests"] == pytest.approx(200, abs=4) and result["failures"] == 0
    assert result["opened"] == pytest.approx(200, abs=4)


def test_connections_are_gone_after_finish(two):
    load = two(Echo(), connections=8)
    load.run(5000)
    load.generator.finish()
    load.host.worker.step(sleep=False)
    assert load.host.worker.stats["connections_reset"] == 8


@unit("test_note")
def note_unit(histogram, value):
    note(histogram, value)
    return 0


def test_a_histogram_is_exact_to_a_hundredth():
    histogram = Histogram()
    for value in (0, 1, 255, 256, 1000, 123_456, 10**9, 10**15, -5):
        histogram.clear()
        note_unit.call(histogram.address, value)
        assert histogram.total == 1
        found = histogram.percentile(100) * 1000
        assert abs(found - min(max(value, 0), middle(BUCKETS - 1))) <= max(max(value, 0) / 100, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"protocol": "smtp"},
        {"connections": 0},
        {"message": 70_000},
        {"pipeline": 2, "rate": 5.0},
        {"pipeline": 1024, "message": 2000},
    ],
)
def test_plans_that_can_t_be(wrong):
    with pytest.raises(SetupError):
        Plan(**wrong)
