"""What a port has counted."""

from __future__ import annotations

from typing import NamedTuple

from pydpdk.codes import call
from pydpdk.extension import ffi, text


class Stats(NamedTuple):
    """struct rte_eth_stats: frames and bytes since the start or the last reset."""

    ipackets: int
    opackets: int
    ibytes: int
    obytes: int
    imissed: int  # the device dropped them, its queue being full
    ierrors: int
    oerrors: int
    rx_nombuf: int


def get(port_id: int) -> Stats:
    """rte_eth_stats_get."""
    stats = ffi.new("struct rte_eth_stats *")
    call("rte_eth_stats_get", port_id, stats)
    return Stats(*(getattr(stats, field) for field in Stats._fields))


def extended(port_id: int) -> dict[str, int]:
    """rte_eth_xstats_get_names, rte_eth_xstats_get."""
    count = call("rte_eth_xstats_get_names", port_id, ffi.NULL, 0)
    names = ffi.new("struct rte_eth_xstat_name[]", count)
    values = ffi.new("struct rte_eth_xstat[]", count)
    call("rte_eth_xstats_get_names", port_id, names, count)
    filled = call("rte_eth_xstats_get", port_id, values, count)
    return {text(names[values[i].id].name): values[i].value for i in range(min(filled, count))}
