"""Ports: information, set-up, addresses, state and counters, on drivers that need no privilege."""

import ctypes
import errno

import pytest

pytestmark = pytest.mark.dpdk


def open_port(start, vdev, **options):
    from pydpdk import Mempool, Port

    start(vdev)
    port = Port.by_name(vdev.split(",")[0])
    port.setup(Mempool.create("frames", 2047), **options)
    return port


def test_info(start):
    from pydpdk import Port, ports

    start("net_ring0", "net_null0")
    assert [port.name for port in ports()] == ["net_ring0", "net_null0"]
    info = Port.by_name("net_ring0").info()
    assert (info.driver, info.device) == ("net_ring", "net_ring0")
    assert info.max_rx_queues == 16
    assert info.if_index == 0
    assert "MULTI_SEGS" in info.tx_offloads


def test_setup_with_several_queues(start):
    port = open_port(start, "net_ring0", rx_queues=2, tx_queues=2, rx_descriptors=64)
    info = port.info()
    assert (info.rx_queues, info.tx_queues) == (2, 2)
    assert port.link().up
    port.stop()
    assert not port.link().up


def test_unknown_names_are_refused(start):
    from pydpdk import DpdkError, Port

    start("net_ring0")
    with pytest.raises(DpdkError, match="rte_eth_dev_get_port_by_name: No such device") as refused:
        Port.by_name("net_ring7")
    assert refused.value.errno == errno.ENODEV
    with pytest.raises(ValueError, match="no rx offload 'NOSUCH'; it has .*TCP_CKSUM"):
        Port(0).configure(rx_offloads=["NOSUCH"])


def test_refused_offload_is_an_exception(start):
    from pydpdk import DpdkError, Port

    start("net_null0")
    with pytest.raises(DpdkError, match="rte_eth_dev_configure: Invalid argument"):
        Port(0).configure(tx_offloads=["TCP_TSO"])


def test_start_before_configuration_is_refused(start):
    from pydpdk import DpdkError, Port

    start("net_null0")
    with pytest.raises(DpdkError) as refused:
        Port(0).start()
    assert refused.value.function == "rte_eth_dev_start"


def test_offloads_asked_for_are_set(start):
    from pydpdk import Mempool, Port

    start("net_ring0")
    port, pool = Port(0), Mempool.create("frames", 1023)
    port.configure(tx_offloads=["MULTI_SEGS"], rx_offloads=["SCATTER"])
    port.setup_rx_queue(0, pool)
    port.setup_tx_queue(0)
    port.start()
    port.stop()
    port.close()


def test_closed_port_is_gone(start):
    from pydpdk import DpdkError, ports

    port = open_port(start, "net_null0")
    port.stop()
    port.close()
    assert ports() == []
    with pytest.raises(DpdkError, match="No such device"):
        port.info()


def test_mtu_and_promiscuous(start):
    port = open_port(start, "net_ring0")
    assert port.mtu == 1500
    port.set_promiscuous(True)
    assert port.promiscuous
    port.set_promiscuous(False)
    assert not port.promiscuous
    port.set_allmulticast(True)
    assert port.allmulticast


def test_mac(start):
    from pydpdk import DpdkError

    port = open_port(start, "net_null0")
    port.set_mac(bytes.fromhex("020000000001"))
    assert port.mac == bytes.fromhex("020000000001")
    with pytest.raises(DpdkError, match="rte_eth_dev_default_mac_addr_set: Invalid argument"):
        port.set_mac(bytes.fromhex("ffffffffffff"))
    with pytest.raises(ValueError, match="six bytes"):
        port.set_mac(b"\2\0")


def test_link_goes_down_and_up(start):
    port = open_port(start, "net_ring0")
    port.set_link(False)
    assert not port.link().up
    port.set_link(True)
    assert port.link(wait=True).up


def test_counters(start):
    port = open_port(start, "net_null0,size=100")
    assert port.stats().ipackets == 0
    rx_burst = ctypes.CFUNCTYPE(*[ctypes.c_int64] * 5)(symbols_address("pydpdk_rx_burst"))
    mbufs = (ctypes.c_int64 * 8)()
    assert rx_burst(0, 0, ctypes.addressof(mbufs), 8) == 8
    assert port.stats().ipackets == 8
    assert port.xstats()["rx_good_packets"] == 8
    port.reset_stats()
    port.reset_xstats()
    assert port.stats() == (0,) * 8


def symbols_address(name):
    from pydpdk import symbols

    return symbols.address(name)


def test_driver_without_interrupts_says_so(start):
    from pydpdk import DpdkError

    port = open_port(start, "net_null0")
    with pytest.raises(DpdkError) as refused:
        port.enable_rx_interrupt()
    assert refused.value.errno == errno.ENOTSUP
    with pytest.raises(DpdkError) as refused:
        port.rx_interrupt_fd()
    assert refused.value.errno == errno.ENOTSUP
    with pytest.raises(DpdkError, match="rte_eth_dev_rx_queue_stop: Operation not supported"):
        port.stop_rx_queue(0)
