"""The shim called from code that numba compiles, and loads from its cache in another process."""

import os
import subprocess
import sys

import numpy as np
import pytest

JIT_IS_OFF = os.environ.get("NUMBA_DISABLE_JIT", "0") != "0"

pytestmark = [
    pytest.mark.dpdk,
    pytest.mark.skipif(JIT_IS_OFF, reason="NUMBA_DISABLE_JIT is set: functions of the shim have no plain-Python twins"),
]


def test_frame_goes_round_a_ring(start):
    from numba import njit

    from pydpdk import Mempool, Port, compiled

    rx_burst, tx_burst, alloc_bulk = compiled.rx_burst, compiled.tx_burst, compiled.alloc_bulk
    free_bulk, mbuf_set_len, mbuf_pkt_len = compiled.free_bulk, compiled.mbuf_set_len, compiled.mbuf_pkt_len
    rdtsc, pause = compiled.rdtsc, compiled.pause

    @njit
    def send_and_receive(port, pool, pkts, n, seen):
        began = rdtsc()
        if alloc_bulk(pool, pkts.ctypes.data, n) != 0:
            return -1
        for i in range(n):
            mbuf_set_len(pkts[i], 60 + i)
        sent = tx_burst(port, 0, pkts.ctypes.data, n)
        pause()
        got = rx_burst(port, 0, pkts.ctypes.data, n)
        for i in range(got):
            seen[i] = mbuf_pkt_len(pkts[i])
        free_bulk(pkts.ctypes.data, got)
        return got if sent == n and rdtsc() > began else -2

    start("net_ring0")
    port, pool = Port(0), Mempool.create("frames", 1023)
    port.setup(pool)
    seen = np.zeros(32, np.int64)
    assert send_and_receive(0, pool.address, np.zeros(32, np.int64), 32, seen) == 32
    assert seen.tolist() == list(range(60, 92))
    assert pool.in_use() == 0
    assert (port.stats().opackets, port.stats().ipackets) == (32, 32)


PROGRAM = """
from numba import njit
from pydpdk import compiled
rdtsc = compiled.rdtsc

@njit("int64()", cache=True)
def cycles():
    began = rdtsc()
    return rdtsc() - began

assert cycles() >= 0
print(sum(cycles.stats.cache_hits.values()))
"""


def test_cached_code_finds_the_functions_in_a_new_process(tmp_path):
    program = tmp_path / "cycles.py"
    program.write_text(PROGRAM)
    hits = [subprocess.run([sys.executable, program], capture_output=True, text=True, check=True) for _ in range(2)]
    assert [run.stdout for run in hits] == ["0\n", "1\n"]
