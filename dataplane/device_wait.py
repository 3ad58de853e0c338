"""Which descriptor of an open port becomes readable when a frame arrives. DPDK doesn't say; /proc does."""

from __future__ import annotations

import os
import socket

from mpserve.dataplane.device import DeviceSpec

AF_XDP = 44
_DOMAINS = {"af_packet": socket.AF_PACKET, "af_xdp": AF_XDP}


def open_descriptors() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/fd")}


def find_wait_fds(spec: DeviceSpec, before: set[int], probed: set[int]) -> list[int]:
    """Of the descriptors that opening `spec` added, those that a frame makes readable.

    `before` were open before the EAL started, `probed` when the port was there but not yet its queues.
    """
    new = sorted(open_descriptors() - before)
    if spec.kind == "tap":
        # One that keeps the tap alive comes with the probe and never gets a frame; a queue's two are copies of one.
        return [fd for fd in new if fd not in probed and _is_tun(fd)][:1]
    if spec.kind in _DOMAINS:
        return [fd for fd in new if _domain(fd) == _DOMAINS[spec.kind]]
    return []


def _domain(fd: int) -> int:
    """The socket's address family, -1 if the descriptor is no socket."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_RAW, 0, fileno=os.dup(fd)) as copy:
            return copy.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)
    except OSError:
        return -1


def _is_tun(fd: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}") == "/dev/net/tun"
    except OSError:
        return False
