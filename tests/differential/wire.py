"""Raw frames on a tap, and when the kernel saw them pass: the ground that scripted peers stand on.

A packet socket on the tap's interface reads the frames of both directions with the kernel's own times, so that a peer which is
late itself still knows when its segment went in and when the answer came out.
"""

import contextlib
import fcntl
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mpserve.testing.segment import BadFrame, Segment, arp_reply, arp_request, echo_request, parse_tcp

TESTED_IP, FIRST_PEER_IP = "10.77.0.2", "10.77.1.1"  # of 10.77.0.0/16
PEER_MAC = b"\x02\x00\x00\x00\x00\x01"
ANSWER_SECONDS = 20.0  # for a ping: then the tested side is dead
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 2, 0x1000
_ETH_P_ALL, _SO_TIMESTAMPNS, _SO_RCVBUFFORCE, _OUTGOING = 3, 35, 33, 4
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_BUFFER = 8 << 20


@dataclass
class Heard:
    """A frame that passed: the tested side's, or (`segment` None, not `bad`) one of the peer's own. `at` is its time in s."""

    at: float
    segment: Segment | None = None
    unfragmented: bool = True  # DF
    bad: str = ""


class Lane:
    """What passes between the tested side and one address: a list for each port there, and answers to pings.

    One condition a lane, so that a frame wakes nobody whom it is nothing to.
    """

    def __init__(self) -> None:
        self.passed = threading.Condition()
        self.inboxes: dict[int, list[Heard]] = {}
        self.pings = self.answered = 0

    def put(self, heard: Heard, port: int | None = None) -> None:
        """Give it to the flow of a port, or to all."""
        with self.passed:
            for inbox in self.inboxes.values() if port is None else [self.inboxes.get(port, [])]:
                inbox.append(heard)
            self.passed.notify_all()

    def answer(self, number: int) -> None:
        with self.passed:
            self.answered = max(self.answered, number)
            self.passed.notify_all()


@contextlib.contextmanager
def tap(name: str) -> Iterator[int]:
    """A tap whose frames this process sends and receives; its descriptor. The interface goes with it."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
        yield descriptor
    finally:
        os.close(descriptor)


def packet_socket(interface: str, protocol: int = 0) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol))
    sock.bind((interface, protocol))
    return sock


class Wire:
    """`transmit` puts a frame on the interface. `leaving`: the tested side's frames leave by it; otherwise they come in.

    `discard` is a descriptor that has to be read lest it fill up.
    """

    def __init__(self, interface: str, transmit: Callable[[bytes], object], leaving: bool, discard: int = -1) -> None:
        self.transmit, self._leaving, self._discard = transmit, leaving, discard
        self._lanes: dict[str, Lane] = {}
        self._found = threading.Event()
        self.mac = b""
        self._socket = packet_socket(interface, _ETH_P_ALL)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        self._stopping = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def close(self) -> None:
        self._stopping = True
        self._reader.join()
        self._socket.close()

    def check(self) -> None:
        """Every frame was read: the kernel dropped none for want of room."""
        dropped = struct.unpack("II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))[1]
        assert dropped == 0, f"{dropped} frames passed unseen"

    def lane(self, ip: str) -> Lane:
        return self._lanes.setdefault(ip, Lane())

    def find_tested(self) -> None:
        """Ask for the tested side's MAC until it answers."""
        until = time.monotonic() + ANSWER_SECONDS
        while not self._found.wait(0.1):
            assert time.monotonic() < until, "the tested side does not answer ARP"
            self.transmit(arp_request(PEER_MAC, FIRST_PEER_IP, TESTED_IP))

    def settle(self, ip: str) -> None:
        """Wait until the tested side has done all that it does at once: its answer to a second ping comes after it.

        It may answer a first one with the same burst of frames, and ahead of what it owes for those before.
        """
        lane = self.lane(ip)
        for _ in range(2):
            lane.pings += 1
            self.transmit(echo_request(ip, TESTED_IP, self.mac, PEER_MAC, struct.pack("!I", lane.pings)))
            with lane.passed:
                there = lane.passed.wait_for(lambda: lane.answered == lane.pings, ANSWER_SECONDS)
            assert there, f"the tested side does not answer a ping from {ip}"

    # -- the reader

    def _read(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if self._discard >= 0:
            poll.register(self._discard, select.POLLIN)
        while not self._stopping:
            for descriptor, _ in poll.poll(100):
                if descriptor == self._discard:
                    with contextlib.suppress(BlockingIOError):
                        os.read(descriptor, 65536)
                else:
                    self._read_one()

    def _read_one(self) -> None:
        frame, ancillary, _, sender = self._socket.recvmsg(65536, 64)
        seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
        if (sender[2] == _OUTGOING) == self._leaving:
            self._tested_sent(frame, seconds + nanoseconds / 1e9)
        elif frame[12:14] == b"\x08\x00" and frame[23] != 1:
            self.lane(dotted(frame[26:30])).put(Heard(seconds + nanoseconds / 1e9))

    def _tested_sent(self, frame: bytes, at: float) -> None:
        kind = frame[12:14]
        if kind == b"\x08\x06":
            self._arp(frame)
        elif kind == b"\x08\x00" and frame[23] == 1 and frame[34] == 0 and len(frame) >= 46:
            self.lane(dotted(frame[30:34])).answer(int.from_bytes(frame[42:46]))
        elif kind == b"\x08\x00" and frame[23] == 6:
            self._tcp(frame, at)

    def _arp(self, frame: bytes) -> None:
        target = dotted(frame[38:42])
        if frame[21] == 2 and dotted(frame[28:32]) == TESTED_IP:
            self.mac = frame[22:28]
            self._found.set()
        elif frame[21] == 1 and not target.startswith("10.77.0."):
            self.transmit(arp_reply(PEER_MAC, target, frame[22:28], TESTED_IP))

    def _tcp(self, frame: bytes, at: float) -> None:
        try:
            heard = Heard(at, parse_tcp(frame), bool(frame[20] & 0x40))
        except BadFrame as error:
            heard = Heard(at, bad=str(error))
        self.lane(dotted(frame[30:34])).put(heard, int.from_bytes(frame[36:38]))


def dotted(address: bytes) -> str:
    return ".".join(map(str, address))
