"""One HTTP connection: pieces of the byte stream in, replies out, in order, at the pace the peer reads.

It holds no socket (the handler's is given with each call) and reads no clock (`now` is in seconds), and never keeps
more than one unfinished request, one burst of unsent replies and one piece of a file.
"""

import os
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple, Protocol

from mpserve.apps.http.body import ChunkedBody, LengthBody, body_of
from mpserve.apps.http.parser import Limits, Refusal, Request, parse
from mpserve.apps.http.ready import Ready
from mpserve.apps.http.replies import (
    CONTINUE,
    Reply,
    Span,
    head_bytes,
    method_not_allowed,
    options_reply,
    refusal_reply,
)

FLUSH_BYTES = 65536
PIECE_BYTES = 65536


class Phase(IntEnum):
    """What a connection is about to do."""

    HEAD = 0
    BODY = 1
    SENDING = 2
    GONE = 3


class Site(Protocol):
    """Whatever answers requests for GET and HEAD."""

    def respond(self, request: Request) -> Reply: ...


class Sock(Protocol):
    """What a connection needs of an lwsocket."""

    def write(self, data: bytes, /) -> bool: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Timeouts(NamedTuple):
    """Seconds: for a whole request head, between requests, between pieces of a body, for a peer that doesn't read."""

    head: float = 10.0
    keepalive: float = 75.0
    body: float = 30.0
    send: float = 60.0


class Service(NamedTuple):
    """What all connections of a worker have in common."""

    site: Site
    limits: Limits
    timeouts: Timeouts
    ready: Ready
    date: Callable[[], bytes]


class Connection:
    """The state of one connection between two callbacks."""

    __slots__ = (
        "service",
        "phase",
        "idle",
        "since",
        "served",
        "armed",
        "buffer",
        "at",
        "scanned",
        "request",
        "body",
        "out",
        "out_bytes",
        "span",
        "stalled",
        "closing",
        "eof",
    )

    def __init__(self, service: Service, now: float) -> None:
        self.service = service
        self.phase = Phase.HEAD
        self.idle = True
        """Nothing is left over: a whole request may be answered without looking further."""
        self.since = now
        """When the phase, or the last progress in it, began."""
        self.served = False
        self.armed = 0.0
        """The timeout that the handler has set."""
        self.buffer = b""
        self.at = 0
        """How much of the buffer is consumed; not 0 inside `advance` only."""
        self.scanned = 0
        """How far the end of a head has been looked for."""
        self.request: Request | None = None
        self.body: LengthBody | ChunkedBody | None = None
        self.out: list[bytes] = []
        self.out_bytes = 0
        self.span: Span | None = None
        self.stalled = False
        """The peer has to read before more is written."""
        self.closing = False
        """The last reply is queued."""
        self.eof = False

    def receive(self, sock: Sock, data: bytes, now: float) -> None:
        """Take bytes from the peer and serve what they complete."""
        if self.phase == Phase.GONE:
            return
        fresh = not self.buffer
        self.buffer = data if fresh else self.buffer + data
        if self.phase == Phase.BODY:
            self.since = now
        self.advance(sock, now)
        if fresh and self.served and self.buffer and self.phase == Phase.HEAD:
            self.since = now

    def end_of_input(self, sock: Sock) -> None:
        """The peer has sent its FIN: finish the replies that are owed, then close."""
        self.eof = True
        if not self.stalled:
            self.close(sock)

    def writable(self, sock: Sock, now: float) -> None:
        """The peer has read: go on where the last write stalled."""
        self.since = now
        self.stalled = False
        self.advance(sock, now)
        if self.stalled or self.phase == Phase.GONE:
            return
        if self.eof:
            self.close(sock)
        else:
            sock.resume()

    def release(self) -> None:
        """Close the file that was being sent."""
        if self.span is not None:
            os.close(self.span.fd)
            self.span = None

    def close(self, sock: Sock) -> None:
        """FIN after what was written. What the peer still sends is dropped, not answered by a RST that could overtake
        the last reply (RFC 9112, 9.6)."""
        self.phase = Phase.GONE
        self.idle = False
        sock.close()

    def abort(self, sock: Sock) -> None:
        self.phase = Phase.GONE
        self.idle = False
        sock.abort()

    def stall(self, sock: Sock) -> None:
        """A write said that the peer must read first: take nothing more from it meanwhile."""
        self.stalled = True
        self.idle = False
        sock.pause()

    # Time

    def patience(self, now: float) -> float:
        """Seconds for which the peer may still be silent. None is left if a head took too long, byte by byte though."""
        timeouts = self.service.timeouts
        if self.idle and self.served:
            return timeouts.keepalive
        limit = timeouts.send if self.stalled else timeouts.body if self.phase == Phase.BODY else timeouts.head
        return self.since + limit - now

    def expire(self, sock: Sock, now: float) -> None:
        """Patience is at its end. A request that has begun gets a 408; nobody is told that an idle connection ends."""
        if self.stalled:
            self.abort(sock)
        elif self.phase == Phase.BODY or (self.phase == Phase.HEAD and self.buffer):
            self.since = now
            self._refuse(Refusal(408, "the request took too long"))
            self.advance(sock, now)
        else:
            self.close(sock)

    # The loop

    def advance(self, sock: Sock, now: float) -> None:
        """Serve until more bytes are needed, the peer must read first, or the last reply is out."""
        while not self.stalled and self.phase != Phase.GONE and self._step(sock, now):
            pass
        if self.at:
            self.buffer = self.buffer[self.at :]
            self.scanned = max(0, self.scanned - self.at)
            self.at = 0
        self.idle = self.phase == Phase.HEAD and not self.buffer and not self.stalled

    def _step(self, sock: Sock, now: float) -> bool:
        """One request, body or file, as far as it goes; False if nothing more can be done now."""
        if self.phase == Phase.SENDING:
            return self._send(sock, now)
        if self.closing:
            if self._flush(sock):
                self.close(sock)
            return False
        more = self._head(now) if self.phase == Phase.HEAD else self._body(now)
        if more and self.out_bytes < FLUSH_BYTES:
            return True
        return self._flush(sock) and more

    def _head(self, now: float) -> bool:
        """Take one request head off the buffer; False if it isn't whole."""
        buffer, start = self.buffer, self.at
        while buffer.startswith(b"\r\n", start):  # RFC 9112, 2.2: empty lines before a request are overlooked
            start += 2
        self.at = start
        if start == len(buffer):
            return False
        if self.service.ready and self._again(start, now):
            return True
        parsed, end = parse(buffer, start, self.service.limits, self.scanned)
        self.scanned = end if parsed is not None else len(buffer)
        if parsed is None:
            return False
        if isinstance(parsed, Refusal):
            self._refuse(parsed)
            return True
        self.at = end
        if parsed.length == 0:
            self._respond(parsed, buffer[start:end], now)
        else:
            self._expect_body(parsed, now)
        return True

    def _again(self, start: int, now: float) -> bool:
        """Answer a head that, byte for byte, was answered this very second."""
        end = self.buffer.find(b"\r\n\r\n", max(start, self.scanned - 3)) + 4
        reply = self.service.ready.get(self.buffer[start:end])
        if reply is None:
            return False
        self._queue(reply)
        self.at = self.scanned = end
        self.since = now
        self.served = True
        return True

    def _expect_body(self, request: Request, now: float) -> None:
        if b"expect" in request.fields and request.minor >= 1 and self.at == len(self.buffer):
            self.out.append(CONTINUE)
        self.request = request
        self.body = body_of(request, self.service.limits)
        self.phase = Phase.BODY
        self.since = now

    def _body(self, now: float) -> bool:
        """Consume what is there of a body; False if there must be more of it."""
        assert self.body is not None and self.request is not None
        end = self.body.consume(self.buffer, self.at)
        if isinstance(end, Refusal):
            self._refuse(end)
            return True
        self.at = end
        if not self.body.done:
            return False
        request, self.request, self.body = self.request, None, None
        self.phase = Phase.HEAD
        self.scanned = end
        self._respond(request, b"", now)
        return True

    def _respond(self, request: Request, head: bytes, now: float) -> None:
        """Answer a request whose body is consumed. `head` is its bytes, if there is nothing more to it."""
        reply = self._reply_to(request)
        keep = request.keep_alive and not reply.close
        first = len(self.out)
        self._put(reply, keep, request.minor, request.method == b"HEAD")
        self.since = now
        self.served = True
        self.closing = not keep
        if keep and head and reply.status in (200, 304) and self.span is None:
            self.service.ready.put(head, b"".join(self.out[first:]))

    def _reply_to(self, request: Request) -> Reply:
        if request.method in (b"GET", b"HEAD"):
            return self.service.site.respond(request)
        return options_reply() if request.method == b"OPTIONS" else method_not_allowed()

    def _refuse(self, refusal: Refusal) -> None:
        self._put(refusal_reply(refusal), False, 1, False)
        self.phase = Phase.HEAD
        self.closing = True

    def _put(self, reply: Reply, keep: bool, minor: int, head_only: bool) -> None:
        """Queue a reply's bytes. If it is a file, that follows when they are out."""
        connection = b"" if keep and minor >= 1 else b"Connection: keep-alive\r\n" if keep else b"Connection: close\r\n"
        self._queue(head_bytes(reply, self.service.date(), connection))
        if isinstance(reply.body, Span):
            self.span = reply.body
            if head_only:
                self.release()
            else:
                self.phase = Phase.SENDING
        elif not head_only:
            self._queue(reply.body)

    # Output

    def _queue(self, data: bytes) -> None:
        self.out.append(data)
        self.out_bytes += len(data)

    def _flush(self, sock: Sock) -> bool:
        """Write what is queued; False if the peer must read before there is more."""
        if self.out:
            data = b"".join(self.out)
            self.out.clear()
            self.out_bytes = 0
            if not sock.write(data):
                self.stall(sock)
                return False
        return True

    def _send(self, sock: Sock, now: float) -> bool:
        """Send the file piece by piece, until it is out or the peer must read."""
        if not self._flush(sock):
            return False
        assert self.span is not None
        fd, start, end = self.span
        while start < end:
            piece = os.pread(fd, min(PIECE_BYTES, end - start), start)
            if not piece:  # the file was cut short: the promised length can't be kept
                self.abort(sock)
                return False
            start += len(piece)
            self.span = Span(fd, start, end)
            if not sock.write(piece):
                self.stall(sock)
                return False
        self.release()
        self.phase = Phase.HEAD
        self.since = now
        return True
