"""What comes to a stack: data in and out of order, out of the window, twice, old, damaged, in pieces, with odd flags."""

import socket

from raw_peer import DELAYED, PLAIN, RTT, SACK_OK, SCALE, RawPeer, mss
from script import script
from wire import PEER_MAC, TESTED_IP

from mpserve.testing.segment import ethernet_frame, ipv4_packet

TCP = socket.IPPROTO_TCP
STAMPED = mss(1460) + SACK_OK + SCALE


@script
def first_small_segments(peer: RawPeer) -> None:
    """The first segments of a connection, small ones with PSH."""
    peer.establish(quick=None)
    peer.send("PA", data=100, wait=DELAYED)
    peer.send("PA", data=100, wait=DELAYED)


@script
def delayed_ack(peer: RawPeer) -> None:
    """A lone segment's ACK is put off, but not for long."""
    peer.establish(quick=False)
    peer.send("PA", data=100, wait=DELAYED)


@script
def second_segment(peer: RawPeer) -> None:
    """The second full segment is acknowledged at once."""
    peer.establish(quick=False)
    peer.burst("two full segments", peer.segment("PA", data=1460), peer.segment("PA", data=1460))


@script
def full_segment_without_push(peer: RawPeer) -> None:
    """A lone full segment that does not say that it is the last for now."""
    peer.establish(quick=False)
    peer.send("A", data=1460, wait=DELAYED)


@script
def ack_of_a_fin(peer: RawPeer) -> None:
    """The ACK of a FIN, where the application does nothing."""
    peer.establish()
    peer.send("PA", data=100)
    peer.send("FA", wait=DELAYED)


@script
def read_of_much(peer: RawPeer) -> None:
    """The application reads several segments at once: whether the window's growth is told."""
    peer.establish()
    for _ in range(4):
        peer.send("PA", data=1460)
    peer.app.read(4 * 1460)


@script
def quick_ack(peer: RawPeer) -> None:
    """With TCP_QUICKACK each segment is acknowledged at once."""
    peer.establish()
    for _ in range(3):
        peer.send("PA", data=100)
    peer.app.read(300)


@script
def duplicates(peer: RawPeer) -> None:
    """A segment that has come before, whole or in part: an ACK, with D-SACK."""
    peer.establish()
    peer.send("PA", data=1000)
    peer.send("PA", seq=1, data=1000)
    peer.send("PA", seq=501, data=1000)
    peer.send("PA", seq=401, data=200)
    peer.app.read(1500)


@script
def duplicates_without_sack(peer: RawPeer) -> None:
    """The same without SACK."""
    peer.establish(PLAIN)
    peer.send("PA", data=1000)
    peer.send("PA", seq=1, data=1000)
    peer.send("PA", seq=501, data=1000)
    peer.app.read(1500)


@script
def out_of_order(peer: RawPeer) -> None:
    """Gaps are reported by SACK, the newest block first, four at most; filling them takes blocks away."""
    peer.establish()
    for start in (101, 201, 301, 401, 501):
        peer.send("A", seq=start, data=50)
    peer.send("A", seq=251, data=50)
    peer.send("A", seq=1, data=100)
    for start in (151, 351, 451):
        peer.send("A", seq=start, data=50)
    peer.app.read(550)


@script
def out_of_order_without_sack(peer: RawPeer) -> None:
    """Each segment behind a gap gets a duplicate ACK at once."""
    peer.establish(PLAIN)
    for start in (101, 151, 201):
        peer.send("A", seq=start, data=50)
    peer.send("A", seq=1, data=100)
    peer.app.read(250)


@script
def out_of_order_with_timestamps(peer: RawPeer) -> None:
    """With timestamps three blocks fit; what is echoed is the timestamp of the last segment in order."""
    peer.establish(STAMPED, ts=1)
    for number, start in enumerate((101, 201, 301, 401)):
        peer.send("A", seq=start, data=50, ts=10 + number)
    peer.send("A", seq=1, data=100, ts=20)
    peer.send("A", seq=151, data=50, ts=21)


@script
def duplicates_out_of_order(peer: RawPeer) -> None:
    """What is kept behind a gap comes again, whole, in part, and with more."""
    peer.establish()
    peer.send("A", seq=1001, data=1000)
    peer.send("A", seq=1001, data=1000)
    peer.send("A", seq=1201, data=100)
    peer.send("A", seq=1501, data=1000)
    peer.send("A", seq=501, data=1000)
    peer.send("A", seq=1, data=1400)


@script
def overlap_that_disagrees(peer: RawPeer) -> None:
    """Two segments behind a gap claim other bytes for the same place."""
    peer.establish()
    peer.send("A", seq=101, data=100)
    peer.send("A", seq=151, data=b"x" * 100)
    peer.send("A", seq=1, data=100)
    peer.app.read(250)


@script
def behind_the_window(peer: RawPeer) -> None:
    """Data and a FIN beyond what was offered: an ACK, and nothing is kept."""
    peer.establish(PLAIN)
    peer.send("PA", seq=1_000_000, data=100)
    peer.send("FA", seq=1_000_000)
    peer.send("A", seq=1_000_000)
    peer.send("A", seq=1, data=10)
    peer.app.read(10)


@script
def before_the_window(peer: RawPeer) -> None:
    """Empty segments and FINs below rcv_nxt: a keepalive probe among them."""
    peer.establish()
    peer.send("PA", data=100)
    peer.send("A", seq=100)
    peer.send("A", seq=1)
    peer.send("A", seq=100, data=1)
    peer.send("FA", seq=50)
    peer.send("F", seq=101)
    peer.app.read(100)


@script
def window_closes_and_opens(peer: RawPeer) -> None:
    """The application does not read: the window closes, probes are answered; it reads, and the window opens."""
    peer.establish(PLAIN)
    peer.fill_window()
    peer.send("A", seq=1, data=1)
    peer.send("A", seq=0)
    peer.app.read_what_has_come()
    peer.send("A", seq=1, data=10, patient=True)


@script
def urgent_data(peer: RawPeer) -> None:
    """An urgent pointer: the byte before it is, or is not, in the stream."""
    peer.establish()
    peer.send("PUA", data=10, urgent=10)
    peer.send("PA", data=10)
    peer.app.read(20, seconds=0.5)


@script
def old_timestamps(peer: RawPeer) -> None:
    """PAWS: an older timestamp gets an ACK and its data is dropped; a RST passes."""
    peer.establish(STAMPED, ts=100)
    peer.send("PA", data=10, ts=110)
    peer.send("PA", seq=11, data=10, ts=90)
    peer.send("A", seq=11, ts=90)
    peer.send("PA", seq=11, data=10, ts=110)
    peer.app.read(20)
    peer.send("R", seq=21, ts=50)
    peer.send("PA", seq=21, data=10, ts=120)


@script
def timestamps_left_out(peer: RawPeer) -> None:
    """Once timestamps are agreed on, a segment comes without."""
    peer.establish(STAMPED, ts=100)
    peer.send("PA", data=10, ts=-1)
    peer.send("PA", seq=1, data=10, ts=101)
    peer.send("R", ts=-1)


@script
def timestamps_not_asked_for(peer: RawPeer) -> None:
    """A segment with timestamps where none were agreed on."""
    peer.establish()
    peer.send("PA", data=10, ts=101)
    peer.app.read(10)


@script
def timestamps_that_are_echoed(peer: RawPeer) -> None:
    """Which timestamp is echoed where ACKs are put off: the earliest that is unacknowledged."""
    peer.establish(STAMPED, ts=1, rtt=RTT, quick=False)
    peer.burst("two segments", peer.segment("PA", data=10, ts=10), peer.segment("PA", data=10, ts=11))
    peer.until(1)


@script
def acks_of_what_was_not_sent(peer: RawPeer) -> None:
    """ACKs beyond snd_nxt, alone and with data."""
    peer.establish(rtt=RTT)
    peer.app.write(100)
    peer.send("A", ack=102)
    peer.send("A", ack=500_000)
    peer.send("PA", ack=102, data=10)
    peer.send("PA", seq=1, ack=101, data=10)
    peer.app.read(10)


@script
def old_acks(peer: RawPeer) -> None:
    """ACKs below snd_una, alone and with data; one so old that no window ever held it."""
    peer.establish(rtt=RTT)
    peer.app.write(100)
    peer.send("A")
    peer.send("A", ack=51)
    peer.send("PA", ack=51, data=10)
    peer.send("A", ack=101 - 70_000 & 0xFFFFFFFF, what="A of 70000 bytes ago")


@script
def data_with_an_ack_too_old(peer: RawPeer) -> None:
    """Data comes with an ACK that no window ever held: whoever sends that does not know the connection."""
    peer.establish(rtt=RTT)
    peer.app.write(100)
    peer.send("A")
    peer.send("PA", data=10)
    peer.send("PA", data=10)
    peer.send("PA", ack=101 - 1_000_000_000 & 0xFFFFFFFF, data=10, what="PA of 1000 million bytes ago")
    peer.app.read(30, seconds=0.3)


@script
def bad_checksum(peer: RawPeer) -> None:
    """A damaged segment is dropped without a word."""
    peer.establish()
    peer.send("PA", seq=1, data=10, checksum=0x1234)
    peer.send("PA", seq=1, data=10)
    peer.app.read(10)


@script
def fragments(peer: RawPeer) -> None:
    """A segment in two IP fragments, in either order."""
    peer.establish()
    for first_is_last in (False, True):
        payload = peer.segment("PA", data=1000).packed()
        pieces = [
            ipv4_packet(peer.ip, TESTED_IP, 6, payload[:800], fragment=0x2000, identification=peer.snd_nxt),
            ipv4_packet(peer.ip, TESTED_IP, 6, payload[800:], fragment=100, identification=peer.snd_nxt),
        ]
        pieces = pieces[::-1] if first_is_last else pieces
        for number, piece in enumerate(pieces):
            frame = ethernet_frame(peer.wire.mac, PEER_MAC, 0x0800, piece)
            peer.frames(f"fragment {number + 1} of 2" + (", in reverse" if first_is_last else ""), frame)
    peer.app.read(2000)


@script
def ip_options(peer: RawPeer) -> None:
    """A segment behind IP options: NOPs, a router alert, a source route."""
    peer.establish()
    for name, options in (
        ("nops", b"\1\1\1\0"),
        ("router alert", b"\x94\4\0\0"),
        ("source route", b"\x83\7\4\x0a\x4d\1\1\0"),
    ):
        peer.packet(f"PA with {name}", 6, peer.segment("PA", data=10).packed(), options=options)
    peer.app.read(20)


@script
def frame_longer_than_the_packet(peer: RawPeer) -> None:
    """Padding behind the IP packet is no data."""
    peer.establish()
    frame = peer.segment("PA", data=1).frame(peer.wire.mac, PEER_MAC)
    peer.frames("PA 1:2 with padding", frame + b"padding")
    peer.app.read(1)


@script
def reserved_bits(peer: RawPeer) -> None:
    """Bits of the header that mean nothing here are ignored: congestion bits, and data behind unknown options."""
    peer.establish()
    peer.send("PAEC", data=10)
    peer.send("PA", data=10, options=b"\xfd\x08abcdef")
    peer.send("PA", data=10, options=b"\x00\x01\x02\x03")
    peer.app.read(30)


@script
def data_without_push(peer: RawPeer) -> None:
    """PSH changes nothing about what the application gets."""
    peer.establish()
    peer.send("A", data=10)
    peer.app.read(10)
