"""The pytest plugin: the fixture `mpserve_host`, a factory of hosts that are stopped at the test's end.

Tests marked `on_kernel_sockets` (a whole module by `pytestmark`) run twice: on the stack in virtual time, and over kernel
sockets, unless they are marked `stack_only`, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mpserve.testing.host import Host

STACK, KERNEL = "stack", "kernel sockets"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "on_kernel_sockets: mpserve_host also makes hosts over kernel sockets")
    config.addinivalue_line("markers", "stack_only: of a module marked on_kernel_sockets, but not there")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "mpserve_host" not in metafunc.fixturenames or not metafunc.definition.get_closest_marker("on_kernel_sockets"):
        return
    if not metafunc.definition.get_closest_marker("stack_only"):
        metafunc.parametrize("mpserve_host", [STACK, KERNEL], indirect=True)


@pytest.fixture
def mpserve_host(request: pytest.FixtureRequest) -> Iterator[Callable[..., Host]]:
    """Call it as `Host`: `host = mpserve_host(Echo(), port=7)`; over kernel sockets as `KernelHost`."""
    made: list[Any] = []

    def make(*arguments: Any, **settings: Any) -> Any:
        made.append(kind(*arguments, **settings))
        return made[-1]

    kind = _kind_of(getattr(request, "param", STACK))
    yield make
    for host in made:
        host.stop()


def _kind_of(name: str) -> Any:
    if name == KERNEL:
        from mpserve.testing.kernel_host import KernelHost

        return KernelHost
    from mpserve.testing.host import Host

    return Host
