"""examples/echo.py: state of a connection in its cookie."""

from typing import Any

import pytest

pytestmark = pytest.mark.on_kernel_sockets


@pytest.fixture
def host(mpserve_host: Any, example: Any) -> Any:
    return mpserve_host(example("echo.py:Echo")())


def test_each_connection_counts_for_itself(host: Any) -> None:
    one, two = host.connect(), host.connect()
    one.send(b"a\nb\n")
    two.send(b"x\r\n")
    host.settle()
    one.send(b"c\n")
    host.settle()
    assert one.recv() == b"1: a\n2: b\n3: c\n"
    assert two.recv() == b"1: x\n"


def test_a_line_in_pieces(host: Any) -> None:
    client = host.connect()
    for piece in (b"he", b"ll", b"o\nwor", b"ld"):
        client.send(piece)
        host.settle()
    assert client.recv() == b"1: hello\n"


def test_the_last_word(host: Any) -> None:
    client = host.connect()
    client.send(b"a\nb\n")
    client.close()
    host.settle()
    assert client.recv() == b"1: a\n2: b\n2 lines, 4 bytes\n"
    assert client.eof


def test_an_endless_line_is_refused(host: Any) -> None:
    client = host.connect()
    client.send(b"x" * 5000)
    host.settle()
    assert client.recv() == b"that line is too long\n"
    assert client.eof and not client.was_reset


def test_a_lot_is_echoed_at_the_reader_s_pace(host: Any) -> None:
    client = host.connect()
    client.send(b"some words\n" * 100_000)
    host.advance(3.0)
    assert client.recv().endswith(b"\n100000: some words\n")
    assert host.stats["handler_errors"] == 0
