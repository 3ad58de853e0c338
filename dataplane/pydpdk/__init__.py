"""DPDK from Python: the environment, ports, buffers and statistics; the fast path for code compiled by numba.

    import pydpdk

    pydpdk.eal.init(hugepages=False, in_memory=True, memory_mb=64, vdevs=["net_ring0"])
    pool = pydpdk.Mempool.create("rx", 2047)
    port = pydpdk.Port.by_name("net_ring0")
    port.setup(pool)

`pydpdk.symbols` gives the burst functions by address, `pydpdk.compiled` to numba by name. `import pydpdk` raises
NotBuiltError, an ImportError, where the extension isn't built. Nothing here knows of mpserve.
"""

from pydpdk import eal, hotplug, log, offloads, runtime, symbols
from pydpdk.eal import tsc_hz, version
from pydpdk.errors import DpdkError, NotBuiltError
from pydpdk.mempool import Mempool, mbuf_layout
from pydpdk.memzone import Memzone
from pydpdk.port import Port, ports
from pydpdk.port_info import Link, PortInfo
from pydpdk.rss import RssConf
from pydpdk.statistics import Stats

__all__ = [
    "DpdkError",
    "Link",
    "Memzone",
    "Mempool",
    "NotBuiltError",
    "Port",
    "PortInfo",
    "RssConf",
    "Stats",
    "eal",
    "hotplug",
    "log",
    "mbuf_layout",
    "offloads",
    "ports",
    "runtime",
    "symbols",
    "tsc_hz",
    "version",
]
