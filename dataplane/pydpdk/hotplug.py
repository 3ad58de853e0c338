"""Devices that come and go while the EAL runs."""

from __future__ import annotations

from pydpdk.codes import call
from pydpdk.extension import ffi, lib


def add(bus: str, name: str, arguments: str = "") -> None:
    """Plug a device in, such as add("vdev", "net_tap0", "iface=x"). DpdkError with EEXIST, ENOENT, ENODEV and others.
    rte_eal_hotplug_add."""
    call("rte_eal_hotplug_add", bus.encode(), name.encode(), arguments.encode())


def remove(bus: str, name: str) -> None:
    """Unplug a device, closing its ports. rte_eal_hotplug_remove."""
    call("rte_eal_hotplug_remove", bus.encode(), name.encode())


def probe(devargs: str) -> None:
    """Probe a device by its devargs, such as "net_null0,size=64" or "0000:03:00.0". rte_dev_probe."""
    call("rte_dev_probe", devargs.encode())


def remove_port(port_id: int) -> None:
    """Unplug the device behind a port, in all processes that share it. rte_dev_remove."""
    info = ffi.new("struct rte_eth_dev_info *")
    call("rte_eth_dev_info_get", port_id, info)
    call("rte_dev_remove", info.device)


def device_name(port_id: int) -> str:
    """The name of the device behind a port, which may have several ports. rte_dev_name."""
    info = ffi.new("struct rte_eth_dev_info *")
    call("rte_eth_dev_info_get", port_id, info)
    return ffi.string(lib.rte_dev_name(info.device)).decode()
