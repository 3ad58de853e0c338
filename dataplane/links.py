"""Kernel interfaces for a server: makes and removes veths and taps, borrows interfaces that exist, clears leftovers.

The supervisor's side of a device, plain kernel work without DPDK. What it makes carries its owner in the interface's
alias, so that a crashed run's leftovers are found and removed at the next start.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from mpserve.dataplane import device_checks, kernel_link
from mpserve.dataplane.bpf_probe import why_no_af_xdp
from mpserve.dataplane.device import DeviceSpec
from mpserve.dataplane.errors import DeviceError

PREFIX = "mps"  # names are mpsPID for the kernel's end, mpsPIDd for DPDK's


@dataclass
class Link:
    """What the worker opens (`spec`, `str(spec)` parses back), and the kernel's side of it while the server lives."""

    spec: DeviceSpec
    interface: str = ""  # the kernel's end, "" if the device has none
    address: str = ""  # the kernel's address on it with its prefix length, "" if mpserve gave none
    description: str = ""
    _undo: list[Callable[[], None]] = field(default_factory=list, repr=False)

    def remove(self) -> None:
        """Remove what was made and restore what was changed. Twice is once."""
        while self._undo:
            self._undo.pop()()

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def make_link(
    spec: DeviceSpec, *, ip: str, prefix_length: int, queues: int = 1, take_over: bool = False, memory_mb: int = 0
) -> Link:
    """Check what `spec` needs, clear leftovers, make or borrow the interface. Raises DeviceError and leaves nothing.

    `ip` is the server's address; the kernel's end of a veth or tap gets another one of the same subnet.
    """
    device_checks.check_privilege(spec)
    device_checks.check_queues(spec, queues)
    remove_stale()
    if memory_mb:
        device_checks.check_memory(spec, memory_mb, queues)
    match spec.kind:
        case "veth":
            return _make_veth(spec, ip, prefix_length, queues)
        case "tap":
            return _make_tap(spec, ip, prefix_length, queues)
        case "af_packet" | "af_xdp":
            return _borrow(spec, ip, queues, take_over)
        case "memif":
            device_checks.check_installed(spec)
            return Link(spec, description=f"memif {spec.name}, {spec.options.get('role', 'server')}")
    device_checks.check_installed(spec)
    return Link(spec, description=str(spec))


def kernel_address(ip: str, prefix_length: int) -> str:
    """The first address of the server's subnet that isn't the server's. Raises DeviceError where there is no other."""
    network = ipaddress.ip_network(f"{ip}/{prefix_length}", strict=False)
    if prefix_length > 30:
        raise DeviceError(f"--ip {ip}/{prefix_length} leaves no address for the kernel's end: type --ip {ip}/24")
    return next(str(host) for host in network.hosts() if str(host) != ip)


def _make_veth(spec: DeviceSpec, ip: str, prefix_length: int, queues: int) -> Link:
    address = f"{kernel_address(ip, prefix_length)}/{prefix_length}"
    device_checks.check_subnet_is_free(ip, prefix_length)
    outer = spec.name or f"{PREFIX}{os.getpid()}"
    inner = f"{outer[:11]}-mps" if spec.name else f"{outer}d"
    device_checks.check_name_is_free(spec, outer, inner)
    driver, reason = _veth_driver(spec)
    inside = DeviceSpec(driver, inner, {"offloads": "off"})
    device_checks.check_installed(inside)
    device_checks.check_queues(inside, queues)
    link = Link(inside, outer, address, f"veth {outer} by {driver}" + (f" ({reason})" if reason else ""))
    counts = f"numtxqueues {queues} numrxqueues {queues}"
    mtu = spec.options.get("mtu", "1500")
    link._undo.append(lambda: kernel_link.delete(outer))
    try:
        kernel_link.ip("link", "add", outer, *counts.split(), "type", "veth", "peer", inner, *counts.split())
        _settle_inner(inner, mtu)
        _settle_outer(outer, address, mtu)
    except BaseException:
        link.remove()
        raise
    return link


def _veth_driver(spec: DeviceSpec) -> tuple[str, str]:
    """af_xdp, or af_packet and the reason. Raises DeviceError if af_xdp was asked for by name and can't be had."""
    wanted = spec.options.get("driver")
    if wanted == "af_packet":
        return wanted, ""
    reason = why_no_af_xdp()
    if reason and wanted:
        raise DeviceError(f"--device {spec}: {reason}; leave driver=af_xdp out or run as root")
    return ("af_packet", f"af_xdp: {reason}") if reason else ("af_xdp", "")


def _settle_inner(name: str, mtu: str) -> None:
    """DPDK's end: the kernel shall neither speak nor listen on it."""
    kernel_link.sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "1")
    kernel_link.sysctl(f"net/ipv4/conf/{name}/forwarding", "0")
    kernel_link.set_offloads(name, on=False)
    kernel_link.ip_batch(
        [f'link set dev {name} alias "{kernel_link.owner_mark()}"', f"link set dev {name} mtu {mtu} arp off up"]
    )


def _settle_outer(name: str, address: str, mtu: str) -> None:
    """The kernel's end: an address, checksums finished, no frame above the MTU, for nobody would mend them."""
    kernel_link.set_offloads(name, on=False)
    kernel_link.ip_batch(
        [
            f'link set dev {name} alias "{kernel_link.owner_mark()}"',
            f"link set dev {name} addrgenmode none",
            f"link set dev {name} mtu {mtu} up",
            f"address add {address} dev {name}",
        ]
    )


def _make_tap(spec: DeviceSpec, ip: str, prefix_length: int, queues: int) -> Link:
    """A persistent tap, so that it and its address outlive a worker that dies."""
    address = f"{kernel_address(ip, prefix_length)}/{prefix_length}"
    device_checks.check_tun(spec)
    device_checks.check_subnet_is_free(ip, prefix_length)
    name = spec.name or f"{PREFIX}{os.getpid()}"
    device_checks.check_name_is_free(spec, name)
    device_checks.check_installed(spec)
    link = Link(replace(spec, name=name), name, address, f"tap {name}")
    link._undo.append(lambda: kernel_link.delete(name))
    try:
        kernel_link.ip("tuntap", "add", "dev", name, "mode", "tap", "multi_queue")
        _settle_outer(name, address, spec.options.get("mtu", "1500"))
    except BaseException:
        link.remove()
        raise
    return link


def _borrow(spec: DeviceSpec, ip: str, queues: int, take_over: bool) -> Link:
    device_checks.check_interface_exists(spec)
    device_checks.check_installed(spec)
    if not take_over:
        device_checks.check_may_take(spec)
    if spec.kind == "af_packet" or not take_over:
        device_checks.check_address_is_free(ip)
    link = Link(spec, spec.name, "", f"{spec.kind} on {spec.name}")
    if spec.kind == "af_xdp":
        _borrow_for_xdp(link, queues)
    # Frames merged by the kernel on the way in would arrive above the MTU.
    if _is_on(spec.name, "gro"):
        kernel_link.set_offloads(spec.name, on=False, which="gro")
        link._undo.append(lambda: kernel_link.set_offloads(spec.name, on=True, which="gro"))
    if not kernel_link.is_up(spec.name):
        kernel_link.ip("link", "set", "dev", spec.name, "up")
        link._undo.append(lambda: kernel_link.set_down(spec.name))
    return link


def _borrow_for_xdp(link: Link, queues: int) -> None:
    name = link.spec.name
    reason = why_no_af_xdp()
    if reason:
        raise DeviceError(f"--device {link.spec}: {reason}; run as root or take --device af_packet:{name}")
    device_checks.check_queue_count(link.spec, queues)
    link._undo.append(lambda: kernel_link.detach_xdp(name))


def _is_on(name: str, offload: str) -> bool:
    try:
        return kernel_link.offload_is_on(name, offload)
    except OSError:
        return False


def remove_stale() -> list[str]:
    """Remove the interfaces of runs whose process is gone; their names. An interface of a living run is left alone."""
    stale = [link["ifname"] for link in kernel_link.links() if _is_stale(link["ifname"], link.get("ifalias", ""))]
    for name in stale:
        kernel_link.delete(name)
    return stale


def _is_stale(name: str, alias: str) -> bool:
    if alias:
        return kernel_link.owner_is_dead(alias)
    ours = re.fullmatch(PREFIX + r"(\d+)d?", name)  # died between making it and marking it
    return ours is not None and not os.path.exists(f"/proc/{ours[1]}")
