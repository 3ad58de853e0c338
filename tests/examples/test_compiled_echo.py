"""examples/compiled_echo.py: fields of a compiled handler, read from Python too."""

from typing import Any


def test_it_echoes_greets_and_counts(mpserve_host: Any, example: Any) -> None:
    handler = example("compiled_echo.py:CompiledEcho")(greeting=b"hi ", most=10)
    host = mpserve_host(handler)
    client, other = host.connect(), host.connect()
    client.send(b"12345")
    other.send(b"x")
    host.settle()
    assert client.recv() == b"hi 12345" and not client.eof
    client.send(b"67890")
    host.settle()
    assert client.recv() == b"67890" and client.eof
    assert other.recv() == b"hi x" and not other.eof
    assert handler._bytes == 11 and handler._connections == 2 and host.stats["handler_errors"] == 0


def test_an_idle_connection_is_closed(mpserve_host: Any, example: Any) -> None:
    host = mpserve_host(example("compiled_echo.py:CompiledEcho")())
    handler_idle = host.connect()
    host.advance(1.0)
    assert not handler_idle.eof
    host.record.now += 59_000_000
    host.advance(0.1)
    assert handler_idle.eof
