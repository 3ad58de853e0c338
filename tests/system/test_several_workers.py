"""Several processes on one device, a queue each: flows spread over them, each reply is right, one dies and its successor serves.

The workers are frame echoes; the clients are the kernel's UDP sockets, or TCP segments made here where the spreading is ours.
"""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest

from mpserve.dataplane import flow_hash, kernel_link
from mpserve.dataplane.bpf_probe import why_no_af_xdp
from mpserve.dataplane.device import parse_device
from mpserve.dataplane.links import Link, make_link

pytest.importorskip("pydpdk", reason="needs DPDK and the pydpdk extension", exc_type=ImportError)
pytestmark = [pytest.mark.root, pytest.mark.dpdk]

ECHO = [sys.executable, "-m", "mpserve.dataplane.device_echo"]
IP, KERNEL_IP = "10.31.9.2", "10.31.9.1"
FLOWS = 64
EVERY = list(range(FLOWS))
WAIT_SECONDS = 1.0  # for a reply that may not come
PEER_MAC = b"\x02\0\0\0\0\x99"


class Worker:
    """A frame echo on one queue of a device that is made already."""

    def __init__(self, device: str, queue: int, queues: int = 2, *more: str) -> None:
        words = [*ECHO, device, "--made", "--queue", str(queue), "--queues", str(queues), *more]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd="/")
        self._mac = b""

    @property
    def mac(self) -> bytes:
        """Waits until it is ready."""
        if not self._mac:
            assert self.process.stdout is not None
            ready, _, mac = self.process.stdout.readline().split()
            assert ready == "ready"
            self._mac = bytes.fromhex(mac.replace(":", ""))
        return self._mac

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def end(self) -> int:
        """How many frames it saw."""
        self.process.send_signal(signal.SIGTERM)
        said, _ = self.process.communicate(timeout=10)
        assert self.process.returncode == 0
        return int(said.split()[0].removeprefix("frames="))


@contextlib.contextmanager
def workers(device: str, queues: int = 2) -> Iterator[list[Worker]]:
    """So many, started at the same moment. Whoever is in the list at the end is killed."""
    several = [Worker(device, queue, queues) for queue in range(queues)]
    try:
        assert len({worker.mac for worker in several}) == 1, "the workers of one device answer to one address"
        yield several
    finally:
        for worker in several:
            if worker.process.poll() is None:
                worker.kill()


@pytest.fixture
def datagrams() -> Iterator[list[socket.socket]]:
    """The kernel's sockets, a flow each."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(FLOWS)]


def answered(datagrams: list[socket.socket]) -> list[int]:
    """Send a datagram from each socket; which got their own back."""
    for number, client in enumerate(datagrams):
        client.settimeout(WAIT_SECONDS)
        client.connect((IP, 7))
        client.send(b"flow %d" % number)
    return [number for number, client in enumerate(datagrams) if is_answered(client, number, datagrams)]


def is_answered(client: socket.socket, number: int, datagrams: list[socket.socket]) -> bool:
    try:
        reply = client.recv(100)
    except TimeoutError:
        for other in datagrams:
            other.settimeout(0.01)  # all were sent at once: once is waited long enough
        return False
    assert reply == b"flow %d" % number
    return True


def made(device: str, queues: int = 2) -> Link:
    if device == "veth,driver=af_xdp" and why_no_af_xdp():
        pytest.skip(f"needs AF_XDP: {why_no_af_xdp()}")
    if device == "tap" and not os.path.exists("/dev/net/tun"):
        pytest.skip("needs /dev/net/tun")
    kernel_link.sysctl("net/ipv6/conf/default/disable_ipv6", "1")  # frames of its own would be counted
    return make_link(parse_device(device), ip=IP, prefix_length=24, queues=queues)


def introduce(link: Link, mac: bytes) -> None:
    """The kernel need not ask: an ARP request is no flow's."""
    where = f"neighbour replace {IP} lladdr {mac.hex(':')} dev {link.interface}"
    subprocess.run(["ip", *where.split()], check=True)


MADE = ["veth,driver=af_xdp", "tap"]


@pytest.mark.parametrize("device", MADE)
def test_flows_spread_over_the_workers(namespace: int, device: str, datagrams: list[socket.socket]) -> None:
    with made(device) as link, workers(str(link.spec)) as pair:
        introduce(link, pair[0].mac)
        assert answered(datagrams) == EVERY
        seen = [worker.end() for worker in pair]
    assert min(seen) > 0 and sum(seen) == FLOWS


@pytest.mark.parametrize("device", MADE)
def test_a_killed_worker_has_a_successor_on_its_queue(
    namespace: int, device: str, datagrams: list[socket.socket]
) -> None:
    with made(device) as link, workers(str(link.spec)) as pair:
        introduce(link, pair[0].mac)
        pair[0].kill()
        left = answered(datagrams)
        assert left == EVERY if device == "tap" else 0 < len(left) < FLOWS  # a tap's kernel sees who is left
        pair[0] = Worker(str(link.spec), 0)
        introduce(link, pair[0].mac)
        assert answered(datagrams) == EVERY
        seen = [worker.end() for worker in pair]
    assert min(seen) > 0 and sum(seen) == FLOWS + len(left)


@pytest.mark.parametrize("device", MADE)
def test_a_worker_that_ends_in_order_takes_nothing_from_the_others(
    namespace: int, device: str, datagrams: list[socket.socket]
) -> None:
    """Left to themselves, DPDK's drivers set a tap down and take the program for AF_XDP off."""
    with made(device) as link, workers(str(link.spec)) as pair:
        introduce(link, pair[0].mac)
        for queue in range(2):
            pair[queue].end()
            assert len(answered(datagrams)) > 0
            pair[queue] = Worker(str(link.spec), queue)
            introduce(link, pair[queue].mac)
            assert answered(datagrams) == EVERY
    assert kernel_link.names() == ["lo"]


def test_the_program_of_several_workers_is_taken_off_with_the_link(
    namespace: int, datagrams: list[socket.socket]
) -> None:
    """Nobody else may: each worker leaves it to those that still serve."""
    if why_no_af_xdp():
        pytest.skip(f"needs AF_XDP: {why_no_af_xdp()}")
    queues = "numrxqueues 2 numtxqueues 2"
    for command in (
        f"link add mpst0 {queues} type veth peer mpst1 {queues}",
        f"address add {KERNEL_IP}/24 dev mpst1",
        "link set mpst1 up",
    ):
        subprocess.run(["ip", *command.split()], check=True)
    kernel_link.set_offloads("mpst1", on=False)  # the echo finishes no checksums
    device = parse_device("af_xdp:mpst0")
    with make_link(device, ip=IP, prefix_length=24, queues=2) as link, workers(str(link.spec)) as pair:
        introduce(Link(link.spec, "mpst1"), pair[0].mac)
        assert answered(datagrams) == EVERY
        pair[0].kill()
        pair[1].end()
        assert "prog/xdp" in kernel_link.ip("-d", "link", "show", "dev", "mpst0")
    assert "prog/xdp" not in kernel_link.ip("-d", "link", "show", "dev", "mpst0")


def segment(mac: bytes, flow: int, protocol: int = 6) -> bytes:
    """A frame of one of many flows to port 7, of no right checksum: the echo asks for none."""
    addresses = socket.inet_aton(KERNEL_IP) + socket.inet_aton(IP)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 40, flow, 0, 64, protocol, 0) + addresses
    return mac + PEER_MAC + b"\x08\0" + header + struct.pack("!HHIIBBHHH", 1024 + flow, 7, flow, 0, 0x50, 0x10, 0, 0, 0)


def send_and_get_back(interface: str, mac: bytes, frames: list[bytes]) -> list[bytes]:
    """Send each frame from a packet socket; those that came back, as they were sent."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)) as packets:
        packets.bind((interface, 0x0800))
        packets.settimeout(WAIT_SECONDS)
        for frame in frames:
            packets.send(frame)
        back: list[bytes] = []
        with contextlib.suppress(TimeoutError):
            while len(back) < len(frames):
                frame = packets.recv(2048)
                if frame[:12] == PEER_MAC + mac:  # others are our own, as they went out
                    back.append(mac + PEER_MAC + frame[12:])
    return sorted(back)


@pytest.mark.parametrize("queues", [2, 3])
def test_packet_sockets_are_given_the_flows_that_a_nic_would_give_them(namespace: int, queues: int) -> None:
    """Each worker's filter passes its share of TCP, and the first worker's all else."""
    addresses = socket.inet_aton(KERNEL_IP), socket.inet_aton(IP)
    owners = [flow_hash.queue_of(*addresses, 1024 + flow, 7, queues) for flow in range(FLOWS)]
    with made("veth,driver=af_packet", queues) as link, workers(str(link.spec), queues) as pair:
        mac = pair[0].mac
        frames = sorted(segment(mac, flow) for flow in range(FLOWS))
        others = [segment(mac, 1, protocol=17), segment(mac, 2, protocol=47)]
        others += [mac + PEER_MAC + b"\x86\xdd" + bytes(60), mac + PEER_MAC + b"\x08\x06" + bytes(46)]
        assert send_and_get_back(link.interface, mac, frames) == frames
        send_and_get_back(link.interface, mac, others)  # some of them do not come back as IPv4
        pair[1].kill()
        left = send_and_get_back(link.interface, mac, frames)
        assert left == [frame for flow, frame in enumerate(frames) if owners[flow] != 1]
        pair[1] = Worker(str(link.spec), 1, queues)
        assert pair[1].mac == mac and send_and_get_back(link.interface, mac, frames) == frames
        seen = [worker.end() for worker in pair]
    turns = [1 if queue == 1 else 3 for queue in range(queues)]
    assert seen[1:] == [owners.count(queue) * turns[queue] for queue in range(1, queues)]
    assert seen[0] == owners.count(0) * 3 + len(others)
