"""Ethernet ports: configuration, queues, addresses and state, a method for each DPDK function.

What takes more than a call is elsewhere: `port_info`, `rss`, `statistics`.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydpdk import hotplug, offloads, port_info, rss, statistics
from pydpdk.codes import call, check, check_errno
from pydpdk.extension import ffi, lib, text
from pydpdk.mempool import Mempool
from pydpdk.port_info import Link, PortInfo


def ports() -> list[Port]:
    """The ports there are. rte_eth_find_next."""
    found = []
    port_id = lib.rte_eth_find_next(0)
    while port_id < lib.RTE_MAX_ETHPORTS:
        found.append(Port(port_id))
        port_id = lib.rte_eth_find_next(port_id + 1)
    return found


@dataclass(frozen=True)
class Port:
    """A port by its number. Every method raises DpdkError with what DPDK says."""

    port_id: int

    @classmethod
    def by_name(cls, name: str) -> Port:
        """Such as Port.by_name("net_ring0"). rte_eth_dev_get_port_by_name."""
        found = ffi.new("uint16_t *")
        call("rte_eth_dev_get_port_by_name", name.encode(), found)
        return cls(found[0])

    @property
    def name(self) -> str:
        """rte_eth_dev_get_name_by_port."""
        name = ffi.new("char[]", lib.RTE_ETH_NAME_MAX_LEN)
        call("rte_eth_dev_get_name_by_port", self.port_id, name)
        return text(name)

    @property
    def socket(self) -> int:
        """The NUMA node of the device, -1 if it has none. rte_eth_dev_socket_id."""
        return lib.rte_eth_dev_socket_id(self.port_id)

    def info(self) -> PortInfo:
        """rte_eth_dev_info_get."""
        return port_info.from_dev_info(self._dev_info())

    def _dev_info(self) -> Any:
        info = ffi.new("struct rte_eth_dev_info *")
        call("rte_eth_dev_info_get", self.port_id, info)
        return info

    # Set-up

    def setup(
        self,
        pool: Mempool,
        *,
        rx_queues: int = 1,
        tx_queues: int = 1,
        rx_descriptors: int = 0,
        tx_descriptors: int = 0,
        mtu: int | None = None,
    ) -> None:
        """`configure`, all queues, `start`: what most programs want."""
        self.configure(rx_queues, tx_queues, mtu=mtu)
        for queue in range(rx_queues):
            self.setup_rx_queue(queue, pool, rx_descriptors)
        for queue in range(tx_queues):
            self.setup_tx_queue(queue, tx_descriptors)
        self.start()

    def configure(
        self,
        rx_queues: int = 1,
        tx_queues: int = 1,
        *,
        mtu: int | None = None,
        rx_offloads: Iterable[str] = (),
        tx_offloads: Iterable[str] = (),
        rss_hashes: Iterable[str] = (),
        rss_key: bytes | None = None,
        rx_interrupts: bool = False,
        link_interrupts: bool = False,
        link_speeds: int = 0,
        loopback: int = 0,
    ) -> None:
        """Set the number of queues and what the port as a whole shall do; the port must be stopped.

        Offloads and RSS hash functions by name, as `info` lists them; RSS spreads over the queues when any is given.
        rte_eth_dev_configure."""
        conf = ffi.new("struct rte_eth_conf *")
        conf.link_speeds = link_speeds
        conf.lpbk_mode = loopback
        conf.rxmode.mtu = mtu or 0
        conf.rxmode.offloads = offloads.rx_mask(rx_offloads)
        conf.txmode.offloads = offloads.tx_mask(tx_offloads)
        lib.pydpdk_conf_interrupts(conf, link_interrupts, rx_interrupts, False)
        key = self._configure_rss(conf, offloads.rss_mask(rss_hashes), rss_key)
        call("rte_eth_dev_configure", self.port_id, rx_queues, tx_queues, conf)
        del key  # conf has pointed into it

    def _configure_rss(self, conf: Any, hashes: int, key: bytes | None) -> Any:
        conf.rxmode.mq_mode = lib.RTE_ETH_MQ_RX_RSS if hashes else lib.RTE_ETH_MQ_RX_NONE
        rss_conf = lib.pydpdk_conf_rss(conf)
        rss_conf.rss_hf = hashes
        return rss.set_key(rss_conf, key, self._key_length())

    def adjust_descriptors(self, rx: int = 0, tx: int = 0) -> tuple[int, int]:
        """The nearest numbers of descriptors that the device accepts; 0 asks for its default.
        rte_eth_dev_adjust_nb_rx_tx_desc."""
        counts = ffi.new("uint16_t[2]", [rx, tx])
        call("rte_eth_dev_adjust_nb_rx_tx_desc", self.port_id, counts, counts + 1)
        return counts[0], counts[1]

    def setup_rx_queue(
        self,
        queue: int,
        pool: Mempool,
        descriptors: int = 0,
        *,
        socket: int = -1,
        offloads_by_name: Iterable[str] = (),
        drop_when_full: bool | None = None,
        deferred_start: bool = False,
    ) -> None:
        """Received frames take mbufs from `pool`; 0 descriptors leaves it to the driver. rte_eth_rx_queue_setup."""
        conf = ffi.new("struct rte_eth_rxconf *", self._dev_info().default_rxconf)
        conf.offloads = offloads.rx_mask(offloads_by_name)
        conf.rx_deferred_start = deferred_start
        if drop_when_full is not None:
            conf.rx_drop_en = drop_when_full
        count, _ = self.adjust_descriptors(rx=descriptors)
        node = socket & 0xFFFFFFFF
        call("rte_eth_rx_queue_setup", self.port_id, queue, count, node, conf, pool.pointer)

    def setup_tx_queue(
        self,
        queue: int,
        descriptors: int = 0,
        *,
        socket: int = -1,
        offloads_by_name: Iterable[str] = (),
        deferred_start: bool = False,
    ) -> None:
        """0 descriptors leaves it to the driver. rte_eth_tx_queue_setup."""
        conf = ffi.new("struct rte_eth_txconf *", self._dev_info().default_txconf)
        conf.offloads = offloads.tx_mask(offloads_by_name)
        conf.tx_deferred_start = deferred_start
        _, count = self.adjust_descriptors(tx=descriptors)
        call("rte_eth_tx_queue_setup", self.port_id, queue, count, socket & 0xFFFFFFFF, conf)

    def start(self) -> None:
        """rte_eth_dev_start."""
        call("rte_eth_dev_start", self.port_id)

    def stop(self) -> None:
        """rte_eth_dev_stop."""
        call("rte_eth_dev_stop", self.port_id)

    def close(self) -> None:
        """Release the port, stopped before; its number is free afterwards. rte_eth_dev_close."""
        call("rte_eth_dev_close", self.port_id)

    def reset(self) -> None:
        """Bring the device back to its initial state; configure it anew. rte_eth_dev_reset."""
        call("rte_eth_dev_reset", self.port_id)

    def remove(self) -> None:
        """Unplug the device behind the port. rte_dev_remove."""
        hotplug.remove_port(self.port_id)

    def start_rx_queue(self, queue: int) -> None:
        """rte_eth_dev_rx_queue_start."""
        call("rte_eth_dev_rx_queue_start", self.port_id, queue)

    def stop_rx_queue(self, queue: int) -> None:
        """rte_eth_dev_rx_queue_stop."""
        call("rte_eth_dev_rx_queue_stop", self.port_id, queue)

    def start_tx_queue(self, queue: int) -> None:
        """rte_eth_dev_tx_queue_start."""
        call("rte_eth_dev_tx_queue_start", self.port_id, queue)

    def stop_tx_queue(self, queue: int) -> None:
        """rte_eth_dev_tx_queue_stop."""
        call("rte_eth_dev_tx_queue_stop", self.port_id, queue)

    # Addresses and modes

    @property
    def mac(self) -> bytes:
        """Six bytes. rte_eth_macaddr_get."""
        address = ffi.new("struct rte_ether_addr *")
        call("rte_eth_macaddr_get", self.port_id, address)
        return bytes(address.addr_bytes)

    def set_mac(self, mac: bytes) -> None:
        """rte_eth_dev_default_mac_addr_set."""
        call("rte_eth_dev_default_mac_addr_set", self.port_id, _ether_addr(mac))

    def add_mac(self, mac: bytes) -> None:
        """Receive frames for a further address. rte_eth_dev_mac_addr_add."""
        call("rte_eth_dev_mac_addr_add", self.port_id, _ether_addr(mac), 0)

    def remove_mac(self, mac: bytes) -> None:
        """rte_eth_dev_mac_addr_remove."""
        call("rte_eth_dev_mac_addr_remove", self.port_id, _ether_addr(mac))

    @property
    def mtu(self) -> int:
        """rte_eth_dev_get_mtu."""
        mtu = ffi.new("uint16_t *")
        call("rte_eth_dev_get_mtu", self.port_id, mtu)
        return mtu[0]

    def set_mtu(self, mtu: int) -> None:
        """rte_eth_dev_set_mtu."""
        call("rte_eth_dev_set_mtu", self.port_id, mtu)

    @property
    def promiscuous(self) -> bool:
        """rte_eth_promiscuous_get."""
        return bool(check_errno("rte_eth_promiscuous_get", lib.rte_eth_promiscuous_get(self.port_id)))

    def set_promiscuous(self, on: bool) -> None:
        """rte_eth_promiscuous_enable, rte_eth_promiscuous_disable."""
        call(f"rte_eth_promiscuous_{'enable' if on else 'disable'}", self.port_id)

    @property
    def allmulticast(self) -> bool:
        """rte_eth_allmulticast_get."""
        return bool(check_errno("rte_eth_allmulticast_get", lib.rte_eth_allmulticast_get(self.port_id)))

    def set_allmulticast(self, on: bool) -> None:
        """rte_eth_allmulticast_enable, rte_eth_allmulticast_disable."""
        call(f"rte_eth_allmulticast_{'enable' if on else 'disable'}", self.port_id)

    def link(self, *, wait: bool = False) -> Link:
        """With `wait`, up to nine seconds for the link to come up. rte_eth_link_get, rte_eth_link_get_nowait."""
        link = ffi.new("struct pydpdk_link *")
        get = lib.pydpdk_link_get if wait else lib.pydpdk_link_get_nowait
        check("rte_eth_link_get", get(self.port_id, link))
        return Link(bool(link.up), link.speed_mbps, bool(link.full_duplex), bool(link.autoneg))

    def set_link(self, up: bool) -> None:
        """rte_eth_dev_set_link_up, rte_eth_dev_set_link_down."""
        call(f"rte_eth_dev_set_link_{'up' if up else 'down'}", self.port_id)

    # RSS

    def rss(self) -> rss.RssConf:
        """rte_eth_dev_rss_hash_conf_get."""
        return rss.get(self.port_id, self._key_length())

    def set_rss(self, hashes: Iterable[str], key: bytes | None = None) -> None:
        """rte_eth_dev_rss_hash_update."""
        rss.update(self.port_id, hashes, key, self._key_length())

    def _key_length(self) -> int:
        return rss.key_length(self._dev_info().hash_key_size)

    def reta(self) -> list[int]:
        """The queue of each entry of the redirection table. rte_eth_dev_rss_reta_query."""
        return rss.reta(self.port_id, self._dev_info().reta_size)

    def set_reta(self, queues: list[int]) -> None:
        """A queue for each entry. rte_eth_dev_rss_reta_update."""
        rss.set_reta(self.port_id, dict(enumerate(queues)), len(queues))

    def update_reta(self, queues: Mapping[int, int]) -> None:
        """A queue for some entries, by their number; the others stay. rte_eth_dev_rss_reta_update."""
        rss.set_reta(self.port_id, queues, self._dev_info().reta_size)

    # Statistics

    def stats(self) -> statistics.Stats:
        """rte_eth_stats_get."""
        return statistics.get(self.port_id)

    def reset_stats(self) -> None:
        """rte_eth_stats_reset."""
        call("rte_eth_stats_reset", self.port_id)

    def xstats(self) -> dict[str, int]:
        """The driver's own counters by name. rte_eth_xstats_get_names, rte_eth_xstats_get."""
        return statistics.extended(self.port_id)

    def reset_xstats(self) -> None:
        """rte_eth_xstats_reset."""
        call("rte_eth_xstats_reset", self.port_id)

    # Interrupts; the port must be configured with rx_interrupts=True

    def rx_interrupt_fd(self, queue: int = 0) -> int:
        """A descriptor that is readable once a frame has arrived after `enable_rx_interrupt`; DpdkError with ENOTSUP
        where the driver has none. rte_eth_dev_rx_intr_ctl_q_get_fd."""
        fd = lib.rte_eth_dev_rx_intr_ctl_q_get_fd(self.port_id, queue)
        return check("rte_eth_dev_rx_intr_ctl_q_get_fd", fd if fd >= 0 else -errno.ENOTSUP)

    def enable_rx_interrupt(self, queue: int = 0) -> None:
        """rte_eth_dev_rx_intr_enable."""
        call("rte_eth_dev_rx_intr_enable", self.port_id, queue)

    def disable_rx_interrupt(self, queue: int = 0) -> None:
        """rte_eth_dev_rx_intr_disable."""
        call("rte_eth_dev_rx_intr_disable", self.port_id, queue)


def _ether_addr(mac: bytes) -> Any:
    if len(mac) != 6:
        raise ValueError(f"a MAC address has six bytes, not {len(mac)}")
    return ffi.new("struct rte_ether_addr *", {"addr_bytes": list(mac)})
