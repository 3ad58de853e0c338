"""The code in docs/handlers.md does what the page says."""

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import mpserve

pytestmark = pytest.mark.on_kernel_sockets

PAGE = Path(__file__).parents[2] / "docs" / "handlers.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def names_of(block: str, **given: Any) -> dict[str, Any]:
    """What a block defines."""
    names: dict[str, Any] = {"mpserve": mpserve, "dataclass": dataclass, "Path": Path, **given}
    exec(block, names)
    return names


def block_with(text: str) -> str:
    [block] = [block for block in BLOCKS if text in block]
    return block


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_can_be_read(block: str) -> None:
    assert compile(block, str(PAGE), "exec")


def test_the_first_handler_passes_the_last_test() -> None:
    echo = names_of(BLOCKS[0])["Echo"]
    names_of(block_with("def test_echo"), Echo=echo)["test_echo"]()


def test_state_in_a_cookie(mpserve_host: Any) -> None:
    host = mpserve_host(names_of(block_with("class Numbered"))["Numbered"]())
    client = host.connect()
    client.send(b"a\nb\nc")
    host.settle()
    assert client.recv() == b"1: a\n2: b\n"


def test_options_are_taken() -> None:
    assert names_of(block_with("class Chat"))["Chat"](motd=Path("x")).motd == Path("x")


def test_back_pressure(mpserve_host: Any) -> None:
    names = names_of(block_with("sock.pause()\n\n\ndef on_writable"))
    handler = type("Slow", (mpserve.Handler,), {name: names[name] for name in ("on_data", "on_writable")})()
    host = mpserve_host(handler, sndbuf_bytes=65536)
    client = host.connect()
    client.send(b"x" * 500_000)
    host.advance(1.0)
    assert client.recv() == b"x" * 500_000


def test_work_in_a_thread(mpserve_host: Any) -> None:
    names = names_of(block_with("run_in_thread"), look_up=lambda data: data.upper())
    handler = type("Threaded", (mpserve.Handler,), {name: names[name] for name in ("on_data", "answer")})()
    host = mpserve_host(handler)
    handler.worker = host.worker
    client = host.connect()
    for word in (b"one", b"two"):
        client.send(word)
        reply, until = b"", time.monotonic() + 10
        while not reply and time.monotonic() < until:
            host.settle()
            reply = client.recv()
            time.sleep(0.001)
        assert reply == word.upper()


def test_a_codec(mpserve_host: Any) -> None:
    host = mpserve_host(names_of(block_with("class Shout"))["Shout"]())
    client = host.connect()
    for piece in (b"ab", b"c\nde\r\n", b"f"):
        client.send(piece)
        host.settle()
    assert client.recv() == b"ABC\nDE\n"


def test_a_codec_of_ones_own(mpserve_host: Any) -> None:
    records = names_of(block_with("class Records"))["Records"]
    handler = type(
        "Backwards", (mpserve.Handler,), {"codec": records(), "on_data": lambda _, sock, data: sock.write(data[::-1])}
    )
    host = mpserve_host(handler())
    client = host.connect()
    for byte in b"\x03abc\x01d\x00":
        client.send(bytes([byte]))
        host.settle()
    assert client.recv() == b"cbad" and client.eof


@pytest.mark.stack_only
def test_a_compiled_handler(mpserve_host: Any) -> None:
    handler = names_of(block_with("class Counter"))["Counter"](step=10)
    host = mpserve_host(handler)
    one, two = host.connect(), host.connect()
    one.send(b"a\nb\n")
    host.settle()
    two.send(b"c\n")
    host.settle()
    assert one.recv() == b"1 of 10\n2 of 20\n" and two.recv() == b"1 of 30\n"
    assert handler._total == 30


def test_every_method_of_a_range_and_of_a_connection_is_on_the_page() -> None:
    from mpserve.framework import compiled_connection, views

    page = PAGE.read_text()
    for name in compiled_connection.METHODS:
        assert f"conn.{name}(" in page
    for name in views.METHODS:
        assert f"data.{name}(" in page or f"room.{name}(" in page or f"`data.{name}" in page
