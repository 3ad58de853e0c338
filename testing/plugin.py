"""The pytest plugin: the fixture `mpserve_host`, a factory of Hosts that are stopped at the test's end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mpserve.testing.host import Host


@pytest.fixture
def mpserve_host() -> Iterator[Callable[..., Host]]:
    """Call it as `Host`: `host = mpserve_host(Echo(), port=7)`."""
    from mpserve.testing.host import Host

    made: list[Host] = []

    def make(*arguments: Any, **settings: Any) -> Host:
        host = Host(*arguments, **settings)
        made.append(host)
        return host

    yield make
    for host in made:
        host.stop()
