"""What the tests of channels share: a channel on a virtual wire, and a connection accepted on it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mpserve import Completion, Kind
from mpserve.framework.channel import Channel
from mpserve.testing import ChannelHost, Client


class World:
    """A channel with a registered listener on port 7."""

    def __init__(self, **settings: Any) -> None:
        self.host = ChannelHost(**settings)
        self.channel: Channel = self.host.channel
        self.listener = self.channel.register(self.channel.listen(("", 7)), cookie="listener")

    def connect(self, cookie: Any = "c", **client: Any) -> tuple[int, Client]:
        """A handle of a new connection, and its other end."""
        self.channel.accept(self.listener)
        peer = self.host.connect(7, **client)
        event = self.one()
        assert event.kind == Kind.ACCEPT and event.result == 0
        return self.channel.register(event.endpoint, cookie), peer

    def one(self, timeout: float | None = 5.0) -> Completion:
        """The only completion that comes."""
        (event,) = self.all(timeout)
        return event

    def all(self, timeout: float | None = 0) -> list[Completion]:
        return self.channel.dispatch(timeout)


@pytest.fixture
def make_world() -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(**settings: Any) -> World:
        made.append(World(**settings))
        return made[-1]

    yield make
    for world in made:
        world.host.stop()


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()
