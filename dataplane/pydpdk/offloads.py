"""Bit masks of rte_ethdev.h as sets of names: offload capabilities and RSS hash functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pydpdk.extension import lib, text

RSS_HASHES: dict[str, int] = {
    name.removeprefix("RTE_ETH_RSS_"): getattr(lib, name) for name in dir(lib) if name.startswith("RTE_ETH_RSS_")
}


def _names(function: Callable[[int], Any], bits: int) -> frozenset[str]:
    found = (text(function(1 << bit)) for bit in range(64) if bits >> bit & 1)
    return frozenset(name for name in found if name != "UNKNOWN")


def _mask(known: dict[str, int], names: Iterable[str], what: str) -> int:
    mask = 0
    for name in names:
        if name not in known:
            raise ValueError(f"DPDK has no {what} {name!r}; it has {', '.join(sorted(known))}")
        mask |= known[name]
    return mask


def _table(function: Callable[[int], Any]) -> dict[str, int]:
    named = {text(function(1 << bit)): 1 << bit for bit in range(64)}
    return {name: bit for name, bit in named.items() if name != "UNKNOWN"}


RX_OFFLOADS: dict[str, int] = _table(lib.rte_eth_dev_rx_offload_name)
TX_OFFLOADS: dict[str, int] = _table(lib.rte_eth_dev_tx_offload_name)


def rx_names(bits: int) -> frozenset[str]:
    """Such as {"TCP_CKSUM", "SCATTER"}. rte_eth_dev_rx_offload_name."""
    return _names(lib.rte_eth_dev_rx_offload_name, bits)


def tx_names(bits: int) -> frozenset[str]:
    """Such as {"TCP_CKSUM", "TCP_TSO", "MULTI_SEGS"}. rte_eth_dev_tx_offload_name."""
    return _names(lib.rte_eth_dev_tx_offload_name, bits)


def rx_mask(names: Iterable[str]) -> int:
    """RTE_ETH_RX_OFFLOAD_* bits of names; ValueError for an unknown one."""
    return _mask(RX_OFFLOADS, names, "rx offload")


def tx_mask(names: Iterable[str]) -> int:
    """RTE_ETH_TX_OFFLOAD_* bits of names; ValueError for an unknown one."""
    return _mask(TX_OFFLOADS, names, "tx offload")


def rss_names(bits: int) -> frozenset[str]:
    """RTE_ETH_RSS_* without the prefix, such as {"IPV4", "NONFRAG_IPV4_TCP"}."""
    return frozenset(name for name, bit in RSS_HASHES.items() if bits & bit)


def rss_mask(names: Iterable[str]) -> int:
    """RTE_ETH_RSS_* bits of names; ValueError for an unknown one."""
    return _mask(RSS_HASHES, names, "RSS hash function")
