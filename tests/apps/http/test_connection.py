"""Connections: order, splits, pipelining, bodies, back-pressure and time, with a socket that says when it is full."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpserve.apps.http.connection import FLUSH_BYTES, PIECE_BYTES, Connection, Phase, Service, Timeouts
from mpserve.apps.http.files import Files
from mpserve.apps.http.parser import Limits
from mpserve.apps.http.ready import Ready

BIG = os.urandom(300_000)
HOST = b"Host: a\r\n"


def head(method: bytes, target: bytes, *fields: bytes) -> bytes:
    return b"%b %b HTTP/1.1\r\n%b%b\r\n" % (method, target, HOST, b"".join(f + b"\r\n" for f in fields))


GET = head(b"GET", b"/small")
GET_BIG = head(b"GET", b"/big")
POST = head(b"POST", b"/small", b"Content-Length: 10") + b"0123456789"
CHUNKED = head(b"GET", b"/small", b"Transfer-Encoding: chunked") + b"3\r\nGET\r\n0\r\n\r\n"


@pytest.fixture
def service(tmp_path: Path) -> Service:
    (tmp_path / "small").write_bytes(b"hello")
    (tmp_path / "big").write_bytes(BIG)
    site = Files(str(tmp_path), [], 1 << 20)
    return Service(site, Limits(), Timeouts(), Ready(1 << 20), lambda: b"Thu, 01 Jan 1970 00:00:00 GMT")


def run(service: Service, sock: Any, pieces: list[bytes]) -> bytes:
    connection = Connection(service, 0.0)
    for piece in pieces:
        connection.receive(sock, piece, 0.0)
    return sock.take()


def statuses(replies: bytes) -> list[int]:
    """The statuses of a run of replies, each with its Content-Length checked by walking over it."""
    found = []
    while replies:
        top, _, replies = replies.partition(b"\r\n\r\n")
        found.append(int(top.split(b" ")[1]))
        lengths = [int(line[16:]) for line in top.split(b"\r\n") if line.startswith(b"Content-Length: ")]
        replies = replies[sum(lengths) :]
    return found


STREAM = GET + POST + CHUNKED + b"\r\n" + head(b"OPTIONS", b"*") + GET + head(b"GET", b"/small", b"Connection: close")
STREAM_STATUSES = [200, 405, 200, 204, 200, 200]


def test_every_split_of_pipelined_requests_gives_the_same_replies(service: Service, make_sock: Any) -> None:
    whole = run(service, make_sock(), [STREAM])
    assert statuses(whole) == STREAM_STATUSES
    for cut in range(1, len(STREAM)):
        sock = make_sock()
        assert run(service, sock, [STREAM[:cut], STREAM[cut:]]) == whole, cut
        assert sock.closed
    assert run(service, make_sock(), [STREAM[i : i + 1] for i in range(len(STREAM))]) == whole


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 90), max_size=20), st.lists(st.integers(1, 4000), max_size=20))
def test_any_pieces_and_any_reader(service: Service, make_sock: Any, sizes: list[int], rooms: list[int]) -> None:
    """However the requests are cut and however the peer reads, the replies are the same."""
    stream = GET_BIG + STREAM
    whole = run(service, make_sock(), [stream])
    if len(whole) < len(BIG):
        pytest.fail("the file is missing")
    connection, sock = Connection(service, 0.0), make_sock(rooms.pop() if rooms else 1 << 40)
    while stream:
        size = sizes.pop() if sizes else len(stream)
        connection.receive(sock, stream[:size], 0.0)
        stream = stream[size:]
    while connection.stalled:
        assert sock.paused
        sock.room = rooms.pop() if rooms else 1 << 40
        connection.writable(sock, 0.0)
    assert sock.take() == whole
    assert sock.closed and not sock.aborted


def test_a_large_file_goes_out_piece_by_piece(service: Service, make_sock: Any) -> None:
    connection, sock = Connection(service, 0.0), make_sock(100_000)
    connection.receive(sock, GET_BIG + GET, 0.0)
    sent = len(sock.sent)
    assert connection.stalled and sock.paused
    assert sent < 100_000 + PIECE_BYTES + 1000
    connection.receive(sock, GET, 0.0)  # more may come in the turn in which it was paused
    assert len(sock.sent) == sent
    sock.room = 1 << 40
    connection.writable(sock, 1.0)
    assert not sock.paused and connection.idle
    assert sock.largest_write <= FLUSH_BYTES + PIECE_BYTES
    replies = sock.take()
    assert BIG in replies and statuses(replies) == [200, 200, 200]


def test_pipelined_replies_wait_for_the_reader(service: Service, make_sock: Any) -> None:
    connection, sock = Connection(service, 0.0), make_sock(1)
    connection.receive(sock, GET * 5000, 0.0)
    assert connection.stalled and sock.paused
    assert len(sock.sent) < FLUSH_BYTES + 1000
    while connection.stalled:
        sock.room = 1
        connection.writable(sock, 0.0)
    assert statuses(sock.take()) == [200] * 5000


def test_head_of_a_large_file_closes_it(service: Service, make_sock: Any) -> None:
    before = len(os.listdir("/proc/self/fd"))
    replies = run(service, make_sock(), [head(b"HEAD", b"/big") + head(b"HEAD", b"/small")])
    assert replies.count(b"\r\n\r\n") == 2 and replies.endswith(b"\r\n\r\n")
    assert b"Content-Length: 300000" in replies and b"Content-Length: 5" in replies
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_cut_short_aborts(service: Service, make_sock: Any, tmp_path: Path) -> None:
    connection, sock = Connection(service, 0.0), make_sock(100)
    connection.receive(sock, GET_BIG, 0.0)
    os.truncate(tmp_path / "big", 10)
    sock.room = 1 << 40
    connection.writable(sock, 0.0)
    assert sock.aborted
    connection.release()


def test_a_connection_that_ends_while_it_sends_closes_the_file(service: Service, make_sock: Any) -> None:
    before = len(os.listdir("/proc/self/fd"))
    connection, sock = Connection(service, 0.0), make_sock(100)
    connection.receive(sock, GET_BIG, 0.0)
    connection.release()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    "data, expected",
    [
        (b"GET / HTTP/1.1\n\n", [400]),
        (GET + b"GET / HTTP/9.1\r\n\r\n" + GET, [200, 505]),
        (head(b"POST", b"/", b"Transfer-Encoding: chunked") + b"xyz\r\n" + GET, [400]),
        (head(b"POST", b"/", b"Content-Length: 3", b"Transfer-Encoding: chunked") + b"0\r\n\r\n" + GET, [400]),
        (head(b"PUT", b"/", b"Content-Length: 2000000"), [413]),
        (head(b"PUT", b"/", b"Expect: 200-ok", b"Content-Length: 2"), [417]),
        (b"HELO there\r\n\r\n", [400]),
        (b"GET /nothing HTTP/1.0\r\n\r\n", [404]),
        (GET + head(b"GET", b"/small", b"Connection: close") + GET, [200, 200]),
    ],
)
def test_the_last_reply_of_a_connection(service: Service, make_sock: Any, data: bytes, expected: list[int]) -> None:
    sock = make_sock()
    replies = run(service, sock, [data])
    assert statuses(replies) == expected
    assert replies.count(b"Connection: close") == 1
    assert sock.closed and not sock.aborted


def test_nothing_after_the_last_reply_is_served(service: Service, make_sock: Any) -> None:
    connection, sock = Connection(service, 0.0), make_sock()
    connection.receive(sock, head(b"GET", b"/small", b"Connection: close"), 0.0)
    sock.take()
    connection.receive(sock, GET, 0.0)
    assert sock.take() == b"" and connection.phase == Phase.GONE


def test_http_1_0_keeps_alive_when_asked(service: Service, make_sock: Any) -> None:
    sock = make_sock()
    replies = run(service, sock, [b"GET /small HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"])
    assert b"\r\nConnection: keep-alive\r\n" in replies and not sock.closed
    replies = run(service, sock, [b"GET /small HTTP/1.0\r\n\r\n"])
    assert b"\r\nConnection: close\r\n" in replies and sock.closed


def test_405_says_what_is_allowed(service: Service, make_sock: Any) -> None:
    assert b"\r\nAllow: GET, HEAD, OPTIONS\r\n" in run(service, make_sock(), [POST])


def test_continue_is_sent_to_those_who_wait(service: Service, make_sock: Any) -> None:
    connection, sock = Connection(service, 0.0), make_sock()
    connection.receive(sock, head(b"POST", b"/small", b"Expect: 100-continue", b"Content-Length: 3"), 0.0)
    assert sock.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.receive(sock, b"abc", 0.0)
    assert statuses(sock.take()) == [405] and not sock.closed


def test_continue_is_not_sent_to_those_who_do_not(service: Service, make_sock: Any) -> None:
    data = head(b"POST", b"/small", b"Expect: 100-continue", b"Content-Length: 3") + b"abc"
    assert statuses(run(service, make_sock(), [data])) == [405]


def test_end_of_input(service: Service, make_sock: Any) -> None:
    connection, sock = Connection(service, 0.0), make_sock()
    connection.receive(sock, GET, 0.0)
    connection.end_of_input(sock)
    assert sock.closed and statuses(sock.take()) == [200]


def test_end_of_input_while_replies_are_owed(service: Service, make_sock: Any) -> None:
    connection, sock = Connection(service, 0.0), make_sock(10)
    connection.receive(sock, GET_BIG + GET + b"GET /unfinished", 0.0)
    connection.end_of_input(sock)
    assert not sock.closed
    sock.room = 1 << 40
    connection.writable(sock, 0.0)
    assert sock.closed and statuses(sock.take()) == [200, 200]


def test_patience(service: Service, make_sock: Any) -> None:
    connection, sock = Connection(service, 100.0), make_sock(1 << 40)
    assert connection.patience(104.0) == 6.0  # a head within ten seconds
    connection.receive(sock, GET, 105.0)
    assert connection.patience(120.0) == 75.0  # then any 75 of silence
    connection.receive(sock, b"GET", 150.0)
    connection.receive(sock, b" /", 155.0)
    assert connection.patience(156.0) == 4.0  # from its first byte on
    connection.receive(sock, b"small HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\n", 156.0)
    assert connection.patience(156.0) == 30.0
    connection.receive(sock, b"1234", 180.0)
    assert connection.patience(180.0) == 30.0
    sock.room = 1
    connection.receive(sock, b"56789" + GET_BIG, 190.0)
    assert connection.stalled and connection.patience(191.0) == 59.0


@pytest.mark.parametrize("begun", [b"G", GET[:-1], POST[:-1], CHUNKED[:-3]])
def test_a_request_that_takes_too_long_is_told_so(service: Service, make_sock: Any, begun: bytes) -> None:
    connection, sock = Connection(service, 0.0), make_sock()
    connection.receive(sock, begun, 0.0)
    connection.expire(sock, 11.0)
    assert statuses(sock.take()) == [408] and sock.closed


def test_an_idle_connection_ends_without_a_word(service: Service, make_sock: Any) -> None:
    connection, sock = Connection(service, 0.0), make_sock()
    connection.expire(sock, 11.0)
    assert sock.take() == b"" and sock.closed and not sock.aborted


def test_a_peer_that_does_not_read_is_aborted(service: Service, make_sock: Any) -> None:
    connection, sock = Connection(service, 0.0), make_sock(1)
    connection.receive(sock, GET_BIG, 0.0)
    connection.expire(sock, 61.0)
    assert sock.aborted


def test_ready_replies_hold_only_what_can_be_said_again(service: Service, make_sock: Any) -> None:
    close = head(b"GET", b"/small", b"Connection: close")
    replies = run(service, make_sock(), [GET + POST + CHUNKED + GET_BIG + head(b"GET", b"/nothing") + close])
    assert statuses(replies) == [200, 405, 200, 200, 404, 200]
    assert list(service.ready) == [GET]
    assert replies.startswith(service.ready[GET])


def test_ready_is_bounded() -> None:
    ready = Ready(2000)
    for i in range(100):
        ready.put(b"%d" % i, b"x" * 100)
    assert 0 < len(ready) < 10 and ready.size <= 2000
    ready.put(b"h" * 3000, b"")
    assert b"h" * 3000 not in ready
    ready.clear()
    assert ready.size == 0 and not ready


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([GET, POST, CHUNKED, b"\r\n", HOST])), max_size=8))
def test_any_bytes_are_survived(service: Service, make_sock: Any, pieces: list[bytes]) -> None:
    connection, sock = Connection(service, 0.0), make_sock()
    for piece in pieces:
        connection.receive(sock, piece, 0.0)
        assert len(connection.buffer) <= 16384 + 64
    assert all(status in (200, 204, 400, 405, 414, 501, 505) for status in statuses(sock.take()))
    assert connection.at == 0 and not connection.out
