"""Every device moves frames both ways, and its descriptor wakes a sleeper: the frame echo in a process of its own."""

import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpserve.dataplane import device_arguments, kernel_link
from mpserve.dataplane.bpf_probe import why_no_af_xdp

pytest.importorskip("pydpdk", reason="needs DPDK and the pydpdk extension", exc_type=ImportError)

ECHO = [sys.executable, "-m", "mpserve.dataplane.device_echo"]
LOCAL_EXPERIMENT = 0x88B5
SOL_PACKET, PACKET_VNET_HDR = 263, 15
PEER_MAC = b"\x02\0\0\0\0\x99"


class Echo:
    """A frame echo that is ready: the interface to reach it by, its address; `end` gives its last line's figures."""

    def __init__(self, device: str, *more: str) -> None:
        self.process = subprocess.Popen([*ECHO, device, *more], stdout=subprocess.PIPE, text=True, cwd="/")
        assert self.process.stdout is not None
        ready, self.interface, mac = self.process.stdout.readline().split()
        assert ready == "ready"
        self.mac = bytes.fromhex(mac.replace(":", ""))

    def end(self, signal_number: int = signal.SIGTERM) -> dict[str, int]:
        self.process.send_signal(signal_number)
        said, _ = self.process.communicate(timeout=10)
        return {key: int(value) for key, value in (word.split("=") for word in said.split())}


@contextlib.contextmanager
def echoing(device: str, *more: str) -> Iterator[Echo]:
    echo = Echo(device, *more)
    try:
        yield echo
    finally:
        if echo.process.poll() is None:
            echo.process.kill()
            echo.process.wait()


def packet_socket(interface: str, ethertype: int = LOCAL_EXPERIMENT) -> socket.socket:
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ethertype))
    packets.bind((interface, ethertype))
    packets.settimeout(2)
    return packets


def exchange(packets: socket.socket, mac: bytes, count: int) -> None:
    """Frames of many lengths, one at a time so that the other side sleeps between; each must come back whole."""
    for number in range(count):
        body = number.to_bytes(2, "big") * (23 + number * 677 % 700)
        packets.send(mac + PEER_MAC + LOCAL_EXPERIMENT.to_bytes(2, "big") + body)
        while (frame := packets.recv(4096))[:6] == mac:
            pass  # our own, as it went out
        assert frame[:12] == PEER_MAC + mac and frame[14:] == body


def pair() -> tuple[str, str]:
    """A veth pair as somebody else makes it, the kernel's offloads on: mpserve's end and its peer."""
    kernel_link.sysctl("net/ipv6/conf/default/disable_ipv6", "1")  # frames of its own would be counted
    for command in (
        "link add mpst0 numrxqueues 1 numtxqueues 1 type veth peer name mpst1 numrxqueues 1 numtxqueues 1",
        "link set mpst1 up",
    ):
        subprocess.run(["ip", *command.split()], check=True)
    return "mpst0", "mpst1"


def needs(device: str) -> None:
    if "af_xdp" in device and why_no_af_xdp():
        pytest.skip(f"needs AF_XDP: {why_no_af_xdp()}")
    if device.startswith("tap") and not os.path.exists("/dev/net/tun"):
        pytest.skip("needs /dev/net/tun")


@pytest.mark.root
@pytest.mark.parametrize("device", ["veth,driver=af_xdp", "veth,driver=af_packet", "tap"])
def test_a_made_device_echoes_and_wakes(namespace: int, device: str) -> None:
    needs(device)
    with echoing(device) as echo, packet_socket(echo.interface) as packets:
        exchange(packets, echo.mac, 50)
        seen = echo.end()
    assert seen["frames"] >= 50 and seen["woken"] > 0
    assert not kernel_link.exists(echo.interface)


@pytest.mark.root
@pytest.mark.parametrize("kind", ["af_xdp", "af_packet"])
def test_a_borrowed_interface_echoes_and_wakes(namespace: int, kind: str) -> None:
    needs(kind)
    ours, peer = pair()
    with echoing(f"{kind}:{ours}") as echo, packet_socket(peer) as packets:
        exchange(packets, echo.mac, 50)
        seen = echo.end()
    assert seen["frames"] >= 50 and seen["woken"] > 0
    assert "xdp" not in kernel_link.ip("link", "show", "dev", ours)


@pytest.mark.root
@pytest.mark.parametrize("device", ["veth:mpst", "tap:mpst"])
def test_a_killed_device_opens_again_and_leaves_nothing(namespace: int, device: str) -> None:
    needs(device)
    with echoing(device) as echo:
        echo.end(signal.SIGKILL)
        assert kernel_link.exists("mpst")
    with echoing(device) as echo, packet_socket(echo.interface) as packets:
        exchange(packets, echo.mac, 3)
        echo.end(signal.SIGINT)
    assert kernel_link.names() == ["lo"]


@pytest.mark.root
def test_a_killed_af_xdp_worker_opens_the_same_queue_again(namespace: int) -> None:
    needs("af_xdp")
    ours, peer = pair()
    with echoing(f"af_xdp:{ours}") as echo:
        echo.end(signal.SIGKILL)
    with echoing(f"af_xdp:{ours}") as echo, packet_socket(peer) as packets:
        exchange(packets, echo.mac, 3)


def gso_frame(mac: bytes, payload: bytes) -> bytes:
    """What a local TCP hands down: virtio_net_hdr, then one frame of many segments with its checksum unfinished."""
    addresses = socket.inet_aton("10.9.0.1") + socket.inet_aton("10.9.0.2")
    words = struct.pack("!BBHHHBBH", 0x45, 0, 40 + len(payload), 1, 0x4000, 64, 6, 0) + addresses
    header = words[:10] + struct.pack("!H", ones_complement(words) ^ 0xFFFF) + words[12:]
    pseudo = ones_complement(addresses + struct.pack("!HH", 6, 20 + len(payload)))
    segment = struct.pack("!HHIIBBHHH", 1, 2, 3, 4, 0x50, 0x10, 1000, pseudo, 0)
    virtio = struct.pack("<BBHHHH", 1, 1, 54, 1448, 34, 16)  # needs checksum, TCPv4
    return virtio + mac + PEER_MAC + b"\x08\x00" + header + segment + payload


def ones_complement(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@pytest.mark.root
@pytest.mark.parametrize(("kind", "frames", "largest"), [("af_packet", 1, 65214), ("af_xdp", 45, 1502)])
def test_gso_frames_of_a_local_peer_arrive_whole(namespace: int, kind: str, frames: int, largest: int) -> None:
    """A packet socket gets 45 segments in one frame; XDP on a veth makes the kernel cut them first."""
    needs(kind)
    ours, peer = pair()
    with echoing(f"{kind}:{ours}") as echo, packet_socket(peer, 0x0800) as packets:
        packets.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        packets.send(gso_frame(echo.mac, b"z" * (45 * 1448)))
        select.select([], [], [], 0.3)
        seen = echo.end()
    assert (seen["frames"], seen["largest"]) == (frames, largest)


@pytest.mark.root
def test_the_kernel_does_not_answer_for_us_on_a_packet_socket(namespace: int) -> None:
    """Its stack sees the frames too, and drops them because the Ethernet address isn't the interface's."""
    ours, _ = pair()
    with echoing(f"af_packet:{ours}") as echo:
        assert echo.mac != kernel_link.mac_of(ours)


def test_memif_between_two_processes(tmp_path: Path) -> None:
    path = tmp_path / "wire.sock"
    with (
        echoing(f"memif:{path}") as server,
        echoing(f"memif:{path},role=client", "--send", "5", "--frames", "200") as one,
    ):
        said, _ = one.process.communicate(timeout=20)
        assert "frames=2" in said and one.process.returncode == 0
        assert server.end()["frames"] >= 200
    assert not path.exists()


def test_memif_starts_over_a_dead_socket(tmp_path: Path) -> None:
    path = tmp_path / "wire.sock"
    with echoing(f"memif:{path}") as server:
        server.end(signal.SIGKILL)
    assert path.exists()
    with echoing(f"memif:{path}") as server:
        again = subprocess.run([*ECHO, f"memif:{path}"], capture_output=True, text=True, cwd="/")
        assert again.returncode == 2 and "another process listens" in again.stderr
        assert server.end()["frames"] == 0  # and it lives on


def test_ring_receives_what_it_sends() -> None:
    done = subprocess.run([*ECHO, "ring", "--send", "3", "--frames", "9"], capture_output=True, text=True, cwd="/")
    assert "largest=64" in done.stdout and done.returncode == 0


def test_pcap_reads_a_capture_and_writes_the_replies(tmp_path: Path) -> None:
    frame = b"\xff" * 6 + PEER_MAC + b"\x88\xb5" + b"hello".ljust(46, b"\0")
    record = struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame
    source, sink = tmp_path / "in.pcap", tmp_path / "out.pcap"
    source.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + record * 3)
    done = subprocess.run([*ECHO, f"pcap:{source},{sink}", "--frames", "3"], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    written = sink.read_bytes()
    assert written.count(b"hello") == 3 and PEER_MAC in written


def test_what_dpdk_refuses_is_one_line() -> None:
    done = subprocess.run([*ECHO, "vdev:net_null0,nonsense=1"], capture_output=True, text=True, cwd="/")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr


def test_a_nic_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.run([*ECHO, "pci:0000:ff:1f.7"], capture_output=True, text=True, cwd="/")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "pci:0000:ff:1f.7" in done.stderr


def test_a_ring_of_large_frames_is_contiguous() -> None:
    """net_af_packet takes frame i to be at i times the frame size, so blocks hold a whole number of frames and pages."""
    size, count = device_arguments.LARGE_FRAME, device_arguments.LARGE_FRAMES_PER_BLOCK
    assert size * count % 4096 == 0 and size % 16 == 0
    assert size - 32 <= device_arguments.LARGE_DATA_ROOM - device_arguments.HEADROOM
