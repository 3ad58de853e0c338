"""examples/line_server.py: a codec before a Python handler."""

from typing import Any

import pytest

pytestmark = pytest.mark.on_kernel_sockets


@pytest.fixture
def host(mpserve_host: Any, example: Any) -> Any:
    return mpserve_host(example("line_server.py:LineServer")())


def ask(host: Any, client: Any, text: bytes) -> bytes:
    client.send(text)
    host.settle()
    return client.recv()


def test_lines_in_any_pieces(host: Any) -> None:
    client = host.connect()
    assert ask(host, client, b"echo a b\r\nec") == b"a b\n"
    assert ask(host, client, b"ho c\ncount\n") == b"c\n3\n"
    assert ask(host, client, b"what\n").startswith(b"? time")
    assert ask(host, client, b"time\n").endswith(b"UTC\n")
    host.advance(0.5)
    assert 0.5 <= float(ask(host, client, b"uptime\n")) < 60.0


def test_quit_ends_the_connection_and_nothing_behind_it_counts(host: Any) -> None:
    client = host.connect()
    assert ask(host, client, b"QUIT\ncount\n") == b"bye\n"
    assert client.eof and host.handler.answered == 0


def test_an_endless_line_ends_the_connection(host: Any) -> None:
    client = host.connect()
    assert ask(host, client, b"x" * 1500) == b"" and client.eof
    assert host.stats["bad_requests"] == 1
