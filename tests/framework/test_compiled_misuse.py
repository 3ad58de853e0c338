"""What a compiled handler does wrong: no number of its reaches beyond its bytes, what it may not do is refused and counted."""

from typing import Any

import numpy as np
import pytest

import mpserve
from mpserve.dataplane.jit import JIT
from mpserve.framework.request_batch import compile_codec

LINE = b"x" * 40  # what the probes below look at


class Probes(mpserve.CompiledHandler):
    """Uses a number out of range everywhere; `wrong` has a bit for each use that was not refused."""

    codec = mpserve.Lines(max=100)
    wrong: int = 0
    probes: int = 0

    class Connection:
        whole: np.uint64
        small: np.int32

    def on_request(self, conn, request, columns):
        high, low = request.parse_int(2, 14), request.parse_int(14, 25)
        number = high << 32 | low
        kind = request.byte_at(0)
        room = conn.reserve(64)
        if kind == ord("i"):
            self.wrong |= self.probe(request, room, columns, number)
        elif kind == ord("u"):
            conn.whole = np.uint64(number)
            self.wrong |= self.probe(request, room, columns, conn.whole)
        else:
            conn.small = np.int32(number >> 32)
            self.wrong |= self.probe(request, room, columns, conn.small)
        self.probes += 1
        conn.commit(room.put(0, b"done"))

    def probe(self, data, room, columns, number):
        wrong = 0
        if data.byte_at(number) != -1 or columns[number] != 0:
            wrong |= 1
        if len(data.part(number, number)) > 0 or len(data.part(0, number)) > len(data):
            wrong |= 2
        if data.number(number, 8, True) != -1 or data.number(0, number, True) != -1:
            wrong |= 4
        if data.find(0, number) != -1 or data.find(number, 0) != -1:
            wrong |= 8
        if room.put(number, b"xy") != -1 or room.put(number, data) != -1:
            wrong |= 16
        if room.put_byte(number, 120) != -1:
            wrong |= 32
        if room.put_int(number, number) != -1:
            wrong |= 64
        if data.parse_int(number, number) != mpserve.NOT_A_NUMBER:
            wrong |= 128
        return wrong


NUMBERS = [-1, -8, 100, 2047, 1 << 31, (1 << 31) - 1, -(1 << 31), 1 << 32, (1 << 47) + 1, (1 << 62) + 5]
LARGEST = [(1 << 63) - n for n in (1, 2, 3, 8, 40, 64)] + [-(1 << 63) + n for n in (0, 1, 63)]


@pytest.fixture(scope="module")
def probes() -> Any:
    from mpserve.testing import Host

    host = Host(Probes())
    yield host, host.connect()
    host.stop()


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        *((kind, number) for kind in "iu" for number in NUMBERS + LARGEST),
        ("s", -1 << 32),
        ("s", -1 << 63),
        ("s", 1 << 62),
    ],
)
def test_a_number_out_of_range_reaches_nothing(probes: Any, kind: str, number: int) -> None:
    host, client = probes
    host.handler.wrong, before = 0, host.handler.probes
    line = f"{kind} {number >> 32:<12}{number & 0xFFFFFFFF:<11}"
    client.send(line.encode() + LINE + b"\n")
    host.settle()
    assert client.recv() == b"done"
    assert host.handler.wrong == 0 and host.handler.probes == before + 1 and host.stats["handler_errors"] == 0


class Wrongs(mpserve.CompiledHandler):
    """Does what the first byte of the data says; the number behind it is given to it."""

    timeouts: int = 0
    answers: int = 0
    huge: bytes = b""

    def on_data(self, conn, data):
        what, number = data.byte_at(0), data.parse_int(1)
        if what == ord("r"):
            conn.reserve(number)
        elif what == ord("c"):
            conn.reserve(10).put(0, b"0123456789")
            self.answers = conn.commit(number)
        elif what == ord("C"):
            self.answers = conn.commit(number)
        elif what == ord("t"):
            conn.set_timeout(number)
        elif what == ord("T"):
            conn.set_timeout(number * 1e300)
        elif what == ord("n"):
            conn.set_timeout(number * np.nan)
        elif what == ord("e"):
            conn.set_timeout(1e-9)
        elif what == ord("w"):
            self.answers = 2 * conn.write(b"") + conn.write(self.huge)
        elif what == ord("d"):
            self.end_twice(conn, number)
        elif what == ord("p"):
            conn.put_to_sleep = 1.0
            conn.pause()
        else:
            conn.write(b"fine")

    def end_twice(self, conn, number):
        for _ in range(2):
            if number == 0:
                conn.close()
            elif number == 1:
                conn.abort()
            else:
                conn.shutdown()
        conn.pause()
        conn.resume()
        conn.retry()
        conn.set_timeout(1.0)
        self.answers = conn.write(b"x") + len(conn.reserve(10)) + conn.commit(0)

    def on_timeout(self, conn):
        self.timeouts += 1
        conn.set_timeout(0)

    class Connection:
        put_to_sleep: float


@pytest.fixture
def host(mpserve_host: Any) -> Any:
    return mpserve_host(Wrongs())


def say(host: Any, client: Any, data: bytes) -> bytes:
    client.send(data)
    host.settle()
    return client.recv()


@pytest.mark.parametrize("number", [0, -1, 2049, 1 << 31, -(1 << 31), 10**18 - 1, 1 - 10**18])
def test_a_reserve_out_of_range_aborts_and_is_counted(host: Any, number: int) -> None:
    bad, good = host.connect(), host.connect()
    assert say(host, bad, b"r%d" % number) == b"" and bad.was_reset
    assert say(host, good, b"?") == b"fine" and host.stats["handler_errors"] == 1


@pytest.mark.parametrize("number", [-1, 11, 2048, 1 << 31, 10**18 - 1, 1 - 10**18])
def test_a_commit_of_what_was_not_reserved_is_refused_and_counted(host: Any, number: int) -> None:
    client = host.connect()
    assert say(host, client, b"c%d" % number) == b"" and host.handler.answers == 0
    assert host.stats["refused_writes"] == 1 and host.stats["handler_errors"] == 0
    assert say(host, client, b"c10") == b"0123456789" and host.stats["refused_writes"] == 1
    assert say(host, client, b"C1") == b"" and host.handler.answers == 0, "nothing is reserved"
    assert host.stats["refused_writes"] == 2
    assert say(host, client, b"?") == b"fine"


@pytest.mark.parametrize("end", [0, 1, 2], ids=["close", "abort", "shutdown"])
def test_a_second_end_is_none_and_writes_behind_it_are_refused_and_counted(host: Any, end: int) -> None:
    client = host.connect()
    assert say(host, client, b"d%d" % end) == b""
    assert client.was_reset == (end == 1) and client.eof == (end != 1)
    assert host.handler.answers == 0 and host.stats["refused_writes"] == 3
    host.advance(2.0)
    assert host.handler.timeouts == (end == 2), "shutdown is half an end: the peer may go on"
    assert host.stats["handler_errors"] == 0


@pytest.mark.parametrize("command", [b"t0", b"t-1", b"t%d" % (1 - 10**18), b"n1", b"T-1"])
def test_a_timeout_that_is_none(host: Any, command: bytes) -> None:
    client = host.connect()
    say(host, client, command)
    host.advance(3.0)
    assert host.handler.timeouts == 0 and not client.eof and host.stats["handler_errors"] == 0


@pytest.mark.parametrize("command", [b"t%d" % (1 << 31), b"t%d" % (10**18 - 1), b"T1"])
def test_a_timeout_longer_than_the_clock_reaches(host: Any, command: bytes) -> None:
    client = host.connect()
    say(host, client, command)
    host.advance(3.0)
    assert host.handler.timeouts == 0 and not client.eof


def test_a_timeout_of_less_than_a_microsecond_is_one(host: Any) -> None:
    client = host.connect()
    say(host, client, b"e")
    host.advance(0.1)
    assert host.handler.timeouts == 1


def test_a_write_of_nothing_and_one_that_no_pool_holds(mpserve_host: Any) -> None:
    host = mpserve_host(Wrongs(huge=bytes(10_000_000)), blocks=64)
    bad, good = host.connect(window=0), host.connect()
    assert say(host, bad, b"w") == b"" and bad.was_reset and host.handler.answers == 2
    assert host.stats["drop_no_block"] == 1 and say(host, good, b"?") == b"fine"


def test_who_never_resumes_holds_the_peer(host: Any) -> None:
    client = host.connect()
    say(host, client, b"p")
    read = host.stats["bytes_read"]
    client.send(bytes(300_000))
    host.advance(1.0)
    assert host.stats["bytes_read"] == read and not client.was_reset


class Fields(mpserve.CompiledHandler):
    """For others to inherit from."""

    count: int = 0


def test_a_handler_without_callbacks_is_refused(mpserve_host: Any) -> None:
    with pytest.raises(mpserve.SetupError, match="Fields has no callback: define one of on_accept"):
        mpserve_host(Fields())


class Garbage(mpserve.CompiledHandler):
    """Callbacks that return what nobody asked for, and read nothing."""

    calls: int = 0

    def on_accept(self, conn):
        conn.set_timeout(0.5)
        return 7

    def on_data(self, conn, data):
        self.calls += 1
        return data

    def on_timeout(self, conn):
        conn.write(b"late")
        conn.set_timeout(0)
        return -1.5

    def on_eof(self, conn):
        conn.close()
        return True

    def on_close(self, conn, reason):
        return conn


def test_what_a_callback_returns_is_not_looked_at(mpserve_host: Any) -> None:
    host = mpserve_host(Garbage())
    client = host.connect()
    client.send(bytes(100_000))
    host.advance(1.0)
    assert client.recv() == b"late" and host.handler.calls > 0
    client.close()
    host.settle()
    assert client.eof and not client.was_reset and host.stats["handler_errors"] == 0


class Broken(mpserve.Codec):
    """A codec whose `parse` returns what it may not, or raises, as the stream's first byte says."""

    most_bytes = 64

    def make_parse(self) -> Any:
        from mpserve.dataplane.memory import load8

        def parse(buf, start, end, out):
            if end - start < 3:
                return 0
            what = load8(buf + start)
            out[0], out[1] = -5, 1 << 62
            if what == ord("-"):
                return -2
            if what == ord("l"):
                return -(1 << 63)
            if what == ord("+"):
                return (1 << 63) - 1
            if what == ord("!"):
                raise ValueError("on purpose")
            return 3

        return parse


class Given(mpserve.CompiledHandler):
    codec = Broken()

    def on_request(self, conn, request):
        conn.write(request)


class GivenInPython(mpserve.Handler):
    codec = Broken()

    def on_data(self, sock, data):
        sock.write(data)


def feed(host: Any, client: Any, stream: bytes, pieces: int) -> bytes:
    if pieces == 2:
        say(host, client, stream[:2])
        stream = stream[2:]
    return say(host, client, stream)


both = pytest.mark.parametrize("handler", [Given, GivenInPython])


@both
@pytest.mark.parametrize("stream", [b"-bad", b"+bad", b"low"])
@pytest.mark.parametrize("pieces", [1, 2])
def test_a_codec_that_returns_garbage_ends_its_connection(
    mpserve_host: Any, handler: Any, stream: bytes, pieces: int
) -> None:
    host = mpserve_host(handler())
    bad, good = host.connect(), host.connect()
    assert feed(host, bad, stream, pieces) == b"" and bad.eof and host.stats["bad_requests"] == 1
    assert say(host, good, b"abcdef") == b"abcdef"


@both
@pytest.mark.parametrize("pieces", [1, 2])
def test_a_codec_that_raises_aborts_its_connection_and_is_counted(mpserve_host: Any, handler: Any, pieces: int) -> None:
    host = mpserve_host(handler())
    bad, good = host.connect(), host.connect()
    good.send(b"abc")
    assert feed(host, bad, b"!bad", pieces) == b"" and bad.was_reset
    bad.send(b"more")
    assert say(host, good, b"def") == b"abcdef"
    assert host.stats["handler_errors"] == 1 and host.stats["bad_requests"] == 0


def test_a_codec_of_fractions_is_refused() -> None:
    class Halves(mpserve.Codec):
        most_bytes = 64

        def make_parse(self) -> Any:
            return lambda buf, start, end, out: (end - start) / 2

    if not JIT:
        pytest.skip("nothing is compiled")
    with pytest.raises(mpserve.SetupError, match="a whole number is wanted here, not float64"):
        compile_codec(Halves())
