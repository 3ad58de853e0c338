"""A scripted peer: sends the segments that it is told to, and writes down what comes, when, and after what.

    peer.establish()
    peer.send("PA", data=100)       # a step: the segment, and all that the tested side does at once
    peer.until(1)                   # a step: what comes later, one segment of it
    peer.app.write(1000)            # a step of the application on the tested side

Sequence numbers are relative, as in `tests/peer.py`; what isn't given is what a peer in good order would send.
"""

import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from application import App
from sides import PORT, Side
from view import MASK, Origins, View, describe, octets
from wire import PEER_MAC, TESTED_IP, Heard

from mpserve.testing.segment import Segment, ethernet_frame, icmp_message, ipv4_packet

TS_ORIGIN = 70_000  # of the peer's timestamps
PATIENCE = 20.0  # seconds within which what must come comes
RTT = 0.4  # seconds that a script takes for a handshake so that nothing is sent again while it works
DELAYED = 1.2  # an ACK that comes within so many seconds was put off, by 40 ms or 400
TOGETHER = 0.02  # what comes in so many seconds belongs together
GROWTH = 1.4  # a gap so many times the one before has grown


def mss(value: int) -> bytes:
    return struct.pack("!BBH", 2, 4, value)


SACK_OK, SCALE, UNKNOWN = b"\x01\x01\x04\x02", b"\x01\x03\x03\x07", b"\xfd\x04\x12\x34"
PLAIN = mss(1460)
FULL = mss(1460) + SACK_OK + SCALE


class RawPeer:
    """One flow to the tested side, from an address of the script's own."""

    def __init__(self, side: Side, ip: str, view: View, port: int = 40_000, iss: int = 0xFFFF_F000) -> None:
        self.side, self.wire, self.ip, self.view = side, side.wire, ip, view
        self.port, self.tested_port, self.iss, self.tested_iss = port, PORT, iss, 0
        self.snd_nxt = self.rcv_nxt = 0  # relative
        self.place = 0  # of the stream, where the sequence number is 0
        self.window = 65535
        self.ts: int | None = None  # the next timestamp, relative; None: no option
        self.tested_ts = 0
        self.acked, self.edge, self._scale = (
            0,
            0,
            0,
        )  # what the tested side has acknowledged, and how far its window goes
        self.app = App(self)
        self._gap = self._last = 0.0
        self._waits = False  # in a step that does nothing
        self._acked_before = 0
        self._inbox: list[Heard] = []
        self._lane = side.wire.lane(ip)
        self._lane.inboxes[port] = self._inbox

    def another(self, port: int, iss: int = 0xFFFF_F000) -> "RawPeer":
        """Another flow from the same address, its steps in the same view."""
        return RawPeer(self.side, self.ip, self.view, port, iss)

    # -- segments

    def segment(self, flags: str, **fields: Any) -> Segment:
        """A segment of this flow with relative numbers; the next ones by default. `data` is bytes, or how many of the stream."""
        seq = fields.pop("seq", None)
        seq = self.snd_nxt if seq is None else seq
        ack = fields.pop("ack", None)
        ack = self.rcv_nxt if ack is None else ack
        data = fields.pop("data", b"")
        payload = octets(self.place + seq + ("S" in flags), data) if isinstance(data, int) else data
        options = fields.pop("options", b"") + self._timestamps(fields.pop("ts", self.ts))
        self.snd_nxt = max(self.snd_nxt, seq + len(payload) + ("S" in flags) + ("F" in flags))
        acknowledged = self.tested_iss + ack if "A" in flags else 0
        fields.setdefault("window", self.window)
        return Segment(
            self.port, self.tested_port, self.iss + seq, acknowledged, flags, payload=payload, options=options,
            source=self.ip, destination=TESTED_IP, **fields,
        )  # fmt: skip

    def _timestamps(self, ts: int | None) -> bytes:
        if ts is None or ts < 0:
            return b""
        return b"\x01\x01\x08\x0a" + struct.pack("!II", (TS_ORIGIN + ts) & MASK, self.tested_ts)

    def sack(self, *edges: int) -> bytes:
        """A SACK option of these relative edges."""
        words = struct.pack(f"!{len(edges)}I", *((self.tested_iss + edge) & MASK for edge in edges))
        return b"\x01\x01\x05" + bytes([2 + len(words)]) + words

    def said(self, segment: Segment) -> str:
        return describe(segment, Origins(self.iss, self.tested_iss, self.tested_ts))

    # -- steps

    def send(
        self,
        flags: str = "A",
        *,
        checksum: int | None = None,
        what: str = "",
        patient: bool = False,
        wait: float = 0.0,
        **fields: Any,
    ) -> None:
        """A segment, and what comes of it at once.

        `patient`: an ACK that is put off is as good, and is not called so; `wait`: and all that comes in so many seconds.
        """
        segment = self.segment(flags, **fields)
        packet = ipv4_packet(self.ip, TESTED_IP, 6, segment.packed(checksum))
        frame = ethernet_frame(self.wire.mac, PEER_MAC, 0x0800, packet)
        self.step(what or self.said(segment), lambda: self.wire.transmit(frame), patient=patient, wait=wait)

    def burst(self, what: str, *segments: Segment) -> None:
        """Several segments, one behind the other, and what comes of them."""
        self.frames(what, *[segment.frame(self.wire.mac, PEER_MAC) for segment in segments])

    def frames(self, what: str, *frames: bytes) -> None:
        """Any frames, and what comes of them."""
        self.step(what, lambda: [self.wire.transmit(frame) for frame in frames])

    def packet(self, what: str, protocol: int, payload: bytes, **fields: Any) -> None:
        """An IP packet of any kind."""
        packet = ipv4_packet(self.ip, TESTED_IP, protocol, payload, **fields)
        self.frames(what, ethernet_frame(self.wire.mac, PEER_MAC, 0x0800, packet))

    def icmp(self, what: str, kind: int, code: int, rest: bytes = bytes(4), seq: int = 1, **fields: Any) -> None:
        """An ICMP error about a segment of the tested side that begins at `seq`."""
        quoted = Segment(
            self.tested_port, self.port, self.tested_iss + seq, self.iss, "A", source=TESTED_IP, destination=self.ip
        )
        quote = ipv4_packet(TESTED_IP, self.ip, 6, quoted.packed() + bytes(fields.get("length", 1460)))
        self.packet(what, 1, icmp_message(kind, code, rest, quote[:28]))

    def step(
        self, what: str, act: Callable[[], object], timed: bool = True, patient: bool = False, wait: float = 0.0
    ) -> None:
        """Do something; everything that comes of it at once is written down. Not `timed`: without regard for when."""
        self._take()
        self.view.begin(what)
        self._gap = 0.0
        act()
        self.wire.settle(self.ip)
        if patient:
            self.await_segment(DELAYED)
        if wait > 0:
            time.sleep(wait)
        if patient or wait > 0:
            self.wire.settle(self.ip)
        self._take(timed and not patient)

    def until(self, count: int, most: float = PATIENCE) -> None:
        """Wait for so many segments, `most` seconds at most, and write down what has come."""
        self._take()
        self.view.begin(f"waits for {count}" if most == PATIENCE else f"waits {most:g} s")
        self._waits = True
        self.await_segment(most, count)
        self.wire.settle(self.ip)
        self._take()
        self._waits = False

    def await_segment(self, most: float = PATIENCE, count: int = 1) -> None:
        """Wait until something has come that is not yet written down, or so many seconds."""
        with self._lane.passed:
            self._lane.passed.wait_for(lambda: sum(h.segment is not None for h in self._inbox) >= count, most)

    def silence(self, seconds: float) -> None:
        """Write down what comes in so many seconds."""
        self.until(1 << 30, seconds)

    def pause(self, seconds: float) -> None:
        """Be slow: no step, and nothing is expected to come."""
        time.sleep(seconds)

    def _take(self, timed: bool = True) -> None:
        """Write down what has come since the last time."""
        with self._lane.passed:
            heard = list(self._inbox)
            self._inbox.clear()
        for one in heard:
            if one.bad:
                self.view.saw(one.bad)
            elif one.segment is not None:
                self._saw(one, one.segment, timed)
            self._last = one.at

    def _saw(self, heard: Heard, segment: Segment, timed: bool) -> None:
        if "S" in segment.flags:
            self.tested_port = segment.sport
            self.tested_iss = segment.seq
        stamps = segment.option(8)
        if stamps:
            self.tested_ts = int.from_bytes(stamps[:4])
        self._note_window(segment)
        start = (segment.seq - self.tested_iss) & MASK
        if start + len(segment.payload) < self.app.written or not segment.payload:
            segment.flags = segment.flags.replace("P", "")  # a sender may push where it likes; at the end it must
        line = describe(segment, Origins(self.tested_iss, self.iss, TS_ORIGIN))
        if segment.payload and segment.payload != octets(start, len(segment.payload)):
            line += " wrong bytes"
        if not heard.unfragmented:
            line += " no DF"
        self.view.saw(line + (self._timing(heard, segment) if timed else ""))
        length = len(segment.payload) + ("S" in segment.flags) + ("F" in segment.flags)
        if start <= self.rcv_nxt < start + length:
            self.rcv_nxt = start + length

    def _note_window(self, segment: Segment) -> None:
        self._acked_before = self.acked
        if "A" in segment.flags and "R" not in segment.flags:
            self.acked = (segment.ack - self.iss) & MASK
            self.edge = self.acked + (segment.window << self._scale)
        if "S" in segment.flags:
            self._scale = segment.window_scale() or 0  # from the next segment on

    def _timing(self, heard: Heard, segment: Segment) -> str:
        """In classes that lie far apart: at once, delayed as an ACK may be, late, later than the time before.

        In a step that waits nothing is at once, but together with what came before.
        """
        gap = heard.at - self._last
        if gap < (TOGETHER if self._waits else self.side.at_once):
            return ""
        is_news = segment.flags == "A" and not segment.payload and self.acked != self._acked_before
        if is_news and gap < DELAYED:
            return ", delayed"
        grown = self._gap > 0 and gap > GROWTH * self._gap
        self._gap = gap
        return ", later" if grown else ", late"

    # -- roads

    def establish(
        self,
        options: bytes = FULL,
        *,
        rtt: float = 0.0,
        ts: int | None = None,
        quick: bool | None = True,
        **fields: Any,
    ) -> "RawPeer":
        """A handshake, no step of the view. With `rtt` the last ACK takes so long, and the tested side's timers follow.

        `quick` is TCP_QUICKACK of the tested side: Linux acknowledges the first segments of a connection at once without.
        """
        self.ts = ts
        self.quietly("S", options=options, ack=0)
        assert self.rcv_nxt == 1, f"no SYN-ACK: {self.view.text()}"
        time.sleep(rtt)
        self.quietly("A", **fields)
        self.accepted(quick)
        return self

    def accepted(self, quick: bool | None = True) -> None:
        """Wait until the application has the connection, and set TCP_QUICKACK; no step of the view."""
        self.app.accepted()
        if quick is not None:
            self.app.set(socket.IPPROTO_TCP, socket.TCP_QUICKACK, int(quick))

    def fill_window(self) -> None:
        """A step: data until the tested side's window is closed. Sequence numbers count anew from there, as after a SYN."""
        self.view.begin("data until the window is closed")
        while self.edge > self.snd_nxt:
            self.quietly("A", data=min(1460, self.edge - self.snd_nxt), patient=True)
        self.view.saw("closed" if self.edge == self.acked == self.snd_nxt else "not closed")
        moved = self.acked - 1
        self.iss, self.place = self.iss + moved, self.place + moved
        self.snd_nxt, self.acked, self.edge = self.snd_nxt - moved, self.acked - moved, self.edge - moved

    def keep_alive(self, *, idle: int, interval: int, count: int) -> None:
        """Have the tested side ask for signs of life, after so many seconds each; no step of the view."""
        self.app.set(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
        self.app.set(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
        self.app.set(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, count)
        self.app.set(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def quietly(self, flags: str, **fields: Any) -> list[str]:
        """A segment that is no step of the view; what came of it."""
        view, self.view = self.view, View()
        self.send(flags, **fields)
        view, self.view = self.view, view
        return view.steps[-1].seen
