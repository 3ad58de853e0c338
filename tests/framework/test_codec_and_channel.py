"""A codec is its handler's own: a channel beside it gets bytes as they come, in whatever batch."""

from typing import Any

import pytest

import mpserve
from mpserve import Kind

RAW = b"cut\nnothing\n of this, which is far too long to be a line of the handler's\n"


class Both(mpserve.Handler):
    """Lines for the handler on port 7, and a channel with a listener on port 8."""

    codec = mpserve.Lines(max=20)
    regular: bool = False

    def on_start(self, worker: mpserve.Worker) -> None:
        self.lines: list[bytes] = []
        self.got: list[bytes] = []
        self.sockets: list[Any] = []
        self.channel = mpserve.Channel(worker, on_completions=self.on_completions)
        self.channel.accept(self.channel.register(self.channel.listen(("", 8))), 100, regular=self.regular)

    def on_data(self, sock: mpserve.LwSocket, data: bytes) -> None:
        self.lines.append(data)
        if data == b"join":
            sock.to_socket()

    def on_completions(self, channel: mpserve.Channel) -> None:
        for event in channel.dispatch():
            if event.kind == Kind.ACCEPT and self.regular:
                self.sockets.append(event.endpoint)
                continue
            if event.kind == Kind.READ:
                self.got.append(event.data)
            if event.result >= 0:
                channel.read(channel.register(event.endpoint) if event.kind == Kind.ACCEPT else event.handle, 4096)


@pytest.fixture
def host(mpserve_host: Any) -> Any:
    return mpserve_host(Both())


def test_accepted_connections(host: Any) -> None:
    ours, line = host.connect(8), host.connect(7)
    ours.send(RAW)
    line.send(b"one\ntwo\n")
    host.settle()
    assert host.handler.got == [RAW] and host.handler.lines == [b"one", b"two"]
    ours.reset()
    host.settle()
    again = host.connect(7)
    again.send(b"its slot is mine now\n")
    host.settle()
    assert host.handler.lines[2:] == [b"its slot is mine now"] and host.stats["bad_requests"] == 0


def test_data_in_the_batch_of_its_accept(host: Any) -> None:
    """The handshake's last segment and data arrive in one turn."""
    held: list[bytes] = []
    deliver = host._wire.deliver

    def deliver_synchronisations(frame: bytes) -> None:
        is_segment = frame[12:14] == b"\x08\x00"
        (held.append if is_segment and not frame[47] & 2 else deliver)(frame)

    host._wire.deliver = deliver_synchronisations
    client = host.connect(8)
    client.send(RAW)
    host._wire.deliver = deliver
    assert len(held) == 2 and not host.handler.got
    for frame in held:
        deliver(frame)
    before = host.stats["turns"]
    host.worker.step(sleep=False)
    assert host.stats["turns"] == before + 1
    host.settle()
    assert b"".join(host.handler.got) == RAW


def test_connections_that_were_asked_for(host: Any) -> None:
    accepted = host.listen(80)
    handle = host.handler.channel.connect((host.far, 80))
    host.handler.channel.read(handle, 4096)
    host.settle()
    accepted[0].send(RAW)
    host.settle()
    assert host.handler.got == [RAW]


def test_regular_sockets(mpserve_host: Any) -> None:
    host = mpserve_host(Both(regular=True))
    client = host.connect(8)
    client.send(RAW)
    host.settle()
    assert host.handler.sockets[0].recv(4096) == RAW
    host.handler.sockets[0].close()


def test_what_a_codec_has_cut_is_not_handed_over(host: Any) -> None:
    client = host.connect(7)
    client.send(b"join\n")
    host.settle()
    assert client.was_reset and host.stats["handler_errors"] == 1


def test_the_last_listener_of_a_core(mpserve_host: Any) -> None:
    host = mpserve_host(Both())
    channel = host.handler.channel
    for port in range(100, 162):
        listener = channel.register(channel.listen(("", port)))
    channel.accept(listener)
    host.settle()
    client = host.connect(161)
    client.send(RAW)
    host.settle()
    assert host.handler.got == [RAW]


class Compiled(mpserve.CompiledHandler):
    def on_start(self, worker: Any) -> None:
        mpserve.Channel(worker)

    def on_data(self, conn, data):  # type: ignore[no-untyped-def]
        pass


def test_no_channel_beside_a_compiled_handler(mpserve_host: Any) -> None:
    with pytest.raises(mpserve.SetupError, match="Compiled is compiled and takes every event"):
        mpserve_host(Compiled())
