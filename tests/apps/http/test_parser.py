"""Request heads: what is read, what is refused and with which status."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpserve.apps.http.parser import Limits, Refusal, Request, parse

LIMITS = Limits()
HOST = b"Host: a\r\n"


def request(data: bytes) -> Request:
    found, end = parse(data, 0, LIMITS)
    assert isinstance(found, Request), found
    assert end == len(data)
    return found


def status(data: bytes, limits: Limits = LIMITS) -> int:
    found, end = parse(data, 0, limits)
    assert isinstance(found, Refusal), found
    assert end == 0
    return found.status


def test_method_target_and_fields() -> None:
    found = request(b"GET /a?b=c HTTP/1.1\r\nHost: x:80\r\nX-Y:\t z \r\nx-y: w\r\n\r\n")
    assert found == Request(b"GET", b"/a?b=c", 1, {b"host": b"x:80", b"x-y": b"z, w"}, 0)


def test_http_1_0_needs_no_host() -> None:
    assert request(b"GET / HTTP/1.0\r\n\r\n").minor == 0


def test_higher_minor_version_is_read_as_1_1() -> None:
    assert request(b"GET / HTTP/1.7\r\n" + HOST + b"\r\n").keep_alive


@pytest.mark.parametrize(
    "target, path",
    [(b"http://a/b?c", b"/b?c"), (b"HTTP://a", b"/"), (b"http://a?q", b"/?q"), (b"https://a:1/", b"/")],
)
def test_absolute_form(target: bytes, path: bytes) -> None:
    assert request(b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n").target == path


def test_asterisk_form_is_for_options() -> None:
    assert request(b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n").target == b"*"
    assert status(b"GET * HTTP/1.1\r\n" + HOST + b"\r\n") == 400


@pytest.mark.parametrize(
    "minor, connection, kept",
    [
        (1, b"", True),
        (1, b"Connection: close\r\n", False),
        (1, b"Connection: Keep-Alive, CLOSE\r\n", False),
        (1, b"Connection: x\r\nConnection: close\r\n", False),
        (0, b"", False),
        (0, b"Connection: Keep-Alive\r\n", True),
        (0, b"Connection: keep-alive, close\r\n", False),
    ],
)
def test_keep_alive(minor: int, connection: bytes, kept: bool) -> None:
    assert request(b"GET / HTTP/1.%d\r\n%b%b\r\n" % (minor, HOST, connection)).keep_alive is kept


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
        b"Content-Length: 1\r\nContent-Length: 1\r\n",
        b"Content-Length: 1, 1\r\n",
        b"Content-Length: +1\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 0x1\r\n",
        b"Content-Length: 1 1\r\n",
        b"Content-Length:\r\n",
        b"Content-Length: 1_0\r\n",
        b"Content-Length: " + b"9" * 30 + b"\r\n",
        b"Content-Length : 1\r\n",
        b"Content-Length\t: 1\r\n",
        b" Content-Length: 1\r\n",
        b"X: a\r\n b\r\n",
        b"X: a\r\n\tb\r\n",
        b"X: a\x00b\r\n",
        b"X: a\rb\r\n",
        b"X: a\nY: b\r\n",
        b"X\r\n",
        b": a\r\n",
        b"X(y): a\r\n",
        b"Host: b\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked, gzip\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Transfer-Encoding:\r\n",
        b"Transfer-Encoding: \x0bchunked\r\n",
    ],
)
def test_what_two_parsers_could_read_differently_is_refused(fields: bytes) -> None:
    assert status(b"POST / HTTP/1.1\r\n" + HOST + fields + b"\r\n") == 400


@pytest.mark.parametrize(
    "head, expected",
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\n", 505),
        (b"GET / HTTP/0.9\r\n\r\n", 505),
        (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"G" * 40 + b" / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n", 417),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n", 413),
        (b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET /" + b"a" * 9000, 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 16384 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 16384, 431),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/1.1\nHost", 400),
        (b"\n", 400),
        (b"GET /\r\n", 400),  # HTTP/0.9: nothing more would come
        (b"PRI * HTTP/2.0\r\n", 505),
        (b"HELO example.com\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    ],
)
def test_status_of_a_refused_head(head: bytes, expected: int) -> None:
    assert status(head) == expected


def test_several_content_types_are_refused_but_lists_are_joined() -> None:
    assert status(b"GET / HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\nRange: bytes=2-3\r\n\r\n") == 400
    found = request(b"GET / HTTP/1.1\r\nHost: a\r\nIf-None-Match: a\r\nIf-None-Match: b\r\n\r\n")
    assert found.fields[b"if-none-match"] == b"a, b"


def test_every_prefix_is_unfinished() -> None:
    head = b"GET /a HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n"
    for cut in range(len(head)):
        assert parse(head[:cut], 0, LIMITS, max(0, cut - 1)) == (None, 0)
    assert request(head).target == b"/a"


def test_the_next_request_is_left_alone() -> None:
    head = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
    found, end = parse(b"xx" + head + b"GET", 2, LIMITS)
    assert isinstance(found, Request) and end == 2 + len(head)


def test_long_runs_of_blanks_are_read_in_linear_time() -> None:
    assert status(b"GET / HTTP/1.1\r\nHost: a\r\nX:" + b" " * 16000 + b"\x01\r\n\r\n") == 400
    assert status(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a:" * 8000 + b"\x01\r\n\r\n") == 400


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_give_a_request_a_refusal_or_a_wait(data: bytes, ended: bool) -> None:
    data = data + b"\r\n\r\n" if ended else data
    found, end = parse(data, 0, LIMITS)
    assert 0 <= end <= len(data)
    if isinstance(found, Request):
        assert data[:end].endswith(b"\r\n\r\n") and found.method in data
    else:
        assert end == 0


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 60), st.binary(min_size=1, max_size=3))
def test_a_damaged_head_is_never_read_past_its_end(at: int, junk: bytes) -> None:
    head = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nX: y\r\n\r\n"
    damaged = head[:at] + junk + head[at + len(junk) :]
    found, end = parse(damaged + b"12345", 0, LIMITS)
    if isinstance(found, Request):
        assert damaged[:end].endswith(b"\r\n\r\n")
        assert found.length in (0, 5) or junk.strip().isdigit() or found.length is None
