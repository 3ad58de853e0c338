"""What a device is and can do, and the state of its link, as records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydpdk import offloads
from pydpdk.extension import lib, text


@dataclass(frozen=True)
class DescriptorLimits:
    """How many descriptors a queue may have. struct rte_eth_desc_lim."""

    minimum: int
    maximum: int
    multiple_of: int


@dataclass(frozen=True)
class PortInfo:
    """What a device is and can do. struct rte_eth_dev_info; lengths in bytes, offloads by name."""

    driver: str
    device: str
    if_index: int  # of the kernel interface behind the port, 0 if none
    min_mtu: int
    max_mtu: int
    min_rx_bufsize: int
    max_rx_pktlen: int
    max_rx_queues: int
    max_tx_queues: int
    rx_queues: int
    tx_queues: int
    max_mac_addrs: int
    rx_offloads: frozenset[str]
    tx_offloads: frozenset[str]
    rx_queue_offloads: frozenset[str]
    tx_queue_offloads: frozenset[str]
    reta_size: int
    hash_key_size: int
    rss_hashes: frozenset[str]
    rx_descriptors: DescriptorLimits
    tx_descriptors: DescriptorLimits


@dataclass(frozen=True)
class Link:
    """struct rte_eth_link. `speed_mbps` is 0xFFFFFFFF where the driver doesn't know it."""

    up: bool
    speed_mbps: int
    full_duplex: bool
    autoneg: bool


def _limits(limits: Any) -> DescriptorLimits:
    return DescriptorLimits(limits.nb_min, limits.nb_max, limits.nb_align)


def from_dev_info(info: Any) -> PortInfo:
    """The record of a struct rte_eth_dev_info."""
    return PortInfo(
        driver=text(info.driver_name),
        device=text(lib.rte_dev_name(info.device)),
        if_index=info.if_index,
        min_mtu=info.min_mtu,
        max_mtu=info.max_mtu,
        min_rx_bufsize=info.min_rx_bufsize,
        max_rx_pktlen=info.max_rx_pktlen,
        max_rx_queues=info.max_rx_queues,
        max_tx_queues=info.max_tx_queues,
        rx_queues=info.nb_rx_queues,
        tx_queues=info.nb_tx_queues,
        max_mac_addrs=info.max_mac_addrs,
        rx_offloads=offloads.rx_names(info.rx_offload_capa),
        tx_offloads=offloads.tx_names(info.tx_offload_capa),
        rx_queue_offloads=offloads.rx_names(info.rx_queue_offload_capa),
        tx_queue_offloads=offloads.tx_names(info.tx_queue_offload_capa),
        reta_size=info.reta_size,
        hash_key_size=info.hash_key_size,
        rss_hashes=offloads.rss_names(info.flow_type_rss_offloads),
        rx_descriptors=_limits(info.rx_desc_lim),
        tx_descriptors=_limits(info.tx_desc_lim),
    )
