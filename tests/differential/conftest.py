"""Both tested sides, and every script run on both: all at once, on addresses of their own."""

import contextlib
import os
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

for folder in (Path(__file__).parents[1] / "system", Path(__file__).parent):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # for `import sides`, `import server`, beside the tests

from script import SCRIPTS  # noqa: E402
from view import View  # noqa: E402

AT_A_TIME = 6  # scripts on each side: most of their time they wait, but a busy machine has its own pace


def obstacle() -> str:
    """What stands in the way, "" if nothing does."""
    if os.geteuid() != 0:
        return "needs root: makes network namespaces"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "needs /dev/net/tun: makes a tap"
    return ""


@contextlib.contextmanager
def first_in_line() -> Iterator[None]:
    """This thread, and the threads and processes it starts, come before whatever else the machine does.

    A peer that gets no core for a second sees retransmissions, and sees them rightly: no class of times could leave them out.
    """
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -20)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Future[View], Future[View]]]]:
    """What the peers of each script see, by script: of Linux, of mpserve."""
    pytest.importorskip("pydpdk", reason="needs DPDK and the pydpdk extension", exc_type=ImportError)
    if obstacle():
        pytest.skip(obstacle())
    import sides
    from raw_peer import RawPeer

    def run(side: sides.Side, number: int, name: str) -> View:
        view, ip = View(), f"10.77.{1 + number // 200}.{1 + number % 200}"
        side.wire.settle(ip)  # its Ethernet address is known now
        SCRIPTS[name](RawPeer(side, ip, view))
        return view

    with first_in_line(), contextlib.ExitStack() as stack:
        tested = [stack.enter_context(side(tmp_path_factory.mktemp("side"))) for side in (sides.linux, sides.mpserve)]
        pools = [stack.enter_context(ThreadPoolExecutor(AT_A_TIME)) for _ in tested]
        futures = {
            name: tuple(pool.submit(run, side, number, name) for pool, side in zip(pools, tested, strict=True))
            for number, name in enumerate(reversed(SCRIPTS))  # those that wait longest come first
        }
        yield futures  # type: ignore[misc]
        for side in tested:
            side.wire.check()
