"""The shim's functions for numba: call them inside `@njit` code, which may be cached, for they are called by name.

Needs numba. All arguments and results are int64; mbufs, pools and arrays of mbufs are addresses. `frame` alone is more
than a call: it shows an mbuf's bytes as an array.
"""

from typing import Any

from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic

from pydpdk import symbols

symbols.register()


def _external(name: str) -> types.ExternalFunction:
    arguments = symbols.ARGUMENTS[name].split()
    return types.ExternalFunction(name, types.int64(*[types.int64 for _ in arguments]))


rx_burst = _external("pydpdk_rx_burst")
tx_burst = _external("pydpdk_tx_burst")
tx_prepare = _external("pydpdk_tx_prepare")
tx_done_cleanup = _external("pydpdk_tx_done_cleanup")
rx_queue_count = _external("pydpdk_rx_queue_count")
rx_intr_enable = _external("pydpdk_rx_intr_enable")
rx_intr_disable = _external("pydpdk_rx_intr_disable")
alloc = _external("pydpdk_alloc")
alloc_bulk = _external("pydpdk_alloc_bulk")
free = _external("pydpdk_free")
free_bulk = _external("pydpdk_free_bulk")
pool_avail_count = _external("pydpdk_pool_avail_count")
rdtsc = _external("pydpdk_rdtsc")
tsc_hz = _external("pydpdk_tsc_hz")
pause = _external("pydpdk_pause")
mbuf_data = _external("pydpdk_mbuf_data")
mbuf_data_len = _external("pydpdk_mbuf_data_len")
mbuf_pkt_len = _external("pydpdk_mbuf_pkt_len")
mbuf_set_len = _external("pydpdk_mbuf_set_len")
mbuf_next = _external("pydpdk_mbuf_next")
mbuf_nb_segs = _external("pydpdk_mbuf_nb_segs")
mbuf_port = _external("pydpdk_mbuf_port")
mbuf_headroom = _external("pydpdk_mbuf_headroom")
mbuf_tailroom = _external("pydpdk_mbuf_tailroom")
mbuf_ol_flags = _external("pydpdk_mbuf_ol_flags")
mbuf_set_ol_flags = _external("pydpdk_mbuf_set_ol_flags")
mbuf_set_tx_offload = _external("pydpdk_mbuf_set_tx_offload")
mbuf_rss_hash = _external("pydpdk_mbuf_rss_hash")
mbuf_packet_type = _external("pydpdk_mbuf_packet_type")
mbuf_vlan_tci = _external("pydpdk_mbuf_vlan_tci")


@intrinsic
def _bytes_at(typingctx: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], ir.IntType(8).as_pointer())

    return types.CPointer(types.uint8)(types.int64), generate


@njit
def frame(mbuf):
    """The bytes of an mbuf's first segment as a writable uint8 array; it is valid until the mbuf is sent or freed."""
    return carray(_bytes_at(mbuf_data(mbuf)), mbuf_data_len(mbuf))
