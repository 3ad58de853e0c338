"""examples/megapipe_echo.py: the event loop of the MegaPipe paper."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpserve.testing import ChannelHost

PATH = Path(__file__).parents[2] / "examples" / "megapipe_echo.py"


@pytest.fixture
def host() -> Iterator[ChannelHost]:
    host = ChannelHost()
    yield host
    host.stop()


@pytest.fixture
def echo(host: ChannelHost) -> Any:
    spec = importlib.util.spec_from_file_location("megapipe_echo", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Echo(host.channel, 7)


def run(echo: Any, seconds: float) -> None:
    """Turn until nothing has happened for so long."""
    worker = echo.channel.worker
    until = worker.now + seconds
    while worker.now < until:
        echo.turn(seconds)


def test_everybody_hears_his_own(host: ChannelHost, echo: Any) -> None:
    clients = [host.connect(7) for _ in range(100)]
    for number, client in enumerate(clients):
        client.send(b"client %d" % number)
    run(echo, 0.1)
    assert [client.recv() for client in clients] == [b"client %d" % number for number in range(100)]


def test_a_lot(host: ChannelHost, echo: Any) -> None:
    data = bytes(range(256)) * 2000
    client = host.connect(7)
    client.send(data)
    client.close()
    run(echo, 1.0)
    assert client.recv() == data and client.eof


def test_who_resets_is_forgotten(host: ChannelHost, echo: Any) -> None:
    client, other = host.connect(7), host.connect(7)
    client.send(b"x")
    run(echo, 0.1)
    client.reset()
    other.send(b"y")
    run(echo, 0.1)
    assert other.recv() == b"y"
    assert len(echo.channel.worker.endpoints) == 1
