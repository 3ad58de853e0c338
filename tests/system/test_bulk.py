"""Bulk transfers over every device, each way, digests equal. MPSERVE_BULK_BYTES makes those over veth and tap shorter."""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from namespaces import borrowed_pair, inside
from server import Server, cpu_seconds, serving

from mpserve.testing import streams

pytestmark = [pytest.mark.root, pytest.mark.dpdk]

BYTES = int(os.environ.get("MPSERVE_BULK_BYTES", 1 << 30))
HANDLER = f"{Path(streams.__file__)}:Bulk"
ADDRESS = ("10.31.2.2", 9000)
SETTINGS = ("--ip", "10.31.2.2/24", "--listen", ":9000")


def transfer(name: str, move: Callable[[tuple[str, int], int], tuple[int, int]], length: int, server: Server) -> None:
    """Move a stream, compare its digest, print how fast it was."""
    worker, wall, cpu = server.worker, time.monotonic(), cpu_seconds(server.worker)
    assert move(ADDRESS, length) == (length, streams.crc_of(length)), server.log
    wall, cpu = time.monotonic() - wall, cpu_seconds(worker) - cpu
    print(f"\n{name} {move.__name__}: {length / wall / 1e6:.0f} MB/s; worker {length / cpu / 1e6:.0f} MB a CPU second")


@pytest.mark.parametrize("device", ["veth", "tap"])
def test_bulk_each_way(world: int, device: str, capsys: pytest.CaptureFixture[str]) -> None:
    with serving("run", HANDLER, "--device", device, *SETTINGS) as server:
        with capsys.disabled():
            transfer(device, streams.put, BYTES, server)
            transfer(device, streams.get, BYTES, server)
        assert server.counters["drop_tcp_checksum"] == 0


@pytest.mark.parametrize("device", ["af_packet:mpstbulk", "af_xdp:mpstbulk"])
def test_bulk_with_the_kernels_offloads_on(world: int, device: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Frames above the MTU by the thousand where the device lets them through."""
    with contextlib.ExitStack() as stack:
        pair = stack.enter_context(borrowed_pair("mpstbulk", "mpstpeer", "10.31.2.1/24"))
        server = stack.enter_context(serving("run", HANDLER, "--device", device, *SETTINGS))
        with inside(pair), capsys.disabled():
            before = server.counters
            transfer(device, streams.put, BYTES >> 3, server)
            after = server.counters
            transfer(device, streams.get, BYTES >> 3, server)
        assert after["checksum_unfinished"] > before["checksum_unfinished"]
        mean = (after["rx_bytes"] - before["rx_bytes"]) / (after["rx_frames"] - before["rx_frames"])
        assert (mean > 1600) == device.startswith("af_packet")
        assert server.counters["drop_tcp_checksum"] == server.counters["drop_oversize"] == 0
