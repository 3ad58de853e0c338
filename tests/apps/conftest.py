"""What plays the framework to a handler where a test wants to say when the peer reads."""

import io
import socket
from typing import Any

import pytest


class Sock:
    """A socket that remembers what was asked of it. It takes `room` bytes before it says that the peer must read."""

    def __init__(self, room: int = 1 << 62) -> None:
        self.room = room
        self.sent = bytearray()
        self.largest_write = 0
        self.cookie = None
        self.closed = False
        self.aborted = False
        self.paused = False
        self.timeout: float | None = None

    def write(self, data: bytes) -> bool:
        assert not self.closed, "written to after close"
        assert type(data) is bytes
        self.sent += data
        self.largest_write = max(self.largest_write, len(data))
        self.room -= len(data)
        return self.room > 0

    def close(self) -> None:
        assert not self.closed, "closed twice"
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def pause(self) -> None:
        assert not self.closed
        self.paused = True

    def resume(self) -> None:
        assert not self.closed
        self.paused = False

    def set_timeout(self, seconds: float) -> None:
        assert not self.closed
        self.timeout = seconds

    def take(self) -> bytes:
        """What was written since the last call."""
        data = bytes(self.sent)
        self.sent.clear()
        return data


class ClientSocket:
    """A client of a mpserve.testing.Host with the face of a kernel's socket, for client libraries that want one."""

    def __init__(self, host: Any) -> None:
        self.host, self.client, self.received = host, host.connect(), b""

    def sendall(self, data: bytes) -> None:
        self.client.send(bytes(data))
        self.host.settle()

    def recv(self, size: int) -> bytes:
        """What has come; b"" only when no more will."""
        for _ in range(1000):
            self.received += self.client.recv()
            if self.received or self.client.eof:
                break
            self.host.advance(0.01)
        else:
            raise TimeoutError("ten virtual seconds without a byte")
        data, self.received = self.received[:size], self.received[size:]
        return data

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(ReceivingFile(self))

    def settimeout(self, seconds: float | None) -> None: ...
    def setsockopt(self, *option: Any) -> None: ...
    def connect(self, address: Any) -> None: ...

    def close(self) -> None:
        if not self.client.closed:
            self.client.close()
            self.host.settle()


class ReceivingFile(io.RawIOBase):
    """What a socket receives, as a file; closing it leaves the socket open."""

    def __init__(self, sock: ClientSocket) -> None:
        self.sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.sock.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class SocketModule:
    """Stands where a client library expects the module `socket`."""

    def __init__(self, host: Any) -> None:
        self.host = host

    def __getattr__(self, name: str) -> Any:
        return getattr(socket, name)

    def socket(self, *kind: Any) -> ClientSocket:
        return ClientSocket(self.host)


@pytest.fixture
def client_socket() -> type[ClientSocket]:
    return ClientSocket


@pytest.fixture
def socket_module() -> type[SocketModule]:
    return SocketModule


@pytest.fixture
def make_sock() -> type[Sock]:
    return Sock
