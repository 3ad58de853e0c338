"""Devices plugged in and out while the EAL runs."""

import pytest

pytestmark = pytest.mark.dpdk


def test_added_and_removed(start):
    from pydpdk import Port, hotplug, ports

    start()
    assert ports() == []
    hotplug.add("vdev", "net_null0", "size=100")
    port = Port.by_name("net_null0")
    assert hotplug.device_name(port.port_id) == "net_null0"
    hotplug.add("vdev", "net_null0", "size=100")
    assert ports() == [port]
    hotplug.remove("vdev", "net_null0")
    assert ports() == []


def test_probed_and_removed_by_port(start):
    from pydpdk import Port, hotplug, ports

    start()
    hotplug.probe("net_ring0")
    Port.by_name("net_ring0").remove()
    assert ports() == []


def test_refusals(start):
    from pydpdk import DpdkError, hotplug

    start("net_null0")
    with pytest.raises(DpdkError, match="rte_eal_hotplug_remove"):
        hotplug.remove("vdev", "net_null1")
    with pytest.raises(DpdkError, match="rte_eal_hotplug_add"):
        hotplug.add("nosuchbus", "net_null1")
