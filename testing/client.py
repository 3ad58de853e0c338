"""A TCP client in plain Python, the peer of a handler under test: small, patient, and sharing nothing with the stack.

It retransmits, keeps segments that come out of order, honours the stack's window and acknowledges at once.
"""

from __future__ import annotations

from collections.abc import Callable

from mpserve.testing.segment import Segment

MASK = 0xFFFFFFFF
RETRANSMIT_SECONDS = 0.25


def _ahead(a: int, b: int) -> int:
    """a - b, signed, modulo 2**32."""
    return ((a - b + 0x80000000) & MASK) - 0x80000000


class Client:
    """One connection to the host under test, or, given the `syn` of one, from it. `transmit` puts a segment on the wire."""

    def __init__(
        self,
        transmit: Callable[[Segment], None],
        *,
        local: tuple[str, int],
        remote: tuple[str, int],
        mss: int = 1460,
        window: int = 1 << 20,
        iss: int = 1000,
        syn: Segment | None = None,
    ) -> None:
        self._transmit, self.local, self.remote = transmit, local, remote
        self._mss, self._window, self._scale = mss, window, 7
        self._una = self._nxt = iss
        self._rcv_nxt = 0
        self._peer_window, self._peer_scale, self._peer_mss = 0, 0, mss
        self._unsent = bytearray()  # from _una on
        self._received = bytearray()
        self._early: dict[int, bytes] = {}
        self._fin_wanted = self._fin_sent = False
        self._sent_at = 0.0
        self._resend = False
        self.established = self.eof = self.was_reset = False
        self._peer_fin: int | None = None
        self._options = b"\x02\x04" + mss.to_bytes(2, "big") + b"\x01\x03\x03" + bytes([self._scale])
        if syn is not None:
            self._take_syn(syn)
        self._say_syn()
        self._nxt = (self._nxt + 1) & MASK

    # -- what a test does

    def send(self, data: bytes) -> None:
        """Send bytes; they leave as the stack's window and segment size allow."""
        self._unsent += data
        self._push()

    def recv(self) -> bytes:
        """Everything received since the last call."""
        data, self._received = bytes(self._received), bytearray()
        return data

    def close(self) -> None:
        """Send FIN after what was sent; receiving goes on."""
        self._fin_wanted = True
        self._push()

    def reset(self) -> None:
        """Send RST."""
        self._say("RA", self._nxt)
        self.was_reset = True

    @property
    def closed(self) -> bool:
        """Both FINs are sent and acknowledged, or a RST came."""
        return self.was_reset or (self.eof and self._fin_sent and self._una == self._nxt)

    # -- segments

    def _say(self, flags: str, seq: int, payload: bytes = b"", options: bytes = b"") -> None:
        window = self._window if "S" in flags else self._window >> self._scale
        self._transmit(
            Segment(
                self.local[1],
                self.remote[1],
                seq,
                self._rcv_nxt,
                flags,
                min(window, 0xFFFF),
                payload,
                options,
                self.local[0],
                self.remote[0],
            )
        )

    def _say_syn(self) -> None:
        self._say("SA" if self._rcv_nxt else "S", self._una, options=self._options)

    def _push(self) -> None:
        if not self.established or self.was_reset:
            return
        while True:
            offset = _ahead(self._nxt, self._una)
            room = min(self._peer_mss, max(self._peer_window, 0) - offset)
            part = bytes(self._unsent[offset : offset + max(room, 0)])
            if not part or self._fin_sent:
                break
            self._say("PA", self._nxt, part)
            self._nxt = (self._nxt + len(part)) & MASK
        if self._fin_wanted and not self._fin_sent and _ahead(self._nxt, self._una) == len(self._unsent):
            self._say("FA", self._nxt)
            self._nxt = (self._nxt + 1) & MASK
            self._fin_sent = True

    def arrives(self, segment: Segment, now: float) -> None:
        """A segment from the host."""
        if self.was_reset:
            return
        if "R" in segment.flags:
            self._reset_arrives(segment)
            return
        if "S" in segment.flags:
            self._synchronize(segment)
        elif not self.established and self._rcv_nxt:
            self.established = segment.ack == self._nxt
            self._una = self._nxt
        if not self.established:
            return
        self._acknowledged(segment, now)
        if segment.payload or "F" in segment.flags:
            self._take(segment)
            self._say("A", self._nxt)
        self._push()

    def _reset_arrives(self, segment: Segment) -> None:
        """RFC 5961 section 3.2: it counts at rcv_nxt, gets a challenge elsewhere in the window, and is nothing beyond it.

        Before the host's SYN, one that acknowledges ours is a refusal (RFC 9293 section 3.10.7.3).
        """
        if not self._rcv_nxt:
            self.was_reset = "A" in segment.flags and segment.ack == self._nxt
        elif segment.seq == self._rcv_nxt:
            self.was_reset = True
        elif 0 < _ahead(segment.seq, self._rcv_nxt) < self._window:
            self._say("A", self._nxt)

    def _synchronize(self, segment: Segment) -> None:
        if self.established:
            self._say("A", self._nxt)
        elif "A" in segment.flags:
            self._take_syn(segment)
            self._una = segment.ack
            self.established = True
            self._say("A", self._nxt)
        else:
            self._say_syn()

    def _take_syn(self, segment: Segment) -> None:
        self._rcv_nxt = (segment.seq + 1) & MASK
        scale = segment.window_scale()
        self._peer_scale = scale or 0
        if scale is None:
            self._scale = 0
        self._peer_mss = min(segment.mss() or 536, self._mss)
        self._peer_window = segment.window

    def _acknowledged(self, segment: Segment, now: float) -> None:
        acked = _ahead(segment.ack, self._una)
        if 0 < acked <= _ahead(self._nxt, self._una):
            del self._unsent[:acked]
            self._una = segment.ack
            self._sent_at = now
        if "S" not in segment.flags and acked >= 0:
            self._peer_window = segment.window << self._peer_scale

    def _take(self, segment: Segment) -> None:
        if "F" in segment.flags:
            self._peer_fin = (segment.seq + len(segment.payload)) & MASK
        self._early[segment.seq] = max(self._early.get(segment.seq, b""), segment.payload, key=len)
        moved = True
        while moved:
            moved = False
            for seq, data in sorted(self._early.items(), key=lambda item: _ahead(item[0], self._rcv_nxt)):
                skip = _ahead(self._rcv_nxt, seq)
                if skip >= 0:
                    del self._early[seq]
                    if skip < len(data):
                        self._received += data[skip:]
                        self._rcv_nxt = (self._rcv_nxt + len(data) - skip) & MASK
                        moved = True
        if self._peer_fin == self._rcv_nxt and not self.eof:
            self.eof = True
            self._rcv_nxt = (self._rcv_nxt + 1) & MASK

    def tick(self, now: float) -> None:
        """Let time pass: send again what has not been acknowledged for a while."""
        if self.was_reset or now - self._sent_at < RETRANSMIT_SECONDS:
            return
        self._sent_at = now
        if not self.established:
            self._say_syn()
        elif self._unsent and (self._nxt != self._una or self._peer_window == 0):
            size = self._peer_mss if self._peer_window else 1
            self._say("PA", self._una, bytes(self._unsent[:size]))
            if self._nxt == self._una:
                self._nxt = (self._una + 1) & MASK
        elif self._fin_sent and self._nxt != self._una:
            self._say("FA", (self._nxt - 1) & MASK)
