"""examples/kv_store.py: lines in batches."""

from typing import Any

import pytest

pytestmark = pytest.mark.on_kernel_sockets


@pytest.fixture
def host(mpserve_host: Any, example: Any) -> Any:
    return mpserve_host(example("kv_store.py:KeyValueStore")(most_keys=2))


def ask(host: Any, client: Any, text: bytes) -> bytes:
    client.send(text)
    host.settle()
    return client.recv()


def test_set_get_del(host: Any) -> None:
    one, two = host.connect(), host.connect()
    assert ask(host, one, b"get a\nset a some words\nget a\n") == b"none\nok\nvalue some words\n"
    assert ask(host, two, b"get a\r\ndel a\r\ndel a\r\nget a\r\n") == b"value some words\nok\nnone\nnone\n"
    assert ask(host, two, b"set a\nget a\n") == b"ok\nvalue \n"


def test_mistakes_have_an_answer_each(host: Any) -> None:
    client = host.connect()
    assert ask(host, client, b"\nget\nput a b\n").count(b"error") == 3
    assert ask(host, client, b"set a 1\nset b 2\nset c 3\nset a 4\n") == b"ok\nok\nerror: full\nok\n"


@pytest.mark.stack_only
def test_one_who_asks_and_does_not_read_is_paused(host: Any) -> None:
    asking, other = host.connect(window=0), host.connect()
    ask(host, other, b"set a " + b"x" * 30_000 + b"\n")
    for _ in range(30):
        ask(host, asking, b"get a\n")
    assert ask(host, other, b"get a\n").endswith(b"x\n")
    assert host.stats["handler_errors"] == 0 and host.stats["slow_readers"] == 0
    conn = host.worker.memory.arrays["conns"][0]
    assert conn.rcv_queued > 0, "its questions wait in the stack"
