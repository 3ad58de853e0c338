"""Sends every frame of a DPDK device back to where it came from: python frame_echo.py [VDEV [SECONDS]]"""

import sys

import numpy as np
from numba import njit

import pydpdk
from pydpdk.compiled import frame, free_bulk, rdtsc, rx_burst, tx_burst


@njit
def echo(port, pkts, cycles):
    frames, end = 0, rdtsc() + cycles
    while rdtsc() < end:
        received = rx_burst(port, 0, pkts.ctypes.data, pkts.size)
        for mbuf in pkts[:received]:
            header = frame(mbuf)
            for i in range(6):
                header[i], header[6 + i] = header[6 + i], header[i]
        sent = tx_burst(port, 0, pkts.ctypes.data, received)
        free_bulk(pkts[sent:].ctypes.data, received - sent)
        frames += sent
    return frames


vdev, seconds = (sys.argv[1:] + ["net_null0,size=64", "1"][len(sys.argv) - 1 :])[:2]
echo(-1, np.zeros(0, np.int64), 0)  # compile before the port is open, so that no frame waits
pydpdk.eal.init(hugepages=False, in_memory=True, memory_mb=64, vdevs=[vdev])
pydpdk.ports()[0].setup(pydpdk.Mempool.create("frames", 8191))
frames = echo(0, np.zeros(32, np.int64), int(float(seconds) * pydpdk.tsc_hz()))
print(f"{vdev}: {frames} frames in {seconds} s")
