"""Request bodies, consumed and thrown away: what they say is of no use to a GET, where they end is.

A body is fed pieces of the connection's buffer and says how far it has read. No sockets here.
"""

import re

from mpserve.apps.http.parser import FIELD, Limits, Refusal, Request

CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*+)?\r\n")
LINE_BYTES = 1024
TRAILER_BYTES = 8192


class LengthBody:
    """A body of Content-Length bytes."""

    __slots__ = ("remaining",)

    def __init__(self, length: int) -> None:
        self.remaining = length

    def consume(self, buf: bytes, start: int) -> int | Refusal:
        """Read on from `start`; where the body, or what is there of it, ends."""
        end = min(len(buf), start + self.remaining)
        self.remaining -= end - start
        return end

    @property
    def done(self) -> bool:
        return self.remaining == 0


class ChunkedBody:
    """A chunked body (RFC 9112, 7.1): sizes and line ends checked to the letter, extensions and trailers ignored."""

    __slots__ = ("limit", "size", "remaining", "trailer", "done")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self.remaining = -1
        """Bytes left of the chunk and its CR LF; -1 before a chunk's size."""
        self.trailer = -1
        """Bytes of the trailer section so far; -1 before it."""
        self.done = False

    def consume(self, buf: bytes, start: int) -> int | Refusal:
        """Read on from `start`; how far. What isn't consumed is an unfinished line and has to be given again."""
        at: int | Refusal = start
        while not self.done and not isinstance(at, Refusal):
            before = at
            at = self._step(buf, before)
            if at == before:
                break
        return at

    def _step(self, buf: bytes, at: int) -> int | Refusal:
        if self.trailer >= 0:
            return self._trailer_line(buf, at)
        if self.remaining < 0:
            return self._chunk_size(buf, at)
        return self._chunk_data(buf, at)

    def _chunk_size(self, buf: bytes, at: int) -> int | Refusal:
        line = CHUNK_SIZE.match(buf, at)
        if line is None:
            return unfinished_line(buf, at)
        size = int(line[1], 16)
        self.size += size
        if self.size > self.limit:
            return Refusal(413, f"a body may have {self.limit} bytes")
        if size == 0:
            self.trailer = 0
        else:
            self.remaining = size + 2
        return line.end()

    def _chunk_data(self, buf: bytes, at: int) -> int | Refusal:
        """Skip data, but keep its CR LF together: it is checked when both have come."""
        if self.remaining > 2:
            skipped = min(len(buf) - at, self.remaining - 2)
            self.remaining -= skipped
            return at + skipped
        if len(buf) - at < 2:
            return at
        if buf[at : at + 2] != b"\r\n":
            return Refusal(400, "a chunk is longer than its size says")
        self.remaining = -1
        return at + 2

    def _trailer_line(self, buf: bytes, at: int) -> int | Refusal:
        if buf[at : at + 2] == b"\r\n":
            self.done = True
            return at + 2
        line = FIELD.match(buf, at)
        if line is None:
            return unfinished_line(buf, at)
        self.trailer += line.end() - at
        if self.trailer > TRAILER_BYTES:
            return Refusal(431, "the trailer is too long")
        return line.end()


def unfinished_line(buf: bytes, at: int) -> int | Refusal:
    """A line of a chunked body that didn't match: not whole yet, or wrong?"""
    if buf.find(b"\n", at) >= 0 or len(buf) - at > LINE_BYTES:
        return Refusal(400, "the chunked body is malformed")
    return at


def body_of(request: Request, limits: Limits) -> LengthBody | ChunkedBody:
    """The reader of a request's body."""
    return ChunkedBody(limits.body) if request.length is None else LengthBody(request.length)
