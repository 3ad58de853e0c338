"""How connections begin: the listener's side of handshakes, and what no handshake is."""

import itertools

from raw_peer import FULL, PLAIN, RTT, SACK_OK, SCALE, UNKNOWN, RawPeer, mss
from script import script

OPTIONS = {"mss": mss(1000), "scale": SCALE, "sack": SACK_OK, "unknown": UNKNOWN}


@script
def handshake_options(peer: RawPeer) -> None:
    """Every set of options in the SYN: what the SYN-ACK and a data segment carry."""
    chosen = list(itertools.product((False, True), repeat=5))
    for first in range(0, len(chosen), 4):
        flows = [peer.another(41_000 + number) for number in range(first, first + 4)]
        for flow, on in zip(flows, chosen[first:], strict=False):
            flow.ts = 5 if on[4] else None
            flow.send("S", options=b"".join(itertools.compress(OPTIONS.values(), on)))
        peer.pause(RTT)
        for flow in flows:
            flow.send("A")
            flow.app.accepted()
            flow.app.write(1200)
            flow.send("R")


@script
def mss_out_of_bounds(peer: RawPeer) -> None:
    """MSS options that are too small to be useful, or larger than the link."""
    for number, size in enumerate((0, 1, 40, 64, 88, 536, 9000)):
        flow = peer.another(41_000 + number)
        flow.establish(mss(size), rtt=RTT)
        flow.app.write(400)
        flow.send("R")


@script
def options_that_lie(peer: RawPeer) -> None:
    """Options in a SYN whose length can't be."""
    lies = {
        "no length": b"\xfd\x00",
        "a length beyond the header": b"\xfd\x28",
        "an MSS of three bytes": b"\x02\x03\x05",
    }
    for number, (name, options) in enumerate(lies.items()):
        flow = peer.another(41_000 + number)
        flow.send("S", options=options, what=f"S, an option with {name}")
        flow.send("R", seq=1)


@script
def syn_twice(peer: RawPeer) -> None:
    """The same SYN again gets the same SYN-ACK."""
    peer.send("S", seq=0, options=FULL)
    peer.send("S", seq=0, options=FULL)
    peer.send("A")


@script
def syn_of_another_isn(peer: RawPeer) -> None:
    """In SYN_RECEIVED comes a SYN with another sequence number."""
    peer.send("S", seq=0, options=FULL)
    peer.send("S", seq=5000, options=FULL)


@script
def syn_ack_not_answered(peer: RawPeer) -> None:
    """The SYN-ACK is sent again with growing waits; then the handshake goes on."""
    peer.send("S", options=FULL)
    peer.until(1)
    peer.until(1)
    peer.send("A")
    peer.accepted()
    peer.send("PA", data=10)


@script
def syn_with_data(peer: RawPeer) -> None:
    """Data in a SYN without fast open, and again behind the handshake."""
    peer.send("S", data=100, options=FULL)
    peer.send("PA", seq=1, data=100, patient=True)
    peer.app.read(100)


@script
def odd_flags_to_a_listener(peer: RawPeer) -> None:
    """Flags that begin no connection, and some that do for a lenient listener."""
    for number, flags in enumerate(
        ("", "F", "P", "U", "R", "RA", "FA", "SA", "SF", "SR", "SFRPAU", "SP", "SU", "SFA", "FPU")
    ):
        peer.another(41_000 + number).send(flags, ack=5000, what=f"{flags or 'no flags'}")


@script
def ack_to_a_listener(peer: RawPeer) -> None:
    """An ACK of a SYN-ACK that was never sent, alone, with data, and with FIN."""
    peer.send("A", seq=100, ack=5000)
    peer.send("PA", seq=100, ack=5000, data=10)
    peer.send("FA", seq=100, ack=5000)


@script
def last_ack_is_wrong(peer: RawPeer) -> None:
    """SYN_RECEIVED: ACKs of what was not sent; then the right one."""
    peer.send("S", options=FULL)
    peer.pause(RTT)
    peer.send("A", ack=0)
    peer.send("A", ack=2)
    peer.send("A", ack=1)
    peer.accepted()
    peer.app.write(10)


@script
def last_ack_out_of_window(peer: RawPeer) -> None:
    """SYN_RECEIVED: the ACK is right, the sequence number isn't."""
    peer.send("S", options=FULL)
    peer.pause(RTT)
    peer.send("A", seq=0)
    peer.send("A", seq=200_000)
    peer.send("A", seq=1)
    peer.accepted()
    peer.app.write(10)


@script
def data_with_the_last_ack(peer: RawPeer) -> None:
    """Data and FIN come with the ACK that completes the handshake."""
    peer.send("S", options=FULL)
    peer.send("FPA", data=50, patient=True)
    peer.accepted()
    peer.app.read(50)
    peer.app.read(0)


@script
def segment_without_ack_in_syn_received(peer: RawPeer) -> None:
    """No ACK flag: the segment is dropped in SYN_RECEIVED and after."""
    peer.send("S", options=FULL)
    peer.send("P", seq=1, data=10)
    peer.send("F", seq=1)
    peer.send("A", seq=1)
    peer.accepted()
    peer.send("P", seq=1, data=10)
    peer.send("PA", seq=1, data=20)
    peer.app.read(20)


@script
def rst_in_syn_received(peer: RawPeer) -> None:
    """RSTs before, behind and at rcv_nxt in SYN_RECEIVED; the last one ends it."""
    peer.send("S", options=FULL)
    peer.send("R", seq=0)
    peer.send("R", seq=100)
    peer.send("R", seq=200_000)
    peer.send("R", seq=1)
    peer.send("A", seq=1)


@script
def first_ack_was_lost(peer: RawPeer) -> None:
    """Data comes first, its ACK flag completes the handshake; out of order data too."""
    peer.send("S", options=FULL)
    peer.send("PA", seq=101, data=100)
    peer.send("PA", seq=1, data=100)
    peer.accepted()
    peer.app.read(200)


@script
def syn_with_ecn(peer: RawPeer) -> None:
    """A SYN that offers explicit congestion notification; a segment that says congestion was met."""
    peer.send("SEC", options=FULL)
    peer.send("A")
    peer.accepted()
    peer.packet("PA 1:11, congestion experienced", 6, peer.segment("PA", data=10).packed(), tos=3)


@script
def closed_port(peer: RawPeer) -> None:
    """Everything that may come to a port where nobody listens."""
    for number, flags in enumerate(("S", "A", "F", "FA", "P", "PA", "R", "RA", "SA", "", "SF", "FPU")):
        flow = peer.another(41_000 + number)
        flow.tested_port = 9
        flow.send(flags, seq=100, ack=5000, data=10 if "P" in flags else 0, what=flags or "no flags")
    peer.tested_port = 9
    peer.send("S", seq=100, data=10, options=FULL, ts=5)


@script
def syn_in_established(peer: RawPeer) -> None:
    """SYNs in, before and behind the window, with and without ACK; the connection lives on."""
    peer.establish(rtt=RTT)
    peer.send("S", seq=0, options=FULL)
    peer.send("S", seq=1)
    peer.send("S", seq=500)
    peer.send("S", seq=2_000_000)
    peer.send("SA", seq=0)
    peer.send("SA", seq=1)
    peer.app.write(10)


@script
def window_scale_of_15(peer: RawPeer) -> None:
    """A shift count above 14 counts as 14: three bytes of window are three times 16384."""
    peer.send("S", options=mss(1460) + b"\x01\x03\x03\x0f")
    peer.pause(RTT)
    peer.send("A", window=3)
    peer.accepted()
    peer.app.write(1460 * 11)


@script
def plain_handshake_then_silence(peer: RawPeer) -> None:
    """Nothing is sent on a connection on which nothing happens."""
    peer.establish(PLAIN)
    peer.silence(2.0)
