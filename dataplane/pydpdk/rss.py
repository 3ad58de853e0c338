"""Receive side scaling: which fields are hashed with which key, and which queue each hash goes to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydpdk import offloads
from pydpdk.codes import call
from pydpdk.extension import ffi, lib

GROUP = lib.RTE_ETH_RETA_GROUP_SIZE


@dataclass(frozen=True)
class RssConf:
    """`hashes` are names of `offloads.RSS_HASHES`; `key` is the Toeplitz key."""

    hashes: frozenset[str]
    key: bytes


def key_length(hash_key_size: int) -> int:
    """Drivers that don't state a size read and write 40 bytes, as struct rte_eth_rss_conf says."""
    return hash_key_size or 40


def set_key(conf: Any, key: bytes | None, length: int) -> Any:
    """Point a struct rte_eth_rss_conf at a key of `length` bytes; the caller holds what is returned while `conf` is in
    use. ValueError for another length: the driver would read beyond it."""
    if key is not None and len(key) != length:
        raise ValueError(f"the RSS key of this port has {length} bytes, not {len(key)}")
    held = ffi.NULL if key is None else ffi.new("uint8_t[]", list(key))
    conf.rss_key = held
    conf.rss_key_len = len(key or b"")
    return held


def get(port_id: int, length: int) -> RssConf:
    """rte_eth_dev_rss_hash_conf_get."""
    conf = ffi.new("struct rte_eth_rss_conf *")
    key = set_key(conf, bytes(length), length)
    call("rte_eth_dev_rss_hash_conf_get", port_id, conf)
    return RssConf(offloads.rss_names(conf.rss_hf), bytes(key))


def update(port_id: int, hashes: Iterable[str], key: bytes | None, length: int) -> None:
    """Without `key` the present one stays. rte_eth_dev_rss_hash_update."""
    conf = ffi.new("struct rte_eth_rss_conf *")
    held = set_key(conf, key, length)
    conf.rss_hf = offloads.rss_mask(hashes)
    call("rte_eth_dev_rss_hash_update", port_id, conf)
    del held


def _groups(entries: Iterable[int], size: int) -> Any:
    """A table of `size` entries, some of them selected. ValueError for one that isn't there."""
    groups = ffi.new("struct rte_eth_rss_reta_entry64[]", -(-size // GROUP))
    for entry in entries:
        if not 0 <= entry < size:
            raise ValueError(f"there is no entry {entry} in a redirection table of {size}")
        groups[entry // GROUP].mask |= 1 << entry % GROUP
    return groups


def reta(port_id: int, size: int) -> list[int]:
    """rte_eth_dev_rss_reta_query."""
    groups = _groups(range(size), size)
    call("rte_eth_dev_rss_reta_query", port_id, groups, size)
    return [groups[entry // GROUP].reta[entry % GROUP] for entry in range(size)]


def set_reta(port_id: int, queues: Mapping[int, int], size: int) -> None:
    """The queues of some entries, by their number, of `size`. rte_eth_dev_rss_reta_update."""
    groups = _groups(queues, size)
    for entry, queue in queues.items():
        groups[entry // GROUP].reta[entry % GROUP] = queue
    call("rte_eth_dev_rss_reta_update", port_id, groups, size)
