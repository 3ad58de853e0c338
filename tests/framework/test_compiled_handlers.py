"""Compiled handlers on the real stack, in virtual time: callbacks, fields, replies, back-pressure, exceptions."""

from typing import Any

import numpy as np
import pytest

import mpserve


class Echo(mpserve.CompiledHandler):
    requests: int = 0
    greeting: bytes = b""

    class Connection:
        reads: int

    def on_accept(self, conn):
        conn.write(self.greeting)

    def on_data(self, conn, data):
        self.requests += 1
        conn.reads += 1
        if not conn.write(data):
            conn.retry()


class Commands(mpserve.CompiledHandler):
    """Does what the first byte of the data says."""

    eofs: int = 0
    closes: int = 0
    timeouts: int = 0
    writables: int = 0
    last_reason: int = -1
    ratio: float = 0.25
    is_odd: bool = False
    small: np.uint16 = np.uint16(65535)

    class Connection:
        seen: np.int16
        total: float

    def on_data(self, conn, data):
        conn.seen += len(data)
        conn.total += self.ratio
        self.obey(conn, data.byte_at(0), data)

    def obey(self, conn, what, data):
        if what == ord("c"):
            conn.write(b"bye")
            conn.close()
            conn.close()
            conn.write(b"never sent")
        elif what == ord("a"):
            conn.abort()
        elif what == ord("s"):
            conn.shutdown()
            conn.write(b"never sent")
        elif what == ord("p"):
            conn.pause()
        elif what == ord("t"):
            conn.set_timeout(0.5)
        elif what == ord("n"):
            room = conn.reserve(64)
            at = room.put_int(0, conn.seen)
            at = room.put(at, b" ")
            at = room.put_int(at, int(100 * conn.total))
            conn.commit(at)
        elif what == ord("o"):
            room = conn.reserve(4)
            if not conn.commit(room.put(0, b"too long")):
                conn.write(b"refused")
        elif what == ord("w"):
            self.small += 1
            self.is_odd = not self.is_odd
            conn.write(b"odd" if self.is_odd else b"even")
        elif what == ord("r"):
            raise ValueError("told to")
        elif what == ord("R"):
            conn.reserve(4096)

    def on_eof(self, conn):
        self.eofs += 1
        conn.close()

    def on_timeout(self, conn):
        self.timeouts += 1
        conn.resume()

    def on_close(self, conn, reason):
        self.closes += 1
        self.last_reason = reason


@pytest.fixture
def host(mpserve_host: Any) -> Any:
    return mpserve_host(Commands())


def say(host: Any, client: Any, data: bytes) -> bytes:
    client.send(data)
    host.settle()
    return client.recv()


def test_echo(mpserve_host: Any) -> None:
    handler = Echo(greeting=b"hello\n")
    host = mpserve_host(handler)
    client = host.connect()
    assert say(host, client, b"abc") == b"hello\nabc"
    assert handler.requests == 1 and handler.greeting == b"hello\n"
    client.close()
    host.advance(0.01)
    assert client.closed and host.stats["handler_errors"] == 0


def test_fields_of_a_connection_are_its_own_and_zero_at_accept(host: Any) -> None:
    one, two = host.connect(), host.connect()
    say(host, one, b"....")
    assert say(host, one, b"n") == b"5 50" and say(host, two, b"n") == b"1 25"
    one.reset()
    host.settle()
    again = host.connect()
    assert say(host, again, b"n") == b"1 25"


@pytest.mark.filterwarnings("ignore:overflow")  # numpy says so where it runs as plain Python
def test_fields_of_the_handler_have_their_types(host: Any) -> None:
    client = host.connect()
    assert say(host, client, b"w") == b"odd" and host.handler.is_odd is True
    assert say(host, client, b"w") == b"even" and host.handler.is_odd is False
    assert host.handler.small == 1, "an uint16 wraps"


def test_close_sends_what_was_written_and_no_more(host: Any) -> None:
    client = host.connect()
    assert say(host, client, b"c") == b"bye"
    assert client.eof
    client.close()
    host.advance(0.01)
    assert client.closed and host.handler.closes == 1
    assert host.handler.last_reason == mpserve.Reason.FINISHED and host.handler.eofs == 0


def test_abort_resets(host: Any) -> None:
    client = host.connect()
    say(host, client, b"a")
    assert client.was_reset and host.handler.last_reason == mpserve.Reason.ABORTED


def test_shutdown_is_half_a_close(host: Any) -> None:
    client = host.connect()
    assert say(host, client, b"s") == b"" and client.eof and not host.handler.closes
    client.close()
    host.advance(0.01)
    assert client.closed and host.handler.eofs == 1 and host.handler.closes == 1


def test_timeout_and_pause(host: Any) -> None:
    client = host.connect()
    say(host, client, b"t")
    say(host, client, b"p")
    assert say(host, client, b"n") == b"", "paused"
    host.advance(0.6)
    assert host.handler.timeouts == 1
    assert client.recv() == b"3 75", "on_timeout resumes"


def test_eof_waits_while_paused(host: Any) -> None:
    client = host.connect()
    say(host, client, b"t")
    say(host, client, b"p")
    client.close()
    host.settle()
    assert host.handler.eofs == 0
    host.advance(0.6)
    assert host.handler.eofs == 1


def test_eof_and_data_of_one_batch_stay_in_order(host: Any) -> None:
    client = host.connect()
    say(host, client, b"t")
    client.send(b"p")
    client.close()
    host.settle()
    assert host.handler.eofs == 0
    host.advance(0.6)
    assert host.handler.eofs == 1


def test_what_does_not_fit_is_not_sent(host: Any) -> None:
    assert say(host, host.connect(), b"o") == b"refused"


@pytest.mark.parametrize("command", [b"r", b"R"])
def test_an_exception_aborts_its_connection_and_hurts_nobody_else(host: Any, command: bytes) -> None:
    bad, good = host.connect(), host.connect()
    bad.send(command)
    good.send(b"n")
    host.settle()
    assert bad.was_reset and good.recv() == b"1 25"
    assert host.stats["handler_errors"] == 1 and host.handler.closes == 1


def test_back_pressure_loses_nothing_and_holds_little(mpserve_host: Any) -> None:
    host = mpserve_host(Echo(), sndbuf_bytes=4096)
    client = host.connect(window=0)
    data = bytes(range(256)) * 60
    for first in range(0, len(data), 1000):
        client.send(data[first : first + 1000])
        host.settle()
    tcb = host.worker.memory.arrays["tcbs"][0]
    assert client.recv() == b"" and tcb.snd_queued <= 4096 // 2 + 2000
    client.close()
    client._window = 1 << 20
    client._say("A", client._nxt)
    host.advance(0.3)
    assert client.recv() == data and client.eof, "the EOF came behind the data"
    assert host.stats["handler_errors"] == 0


def test_a_full_pool_of_blocks_ends_the_connection(mpserve_host: Any) -> None:
    host = mpserve_host(Echo(), sndbuf_bytes=1 << 20, blocks=16)
    client = host.connect(window=0)
    for _ in range(40):
        client.send(bytes(1000))
        host.settle()
    assert client.was_reset and host.stats["drop_no_block"] > 0
    other = host.connect()
    assert say(host, other, b"still there") == b"still there"


class Producer(mpserve.CompiledHandler):
    """Sends `count` numbered lines, as there is room."""

    count: int = 2000
    waits: int = 0

    class Connection:
        next: int

    def on_accept(self, conn):
        self.produce(conn)

    def on_writable(self, conn):
        self.waits += 1
        self.produce(conn)

    def produce(self, conn):
        while conn.next < self.count:
            room = conn.reserve(24)
            if not room:
                return
            conn.commit(room.put_byte(room.put_int(0, conn.next), 10))
            conn.next += 1
        conn.close()


def test_a_producer_goes_on_when_there_is_room(mpserve_host: Any) -> None:
    host = mpserve_host(Producer(count=3000), sndbuf_bytes=4096, sndbuf_max_bytes=4096)
    client = host.connect(window=3000)
    host.advance(0.5)
    assert client.recv() == b"".join(b"%d\n" % n for n in range(3000))
    assert client.eof and host.handler.waits > 1


def test_many_commands_of_one_batch(mpserve_host: Any) -> None:
    """More than the table of commands holds are executed as they come."""
    handler = Many()
    host = mpserve_host(handler)
    client = host.connect()
    assert say(host, client, b"x") == b"done"
    assert host.stats["commands"] >= 10_000


class Many(mpserve.CompiledHandler):
    def on_data(self, conn, data):
        for _ in range(5000):
            conn.pause()
            conn.resume()
        conn.write(b"done")


def test_on_start_and_on_stop_run_in_python() -> None:
    from mpserve.testing import Host

    handler = Started()
    host = Host(handler)
    assert say(host, host.connect(), b"x") == b"set in on_start"
    host.stop()
    assert handler.said == ["start", 1]


class Started(mpserve.CompiledHandler):
    _text: bytes = b""
    _count: int = 0

    def on_start(self, worker):
        self.said = ["start"]
        self._text = b"set in on_start"

    def on_stop(self):
        self.said.append(self._count)

    def on_data(self, conn, data):
        self._count += 1
        conn.write(self._text)


def test_the_worker_of_a_compiled_handler_does_not_connect(host: Any) -> None:
    with pytest.raises(mpserve.SetupError, match="is compiled"):
        host.worker.connect(("10.9.0.1", 80))


def test_nothing_is_sent_by_stale_rooms(mpserve_host: Any) -> None:
    """A write takes the place that was reserved; commit then refuses."""
    host = mpserve_host(Stale())
    assert say(host, host.connect(), b"x") == b"written"


class Stale(mpserve.CompiledHandler):
    def on_data(self, conn, data):
        room = conn.reserve(8)
        room.put(0, b"reserved")
        conn.write(b"written")
        conn.commit(8)


def test_draining_closes_the_connections(mpserve_host: Any) -> None:
    host = mpserve_host(Echo())
    client = host.connect()
    host.worker.drain(0.01)
    host._carry()
    assert client.eof
