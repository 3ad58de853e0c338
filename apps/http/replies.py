"""Replies before they meet a connection: status, fields and body, and how they become bytes."""

from email.utils import formatdate
from http import HTTPStatus
from typing import NamedTuple

from mpserve.apps.http.parser import Refusal

REASONS = {status.value: status.phrase.encode() for status in HTTPStatus} | {
    413: b"Content Too Large",
    416: b"Range Not Satisfiable",
}
ALLOW = b"GET, HEAD, OPTIONS"
HTML = b"text/html; charset=utf-8"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Span(NamedTuple):
    """Bytes `start` to `end` (not included) of an open file, sent after the head. The connection closes the file."""

    fd: int
    start: int
    end: int


class Reply(NamedTuple):
    """A reply. `fields` are whole lines with CR LF; `length` is Content-Length, None where there is none (204, 304)."""

    status: int
    fields: bytes
    length: int | None
    body: bytes | Span = b""
    close: bool = False


def text_reply(status: int, why: str, fields: bytes = b"", close: bool = False) -> Reply:
    """An error in one line of plain text."""
    body = b"%d %b: %b\n" % (status, REASONS[status], why.encode())
    return Reply(status, fields + b"Content-Type: text/plain; charset=utf-8\r\n", len(body), body, close)


def refusal_reply(refusal: Refusal) -> Reply:
    """The last reply of a connection: after a refused request nobody can say where the next one starts."""
    return text_reply(refusal.status, refusal.why, close=True)


def method_not_allowed() -> Reply:
    return text_reply(405, "only GET, HEAD and OPTIONS are served here", b"Allow: " + ALLOW + b"\r\n")


def options_reply() -> Reply:
    return Reply(204, b"Allow: " + ALLOW + b"\r\n", None)


def not_found() -> Reply:
    return text_reply(404, "there is nothing at this address")


def head_bytes(reply: Reply, date: bytes, connection: bytes) -> bytes:
    """Status line and fields. `connection` is a whole Connection line or nothing."""
    length = b"" if reply.length is None else b"Content-Length: %d\r\n" % reply.length
    return b"HTTP/1.1 %d %b\r\nServer: mpserve\r\nDate: %b\r\n%b%b%b\r\n" % (
        reply.status,
        REASONS[reply.status],
        date,
        reply.fields,
        length,
        connection,
    )


def http_date(seconds: float) -> bytes:
    """An IMF-fixdate (RFC 9110, 5.6.7)."""
    return formatdate(seconds, usegmt=True).encode()
