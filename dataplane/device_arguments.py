"""What DPDK is told for each device: EAL arguments, the vdev string, pool sizes. Text and numbers, no DPDK.

The one exception to purity is memif's socket file, which must not outlive its listener.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import socket
import stat
from dataclasses import dataclass

from mpserve.dataplane import kernel_link
from mpserve.dataplane.device import DeviceSpec
from mpserve.dataplane.errors import DeviceError

MBUF_BYTES = 2048 + 128 + 128 + 64  # data room, headroom, struct rte_mbuf, mempool header
HEADROOM = 128  # RTE_PKTMBUF_HEADROOM
DATA_ROOM = 2048 + HEADROOM
# rte_mempool holds a data room in 16 bits, and net_af_packet wants a ring frame (less its header) to fit into one mbuf:
# it copies without looking at the room. It also takes the ring's frames for contiguous, so that a block must hold a
# whole number of them: 32 of 65408 are 511 pages. 65342 bytes of each hold a frame, more than the 65226 that a kernel
# peer sends at most (GSO of 45 segments of 1448). Rows 64 KiB apart would clash in the caches; these don't.
LARGE_FRAME = 65408
LARGE_DATA_ROOM = 65535
LARGE_MBUFS = 191
LARGE_FRAMES_PER_BLOCK = 32


@dataclass(frozen=True)
class Pools:
    """mbufs of ordinary size, for sending and, unless `large` says otherwise, receiving; `large` ones of 64 KiB."""

    mbufs: int
    large: int = 0

    @property
    def bytes(self) -> int:
        return self.mbufs * MBUF_BYTES + self.large * (LARGE_DATA_ROOM + 256)


def pools(spec: DeviceSpec) -> Pools:
    if spec.kind == "af_packet" and _frames_above_mtu(spec):
        return Pools(4095, LARGE_MBUFS)
    # af_xdp and memif keep a few thousand posted with the peer.
    return Pools(16383 if spec.kind in ("af_xdp", "memif", "pci", "vdev") else 8191)


def memory_mb(spec: DeviceSpec, block_bytes: int = 0, queues: int = 1) -> int:
    """MiB of one worker's EAL, or of one that workers share: pools, the stack's blocks, rings and DPDK's own."""
    return queues * (pools(spec).bytes + block_bytes) // (1 << 20) + 32


def eal_arguments(
    spec: DeviceSpec, *, queue: int, lcores: str, file_prefix: str, hugepages: bool, memory: int = 0
) -> list[str]:
    """EAL arguments behind the program's name. `lcores` is DPDK's map of lcores to CPUs.

    `memory` is in MiB, what the device alone needs by default.
    `--in-memory` takes hugepages without a mounted hugetlbfs; without hugepages DPDK allows `--no-shconf` only.
    """
    alone = ["--in-memory"] if hugepages else ["--no-huge", "--no-shconf"]
    arguments = [*_common(lcores, file_prefix), "-m", str(memory or memory_mb(spec)), *alone]
    return [*arguments, *_bus(spec), *_vdev(spec, queue)]


def shared_arguments(spec: DeviceSpec, *, lcores: str, file_prefix: str, memory: int) -> list[str]:
    """EAL arguments of the process that opens a port for several: the primary. Its hugepages are files that others map."""
    arguments = [*_common(lcores, file_prefix), "-m", str(memory), "--proc-type=primary"]
    return [*arguments, *_bus(spec), *_vdev(spec, 0)]


def attaching_arguments(spec: DeviceSpec, *, lcores: str, file_prefix: str) -> list[str]:
    """EAL arguments of a worker that attaches: a secondary, which hears of virtual devices from its primary."""
    return [*_common(lcores, file_prefix), "--proc-type=secondary", *_bus(spec)]


def _common(lcores: str, file_prefix: str) -> list[str]:
    return [f"--lcores={lcores}", "--no-telemetry", "--log-level=warning", "--file-prefix", file_prefix]


def _bus(spec: DeviceSpec) -> list[str]:
    if spec.kind != "pci":
        return ["--no-pci"]
    devargs = spec.options.get("devargs", "").replace(";", ",")
    return ["-a", spec.name + ("," + devargs if devargs else "")]


def _vdev(spec: DeviceSpec, queue: int) -> list[str]:
    return [] if spec.kind == "pci" else ["--vdev", vdev(spec, queue)]


def vdev(spec: DeviceSpec, queue: int) -> str:
    """The `--vdev` string of a device, queue `queue` of its interface."""
    match spec.kind:
        case "tap":
            return f"net_tap0,iface={spec.name},mac={mac_text(kernel_mac(spec.name))}"
        case "af_packet":
            return f"net_af_packet0,iface={spec.name},{_packet_ring(spec)}"
        case "af_xdp":
            return f"net_af_xdp0,iface={spec.name},start_queue={queue},queue_count=1" + _xdp_options(spec)
        case "memif":
            return f"net_memif0,{_memif_options(spec)}"
        case "pcap":
            return f"net_pcap0,rx_pcap={spec.name},tx_pcap={spec.options.get('out', '/dev/null')}"
        case "ring":
            return "net_ring0"
    return spec.name


def _frames_above_mtu(spec: DeviceSpec) -> bool:
    return spec.driver.frames_above_mtu and spec.options.get("offloads") != "off"


def _packet_ring(spec: DeviceSpec) -> str:
    """Receive and send ring have one size. qdisc_bypass skips traffic control, which veths don't have anyway."""
    large = _frames_above_mtu(spec)
    size, per_block = (LARGE_FRAME, LARGE_FRAMES_PER_BLOCK) if large else (2048, 32)
    blocks = -(-int(spec.options.get("frames", 256 if large else 2048)) // per_block)
    return f"framesz={size},blocksz={size * per_block},framecnt={blocks * per_block},qdisc_bypass=1"


def _xdp_options(spec: DeviceSpec) -> str:
    """Busy polling is for hardware: a virtual interface hands its frames over by itself, and asking again and again costs
    a system call an empty poll, and each frame that wakes a sleeper 40 us."""
    options = {key: spec.options[key] for key in ("force_copy", "busy_budget") if key in spec.options}
    if not kernel_link.is_hardware(spec.name):
        options.setdefault("busy_budget", "0")
    return "".join(f",{key}={value}" for key, value in options.items())


def _memif_options(spec: DeviceSpec) -> str:
    """Zero-copy stays off: DPDK 22.11 crashes with it without hugepages."""
    role = spec.options.get("role", "server")
    ring = f"id={spec.options.get('id', '0')},rsize={spec.options.get('rsize', '10')}"
    text = f"role={role},socket={os.path.abspath(spec.name)},socket-abstract=no,{ring}"
    text += f",bsize={spec.options.get('bsize', '2048')}"
    return text + (f",secret={spec.options['secret']}" if "secret" in spec.options else "")


def prepare_memif_socket(spec: DeviceSpec) -> None:
    """A client needs a listener; a server won't start over a dead one's socket file, so remove it. DeviceError if the
    folder is missing, nobody listens, or somebody listens already."""
    path = os.path.abspath(spec.name)
    listens = _somebody_listens(spec, path)
    if not _is_listener(spec):
        if not listens:
            raise DeviceError(f"--device {spec}: nobody listens on {path}: start the server's side first")
    elif listens:
        raise DeviceError(f"--device {spec}: another process listens on {path}: add ,role=client or take another name")
    elif os.path.exists(path):
        os.unlink(path)


def remove_dead_socket(spec: DeviceSpec) -> None:
    """The socket file of a memif's listener that was killed."""
    path = os.path.abspath(spec.name)
    with contextlib.suppress(DeviceError):  # it is somebody else's by now
        if spec.kind == "memif" and _is_listener(spec) and os.path.exists(path) and not _somebody_listens(spec, path):
            os.unlink(path)


def remove_own_socket(spec: DeviceSpec) -> None:
    """The socket file that this process listens on and does not close."""
    if _is_listener(spec):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.abspath(spec.name))


def _is_listener(spec: DeviceSpec) -> bool:
    return spec.options.get("role", "server") == "server"


def _somebody_listens(spec: DeviceSpec, path: str) -> bool:
    if not os.path.isdir(os.path.dirname(path)):
        raise DeviceError(f"--device {spec}: no folder {os.path.dirname(path)}: make it with mkdir -p")
    if not os.path.exists(path):
        return False
    if not stat.S_ISSOCK(os.stat(path).st_mode):
        raise DeviceError(f"--device {spec}: {path} is there and is no socket: choose another name")
    # memif sockets are SOCK_SEQPACKET: a stream is refused as the wrong type by a living one. A connection of the right
    # type that says nothing would end net_memif's process with rte_panic.
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        error = probe.connect_ex(path)
    if error not in (0, errno.EPROTOTYPE, errno.ECONNREFUSED):
        raise DeviceError(f"--device {spec}: can't reach {path}: {os.strerror(error)}")
    return error != errno.ECONNREFUSED


def mac_text(mac: bytes) -> str:
    return mac.hex(":")


def kernel_mac(name: str) -> bytes:
    """The address a tap's kernel side gets: the same at every opening, so that neighbours stay known over a restart."""
    return b"\x02" + hashlib.blake2b(name.encode(), digest_size=4).digest() + b"\x01"


def own_mac(spec: DeviceSpec, port_mac: bytes) -> bytes:
    """The Ethernet address that the server answers to.

    On a tap the port's address is the kernel's own, and on a packet socket the kernel sees our frames too: with another
    address it drops them at the door instead of routing or resetting them. Hardware keeps its address: switches check.
    """
    if "mac" in spec.options:
        return bytes.fromhex(spec.options["mac"].replace(":", ""))
    if spec.kind == "tap" or (spec.kind == "af_packet" and not kernel_link.is_hardware(spec.name)):
        return bytes([(port_mac[0] | 2) & 0xFE, *port_mac[1:5], port_mac[5] ^ 0x55])
    return port_mac if any(port_mac) else b"\x02\0\0\0\0\x01"  # net_ring has none
