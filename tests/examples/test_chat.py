"""examples/chat.py: one callback writes to many sockets; a timer speaks."""

from typing import Any

import pytest

pytestmark = pytest.mark.on_kernel_sockets


@pytest.fixture
def host(mpserve_host: Any, example: Any) -> Any:
    return mpserve_host(example("chat.py:Chat")(announce_every=10.0), sndbuf_bytes=65_536)


def enter(host: Any, name: bytes, **settings: Any) -> Any:
    client = host.connect(**settings)
    client.send(name + b"\n")
    host.settle()
    return client


def test_what_one_says_the_others_hear(host: Any) -> None:
    ann, bob = enter(host, b"ann"), enter(host, b"bob")
    assert ann.recv() == b"What is your name?\n0 others are here.\n* bob comes in\n"
    assert bob.recv() == b"What is your name?\n1 others are here.\n"
    ann.send(b"hello\r\n\nhow are you?\n")
    host.settle()
    assert bob.recv() == b"ann: hello\nann: how are you?\n"
    assert ann.recv() == b""


@pytest.mark.parametrize("how", ["close", "reset"])
def test_whoever_leaves_is_missed(host: Any, how: str) -> None:
    ann, bob = enter(host, b"ann"), enter(host, b"bob")
    ann.recv()
    getattr(bob, how)()
    host.advance(5.0)
    assert ann.recv() == b"* bob leaves\n"
    assert len(host.handler.room) == 1
    assert host.stats["handler_errors"] == 0


def test_who_gave_no_name_is_not_in_the_room(host: Any) -> None:
    ann, lurker = enter(host, b"ann"), host.connect()
    ann.recv()
    lurker.close()
    host.advance(1.0)
    assert ann.recv() == b"" and len(host.handler.room) == 1


def test_the_room_is_announced_now_and_then(host: Any) -> None:
    host.advance(15.0)
    ann = enter(host, b"ann")
    ann.recv()
    host.advance(6.0)
    assert ann.recv() == b"* 1 in the room\n"
    enter(host, b"bob")
    ann.recv()
    host.advance(10.0)
    assert ann.recv() == b"* 2 in the room\n"


def test_one_who_does_not_read_does_not_hold_up_the_others(host: Any) -> None:
    deaf, ann, bob = enter(host, b"deaf", window=0), enter(host, b"ann"), enter(host, b"bob")
    bob.recv()
    for _ in range(40):
        ann.send((b"x" * 999 + b"\n") * 20)
        host.settle()
    assert bob.recv().count(b"ann: ") == 800
    assert any(sock.cookie.deaf for sock in host.handler.room)
    assert deaf.recv() == b"" and host.stats["handler_errors"] == 0


def test_an_endless_line_ends_the_connection(host: Any) -> None:
    ann = enter(host, b"ann")
    ann.send(b"x" * 3000)
    host.settle()
    assert ann.was_reset
