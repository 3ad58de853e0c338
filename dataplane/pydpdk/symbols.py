"""The shim's functions by name and address, for compiled code.

All arguments and results are int64. Importing this module asserts that each function is there: compiled code that calls
a missing one would end in a segmentation fault without a message, also from numba's cache.
"""

from __future__ import annotations

from pydpdk.errors import NotBuiltError
from pydpdk.extension import ffi, lib, text

ARGUMENTS: dict[str, str] = {
    "pydpdk_rx_burst": "port queue pkts n",
    "pydpdk_tx_burst": "port queue pkts n",
    "pydpdk_tx_prepare": "port queue pkts n",
    "pydpdk_tx_done_cleanup": "port queue n",
    "pydpdk_rx_queue_count": "port queue",
    "pydpdk_rx_intr_enable": "port queue",
    "pydpdk_rx_intr_disable": "port queue",
    "pydpdk_alloc": "pool",
    "pydpdk_alloc_bulk": "pool pkts n",
    "pydpdk_free": "mbuf",
    "pydpdk_free_bulk": "pkts n",
    "pydpdk_pool_avail_count": "pool",
    "pydpdk_rdtsc": "",
    "pydpdk_tsc_hz": "",
    "pydpdk_pause": "",
    "pydpdk_mbuf_data": "mbuf",
    "pydpdk_mbuf_data_len": "mbuf",
    "pydpdk_mbuf_pkt_len": "mbuf",
    "pydpdk_mbuf_set_len": "mbuf len",
    "pydpdk_mbuf_next": "mbuf",
    "pydpdk_mbuf_nb_segs": "mbuf",
    "pydpdk_mbuf_port": "mbuf",
    "pydpdk_mbuf_headroom": "mbuf",
    "pydpdk_mbuf_tailroom": "mbuf",
    "pydpdk_mbuf_ol_flags": "mbuf",
    "pydpdk_mbuf_set_ol_flags": "mbuf flags",
    "pydpdk_mbuf_set_tx_offload": "mbuf l2_len l3_len l4_len tso_segsz",
    "pydpdk_mbuf_rss_hash": "mbuf",
    "pydpdk_mbuf_packet_type": "mbuf",
    "pydpdk_mbuf_vlan_tci": "mbuf",
}


def _read_table() -> dict[str, int]:
    table = {}
    entry = lib.pydpdk_symbols
    while entry.name:
        table[text(entry.name)] = int(ffi.cast("uintptr_t", entry.address))
        entry += 1
    return table


def check_table(table: dict[str, int]) -> dict[str, int]:
    """`table` if it has an address for every name of ARGUMENTS; otherwise raises NotBuiltError with those it lacks."""
    missing = [name for name in ARGUMENTS if not table.get(name)]
    if missing:
        raise NotBuiltError(
            f"pydpdk's extension lacks {', '.join(missing)}: it is older than the package, reinstall it"
        )
    return table


ADDRESSES: dict[str, int] = check_table(_read_table())


def address(name: str) -> int:
    """Where the function `name` is in this process. KeyError if there is none."""
    return ADDRESSES[name]


def register() -> None:
    """Make every function known to llvmlite by its name, so that code that numba compiles or loads from its cache
    finds it. To be called before the first such function is compiled or loaded; `import pydpdk.compiled` does."""
    import llvmlite.binding

    for name, where in ADDRESSES.items():
        llvmlite.binding.add_symbol(name, where)
        if llvmlite.binding.address_of_symbol(name) != where:
            raise NotBuiltError(f"llvmlite doesn't know {name} at the address that was given to it")
