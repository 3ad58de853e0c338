"""Hugepages: in memory, and shared by a primary and a secondary process."""

import contextlib
import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.dpdk, pytest.mark.root]

RESERVED = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
FREE = RESERVED.with_name("free_hugepages")
WANTED = 32


@pytest.fixture
def hugepages():
    """At least 64 MiB of free hugepages, reserved for the test where none are; given back afterwards."""
    if not RESERVED.exists():
        pytest.skip("this kernel has no hugepages of 2 MiB")
    before, free = int(RESERVED.read_text()), int(FREE.read_text())
    if free < WANTED:
        with contextlib.suppress(OSError):
            RESERVED.write_text(str(before + WANTED - free))
    try:
        if int(FREE.read_text()) < WANTED:
            pytest.skip(f"fewer than {WANTED} free hugepages: type sysctl vm.nr_hugepages={WANTED}")
        yield
    finally:
        with contextlib.suppress(OSError):
            RESERVED.write_text(str(before))


@pytest.fixture
def hugetlbfs(hugepages, tmp_path):
    """A mount of its own, so that nothing else is touched."""
    folder = tmp_path / "huge"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "hugetlbfs", "mpst", folder], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no hugetlbfs can be mounted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_in_memory(hugepages, prefix):
    from pydpdk import Mempool, eal

    eal.init(in_memory=True, memory_mb=32, file_prefix=prefix)
    assert eal.has_hugepages()
    assert Mempool.create("frames", 1023).available() == 1023


SECONDARY = """
import ctypes, sys
import pydpdk

prefix, folder = sys.argv[1:]
pydpdk.eal.init(f"--huge-dir={folder}", process="secondary", file_prefix=prefix, lcores="1@0")
assert pydpdk.eal.process_type() == "secondary"
pool = pydpdk.Mempool.lookup("frames")
zone = pydpdk.Memzone.lookup("blocks")
assert zone.buffer()[0:5] == b"hello"
port = pydpdk.Port.by_name("net_ring0")
function = lambda name, n: ctypes.CFUNCTYPE(*[ctypes.c_int64] * (n + 1))(pydpdk.symbols.address(name))
mbufs = (ctypes.c_int64 * 4)()
assert function("pydpdk_alloc_bulk", 3)(pool.address, ctypes.addressof(mbufs), 4) == 0
for mbuf in mbufs:
    function("pydpdk_mbuf_set_len", 2)(mbuf, 60)
assert function("pydpdk_tx_burst", 4)(port.port_id, 0, ctypes.addressof(mbufs), 4) == 4
print(pool.address, zone.address)
"""


def test_secondary_sends_to_its_primary(hugetlbfs, prefix):
    from pydpdk import Mempool, Memzone, Port, eal, runtime, symbols

    eal.init(f"--huge-dir={hugetlbfs}", memory_mb=32, file_prefix=prefix, vdevs=["net_ring0"])
    pool, zone = Mempool.create("frames", 1023), Memzone.reserve("blocks", 4096)
    zone.buffer()[0:5] = b"hello"
    port = Port.by_name("net_ring0")
    port.setup(pool)
    run = subprocess.run(
        [sys.executable, "-c", SECONDARY, prefix, hugetlbfs], capture_output=True, text=True, timeout=10
    )
    assert run.returncode == 0, run.stderr
    assert [int(word) for word in run.stdout.split()] == [pool.address, zone.address]
    mbufs = (ctypes.c_int64 * 8)()
    rx_burst = ctypes.CFUNCTYPE(*[ctypes.c_int64] * 5)(symbols.address("pydpdk_rx_burst"))
    assert rx_burst(port.port_id, 0, ctypes.addressof(mbufs), 8) == 4
    assert runtime.hugepage_files(prefix)
    eal.cleanup()
    assert os.listdir(hugetlbfs) == []


def test_secondary_without_a_primary_is_refused(prefix):
    from pydpdk import DpdkError, eal, runtime

    with pytest.raises(DpdkError, match="rte_eal_init: "):
        eal.init(process="secondary", file_prefix=prefix)
    assert not os.path.exists(f"{runtime.root()}/{prefix}")
