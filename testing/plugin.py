"""The pytest plugin: fixtures that are factories of hosts, which are stopped at the test's end.

`mpserve_host` makes Hosts (the stack, in virtual time); a test of `mpserve_each_host` runs twice, the second time over
kernel sockets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mpserve.testing.host import Host
    from mpserve.testing.kernel_host import KernelHost

STACK, KERNEL = "stack", "kernel sockets"
stack_only = pytest.mark.parametrize("mpserve_each_host", [STACK], indirect=True)  # for a test of mpserve_each_host


@pytest.fixture
def mpserve_host() -> Iterator[Callable[..., Host]]:
    """Call it as `Host`: `host = mpserve_host(Echo(), port=7)`."""
    from mpserve.testing.host import Host

    yield from _factory(Host)


@pytest.fixture(params=[STACK, KERNEL])
def mpserve_each_host(request: pytest.FixtureRequest) -> Iterator[Callable[..., Host | KernelHost]]:
    """Call it as `Host`, with what both kinds understand: the handler, `log`, limits."""
    if request.param == STACK:
        from mpserve.testing.host import Host

        yield from _factory(Host)
    else:
        from mpserve.testing.kernel_host import KernelHost

        yield from _factory(KernelHost)


def _factory(kind: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    made: list[Any] = []

    def make(*arguments: Any, **settings: Any) -> Any:
        made.append(kind(*arguments, **settings))
        return made[-1]

    yield make
    for host in made:
        host.stop()
