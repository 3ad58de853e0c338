"""Codecs before handlers of both kinds: any split of a stream gives the same requests, and what they hold is bounded."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mpserve
from mpserve.testing import Host

CODECS = {
    "lines": mpserve.Lines(max=12),
    "fixed": mpserve.Fixed(5),
    "prefixed": mpserve.LengthPrefixed(bytes=2, max=12),
    "little": mpserve.LengthPrefixed(bytes=1, order="little", max=255),
}


class PythonBase(mpserve.Handler):
    """Answers each request with its length and itself."""

    def on_data(self, sock: mpserve.LwSocket, data: bytes) -> None:
        sock.write(b"<%d:%b>" % (len(data), data))


class CompiledBase(mpserve.CompiledHandler):
    """The same, compiled."""

    def answer(self, conn, request):
        room = conn.reserve(300)
        if not room:
            conn.retry()
            return
        at = room.put_int(room.put(0, b"<"), len(request))
        at = room.put(at, b":")
        at = room.put(at, request)
        conn.commit(room.put(at, b">"))


class PythonLines(PythonBase):
    codec = CODECS["lines"]


class PythonFixed(PythonBase):
    codec = CODECS["fixed"]


class PythonPrefixed(PythonBase):
    codec = CODECS["prefixed"]


class PythonLittle(PythonBase):
    codec = CODECS["little"]


class CompiledLines(CompiledBase):
    codec = CODECS["lines"]

    def on_request(self, conn, request):
        self.answer(conn, request)


class CompiledFixed(CompiledBase):
    codec = CODECS["fixed"]

    def on_request(self, conn, request):
        self.answer(conn, request)


class CompiledPrefixed(CompiledBase):
    codec = CODECS["prefixed"]

    def on_request(self, conn, request):
        self.answer(conn, request)


class CompiledLittle(CompiledBase):
    codec = CODECS["little"]

    def on_request(self, conn, request):
        self.answer(conn, request)


HANDLERS = {
    "lines": (PythonLines, CompiledLines),
    "fixed": (PythonFixed, CompiledFixed),
    "prefixed": (PythonPrefixed, CompiledPrefixed),
    "little": (PythonLittle, CompiledLittle),
}


def model(name: str, stream: bytes) -> tuple[list[bytes], bool]:
    """The requests in a stream, and whether it is BAD behind them: the codecs again, in the plainest Python."""
    found: list[bytes] = []
    while True:
        if name == "fixed":
            if len(stream) < 5:
                return found, False
            body, stream = stream[:5], stream[5:]
        elif name == "lines":
            line, newline, rest = stream.partition(b"\n")
            if not newline:
                return found, len(stream) >= 14
            body, stream = line.removesuffix(b"\r"), rest
            if len(body) > 12:
                return found, True
        else:
            size, most = (2, 12) if name == "prefixed" else (1, 255)
            if len(stream) < size:
                return found, False
            length = int.from_bytes(stream[:size], "big")
            if length > most:
                return found, True
            if len(stream) < size + length:
                return found, False
            body, stream = stream[size : size + length], stream[size + length :]
        found.append(body)


def frames(name: str, bodies: list[bytes]) -> bytes:
    if name == "fixed":
        return b"".join(body.ljust(5, b".")[:5] for body in bodies)
    if name == "lines":
        return b"".join(body[:12].replace(b"\n", b"") + b"\n" for body in bodies)
    size, most = (2, 12) if name == "prefixed" else (1, 255)
    return b"".join(len(body[:most]).to_bytes(size, "big") + body[:most] for body in bodies)


STREAMS = st.tuples(
    st.sampled_from(sorted(CODECS)),
    st.lists(st.binary(max_size=40), max_size=12),
    st.one_of(st.just(b""), st.binary(max_size=30)),
    st.lists(st.integers(1, 60), max_size=8),
    st.booleans(),
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(STREAMS)
def test_any_split_gives_the_same_requests(drawn: tuple[str, list[bytes], bytes, list[int], bool]) -> None:
    name, bodies, tail, cuts, is_compiled = drawn
    stream = frames(name, bodies) + tail
    requests, is_bad = model(name, stream)
    host = Host(HANDLERS[name][is_compiled](), max_connections=16, blocks=256)
    try:
        client, at = host.connect(), 0
        for cut in [*cuts, len(stream)]:
            client.send(stream[at : at + cut])
            host.settle()
            at += cut
        assert client.recv() == b"".join(b"<%d:%b>" % (len(r), r) for r in requests)
        assert client.eof == is_bad
        assert host.stats["handler_errors"] == 0
        assert host.stats["requests"] == len(requests) and host.stats["bad_requests"] == is_bad
        client.reset()
        host.settle()
        assert residues_in_use(host) == 0
    finally:
        host.stop()


def residues_in_use(host: Any) -> int:
    owner = host.handler if host.handler.is_compiled else host.worker.requests
    pool = owner._residues.record
    return int(pool.buffer_count - pool.free_count)


@pytest.mark.parametrize("kind", [PythonLines, CompiledLines])
def test_byte_by_byte(mpserve_host: Any, kind: type) -> None:
    host = mpserve_host(kind())
    client = host.connect()
    for byte in b"one\r\n\ntwo\n":
        client.send(bytes([byte]))
        host.settle()
    assert client.recv() == b"<3:one><0:><3:two>"
    assert residues_in_use(host) == 0


@pytest.mark.parametrize("kind", [PythonLines, CompiledLines])
def test_too_long_a_line_closes_and_what_was_asked_before_is_answered(mpserve_host: Any, kind: type) -> None:
    host = mpserve_host(kind())
    client, other = host.connect(), host.connect()
    client.send(b"fine\n" + b"x" * 13 + b"\nnot seen\n")
    other.send(b"part")
    host.settle()
    assert client.recv() == b"<4:fine>" and client.eof
    other.send(b"s\n")
    host.settle()
    assert other.recv() == b"<5:parts>" and host.stats["bad_requests"] == 1


@pytest.mark.parametrize("kind", [PythonLines, CompiledLines])
def test_residues_are_bounded(mpserve_host: Any, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """More unfinished requests than buffers: who comes last is closed and counted."""
    monkeypatch.setattr("mpserve.framework.residues.POOL_BYTES", 0)
    host = mpserve_host(kind(), max_connections=64)
    clients = [host.connect() for _ in range(18)]
    for client in clients:
        client.send(b"half")
        host.settle()
    assert [client.eof for client in clients] == [False] * 16 + [True] * 2
    assert host.stats["residues_full"] == 2 and residues_in_use(host) == 16
    clients[0].send(b" a line\n")
    clients[1].reset()
    host.settle()
    assert clients[0].recv() == b"<11:half a line>"
    assert residues_in_use(host) == 14


@pytest.mark.parametrize("kind", [PythonLines, CompiledLines])
def test_many_requests_of_one_batch(mpserve_host: Any, kind: type) -> None:
    """More than one pass has rows for."""
    host = mpserve_host(kind())
    client = host.connect(window=1 << 20)
    client.send(b"\n" * 10_000)
    host.advance(0.05)
    assert client.recv() == b"<0:>" * 10_000


def test_requests_that_find_no_room_are_given_again(mpserve_host: Any) -> None:
    host = mpserve_host(CompiledLines(), sndbuf_bytes=2048, sndbuf_max_bytes=2048)
    client = host.connect(window=0)
    lines = [b"%d" % n for n in range(1500)]
    stream = b"\n".join(lines) + b"\n"
    for first in range(0, len(stream), 701):
        client.send(stream[first : first + 701])
        host.settle()
    client.close()
    host.settle()
    assert host.worker.memory.arrays["tcbs"][0].snd_queued <= 2048
    client._window = 1 << 20
    client._say("A", client._nxt)
    host.advance(0.3)
    assert client.recv() == b"".join(b"<%d:%b>" % (len(line), line) for line in lines)
    assert client.eof and host.stats["handler_errors"] == 0


class Batched(mpserve.Handler):
    codec = mpserve.Lines(max=100)

    def on_batch(self, items: list[tuple[mpserve.LwSocket, bytes]]) -> None:
        for sock, line in items:
            sock.write(line[::-1] + b"\n")


def test_on_batch_gets_requests(mpserve_host: Any) -> None:
    host = mpserve_host(Batched())
    client = host.connect()
    client.send(b"abc\nde")
    host.settle()
    client.send(b"f\n")
    host.settle()
    assert client.recv() == b"cba\nfed\n"


class Netstring(mpserve.Codec):
    """LENGTH:BYTES, -- a codec of a user's own, which tells a third column."""

    columns = 3
    most_bytes = 64

    def make_parse(self):
        from mpserve.dataplane.memory import load8

        def parse(buf, start, end, out):
            at = start + out[2]
            while at < end:
                byte = load8(buf + at)
                if byte == 58:
                    first = at + 1 - start
                    out[0], out[1] = first, first + out[1]
                    if end - start < out[1] + 1:
                        out[1] -= first
                        return 0
                    return out[1] + 1 if load8(buf + start + out[1]) == 44 else -1
                if byte < 48 or byte > 57 or out[1] > 60:
                    return -1
                out[1] = 10 * out[1] + byte - 48
                at += 1
                out[2] = at - start
            return 0

        return parse


class Netstrings(mpserve.CompiledHandler):
    codec = Netstring()

    def on_request(self, conn, request, columns):
        room = conn.reserve(128)
        at = room.put_int(room.put(0, request), columns[2])
        conn.commit(room.put_int(at, columns[99]))


def test_a_codec_of_ones_own(mpserve_host: Any) -> None:
    host = mpserve_host(Netstrings())
    client = host.connect()
    for byte in b"3:abc,0:,12:hello, world,":
        client.send(bytes([byte]))
        host.settle()
    assert client.recv() == b"abc10" + b"10" + b"hello, world20"
    client.send(b"x")
    host.settle()
    assert client.eof


@pytest.mark.parametrize(
    "make",
    [
        lambda: mpserve.Lines(max=1 << 20),
        lambda: mpserve.Lines(max=-3),
        lambda: mpserve.Fixed(0),
        lambda: mpserve.LengthPrefixed(bytes=9),
        lambda: mpserve.LengthPrefixed(order="middle"),
        lambda: mpserve.LengthPrefixed(max=-1),
    ],
)
def test_impossible_codecs_are_refused(make: Any) -> None:
    with pytest.raises(mpserve.SetupError):
        make()
