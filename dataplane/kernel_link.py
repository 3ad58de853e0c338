"""The kernel's network interfaces, asked and changed: the `ip` command, the ethtool ioctl, and whose an interface is.

No policy here: `links` decides what to make, `device_checks` what to refuse.
"""

from __future__ import annotations

import array
import fcntl
import json
import os
import socket
import struct
import subprocess
from typing import Any

from mpserve.dataplane.errors import DeviceError

SIOCGIFFLAGS, SIOCGIFMTU, SIOCGIFHWADDR, SIOCETHTOOL = 0x8913, 0x8921, 0x8927, 0x8946
ETHTOOL_GCHANNELS = 0x3C
# linux/ethtool.h: the command that asks, the one that sets. Turning tx checksums off turns what builds on them off too.
OFFLOADS = {
    "tx": (0x16, 0x17),
    "sg": (0x18, 0x19),
    "tso": (0x1E, 0x1F),
    "gso": (0x23, 0x24),
    "gro": (0x2B, 0x2C),
}
MARK = "mpserve"  # opens the alias of every interface that mpserve made


def ip(*arguments: str) -> str:
    """Run iproute2's `ip`. Raises DeviceError with its own words."""
    try:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise DeviceError("the ip command is missing: apt-get install iproute2") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise DeviceError(f"ip {' '.join(arguments)}: {said[0] if said else done.returncode}")
    return done.stdout


def ip_json(*arguments: str) -> list[dict[str, Any]]:
    return json.loads(ip("-j", *arguments) or "[]")


def ip_batch(commands: list[str]) -> None:
    """Several `ip` commands in one process. Raises DeviceError with the first line that failed."""
    try:
        done = subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), capture_output=True, text=True)
    except FileNotFoundError:
        raise DeviceError("the ip command is missing: apt-get install iproute2") from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line] or [str(done.returncode)]
        raise DeviceError(f"ip could not set the interface up: {said[0]}")


def links() -> list[dict[str, Any]]:
    """Every interface as `ip -j -d link` shows it. Not /sys/class/net, which may show an outer network namespace."""
    return ip_json("-d", "link", "show")


def exists(name: str) -> bool:
    try:
        return socket.if_nametoindex(name) > 0
    except OSError:
        return False


def names() -> list[str]:
    """Of every interface, in the kernel's order."""
    return [name for _, name in socket.if_nameindex()]


def _ioctl(name: str, request: int) -> bytes:
    """An interface ioctl; the 24 bytes of struct ifreq behind the name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        return fcntl.ioctl(control, request, struct.pack("16s24x", name.encode()))[16:]


def mac_of(name: str) -> bytes:
    return _ioctl(name, SIOCGIFHWADDR)[2:8]


def mtu_of(name: str) -> int:
    return struct.unpack_from("i", _ioctl(name, SIOCGIFMTU))[0]


def is_up(name: str) -> bool:
    return bool(struct.unpack_from("H", _ioctl(name, SIOCGIFFLAGS))[0] & 1)


def is_hardware(name: str) -> bool:
    """Whether a device stands behind the interface; veths, bridges and taps have a kind instead."""
    return not any("linkinfo" in link for link in ip_json("-d", "link", "show", "dev", name))


def _ethtool(name: str, command: int, value: int = 0) -> int:
    data = array.array("B", struct.pack("II", command, value))
    request = struct.pack("16sQ8x", name.encode(), data.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCETHTOOL, request)
    return struct.unpack("II", data)[1]


def set_offloads(name: str, on: bool, which: str = "gso tso tx gro") -> None:
    """Turn offloads (keys of OFFLOADS) on or off. What an interface doesn't have, or has fixed, stays as it is."""
    for offload in which.split():
        try:
            _ethtool(name, OFFLOADS[offload][1], int(on))
        except OSError:
            continue


def offload_is_on(name: str, which: str) -> bool:
    """Raises OSError where the interface doesn't know the offload."""
    return bool(_ethtool(name, OFFLOADS[which][0]))


def sysctl(path: str, value: str) -> bool:
    """Write /proc/sys/PATH; False where it isn't there or may not be written (a container)."""
    try:
        with open("/proc/sys/" + path, "w") as file:
            file.write(value)
    except OSError:
        return False
    return True


def _start_time(pid: int) -> str:
    """Clock ticks from boot to the start of a process, "" if there is none; with the pid it names one process."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]  # a zombie that nobody reaps is dead too


def owner_mark() -> str:
    """The alias of an interface that this process makes: its pid, start time and pid namespace."""
    pid = os.getpid()
    return f"{MARK} {pid} {_start_time(pid)} {os.stat('/proc/self/ns/pid').st_ino}"


def owner_is_dead(alias: str) -> bool:
    """Whether the process that left this mark is gone. One in another pid namespace counts as alive."""
    words = alias.split()
    if len(words) != 4 or words[0] != MARK or words[3] != str(os.stat("/proc/self/ns/pid").st_ino):
        return False
    return not words[2] or _start_time(int(words[1])) != words[2]


def set_down(name: str) -> None:
    if exists(name):
        ip("link", "set", "dev", name, "down")


def rx_queues(name: str) -> int:
    """How many receive queues are in use; 1 where the driver doesn't say."""
    data = array.array("I", [ETHTOOL_GCHANNELS] + [0] * 8)
    request = struct.pack("16sQ8x", name.encode(), data.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            fcntl.ioctl(control, SIOCETHTOOL, request)
        except OSError:
            return 1
    return data[5] + data[8]  # rx_count + combined_count of struct ethtool_channels


def detach_xdp(name: str) -> None:
    """Take the program off that libxdp's default loader attached; a worker that was killed leaves it there."""
    if exists(name) and "xsk_def_prog" in ip("-d", "link", "show", "dev", name):
        ip("link", "set", "dev", name, "xdp", "off")


def delete(name: str) -> None:
    """Remove an interface, and with it a veth's other end; silent if it is gone already."""
    if exists(name):
        try:
            ip("link", "delete", "dev", name)
        except DeviceError:
            if exists(name):
                raise
