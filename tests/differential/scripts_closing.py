"""How connections end: FINs in every order, half-closes, closes with something left, TIME_WAIT and what comes to it."""

import socket
import struct

from raw_peer import FULL, PLAIN, RTT, SACK_OK, SCALE, RawPeer, mss
from script import script

STAMPED = mss(1460) + SACK_OK + SCALE


@script
def close_by_the_application(peer: RawPeer) -> None:
    """FIN, ACK, FIN, ACK."""
    peer.establish()
    peer.app.close()
    peer.send("A")
    peer.send("FA")


@script
def close_by_the_peer(peer: RawPeer) -> None:
    """The peer's FIN first; the application sees the end and closes."""
    peer.establish()
    peer.send("FA", patient=True)
    peer.app.read(0)
    peer.app.close()
    peer.send("A")
    peer.send("A")


@script
def fin_with_data(peer: RawPeer) -> None:
    """Data and FIN in one segment, both ways."""
    peer.establish(rtt=RTT)
    peer.send("FPA", data=100, patient=True)
    peer.app.read(100)
    peer.app.read(0)
    peer.app.write(100)
    peer.app.close()
    peer.send("A")


@script
def fin_and_its_ack(peer: RawPeer) -> None:
    """The peer's FIN acknowledges ours."""
    peer.establish()
    peer.app.close()
    peer.send("FA")


@script
def half_close_by_the_peer(peer: RawPeer) -> None:
    """After the peer's FIN the application still writes."""
    peer.establish(rtt=RTT)
    peer.send("FA", patient=True)
    peer.app.write(1000)
    peer.send("A")
    peer.app.write(1000)
    peer.app.close()
    peer.send("A")


@script
def half_close_by_the_application(peer: RawPeer) -> None:
    """After shutdown the peer still sends, and the application reads it."""
    peer.establish()
    peer.app.shutdown()
    peer.send("A")
    peer.send("PA", data=100)
    peer.app.read(100)
    peer.send("PA", data=100)
    peer.app.read(100)
    peer.send("FA")
    peer.app.read(0)


@script
def simultaneous_close(peer: RawPeer) -> None:
    """FINs cross, then ACKs."""
    peer.establish()
    peer.app.shutdown()
    peer.send("FA", ack=1)
    peer.send("A", ack=2)
    peer.send("FA", seq=1, ack=2)


@script
def simultaneous_close_with_data(peer: RawPeer) -> None:
    """Data and FINs cross."""
    peer.establish(rtt=RTT)
    peer.app.write(100)
    peer.app.shutdown()
    peer.send("FPA", ack=1, data=50)
    peer.app.read(50)
    peer.send("A", ack=102)


@script
def fin_twice(peer: RawPeer) -> None:
    """The peer's FIN again, in CLOSE_WAIT and in LAST_ACK."""
    peer.establish()
    peer.send("FA", patient=True)
    peer.send("FA", seq=1)
    peer.app.close()
    peer.send("FA", seq=1, ack=1)
    peer.send("A", ack=2)
    peer.send("FA", seq=1, ack=2)


@script
def fin_out_of_order(peer: RawPeer) -> None:
    """A FIN behind a gap; then the gap is filled."""
    peer.establish()
    peer.send("FA", seq=101)
    peer.send("PA", seq=1, data=100)
    peer.app.read(100)
    peer.send("FA", seq=101)
    peer.app.read(0)


@script
def fin_with_data_out_of_order(peer: RawPeer) -> None:
    """Data and FIN behind a gap; then the gap is filled."""
    peer.establish()
    peer.send("FPA", seq=101, data=50)
    peer.send("PA", seq=1, data=100)
    peer.app.read(150)
    peer.send("FA", seq=151)
    peer.app.read(0)


@script
def data_after_the_peers_fin(peer: RawPeer) -> None:
    """A peer sends data behind its own FIN, and over it."""
    peer.establish(rtt=RTT)
    peer.send("FA", patient=True)
    peer.send("PA", seq=2, data=10)
    peer.send("PA", seq=1, data=10)
    peer.app.write(10)


@script
def data_to_a_closed_application(peer: RawPeer) -> None:
    """The application has closed: data that comes then finds nobody."""
    peer.establish()
    peer.app.close()
    peer.send("A")
    peer.send("PA", data=100)
    peer.send("FA")


@script
def data_with_fin_to_a_closed_application(peer: RawPeer) -> None:
    """The last data comes with the peer's FIN, after the close."""
    peer.establish()
    peer.app.close()
    peer.send("FPA", data=100)
    peer.send("A")


@script
def data_in_flight_to_a_closed_application(peer: RawPeer) -> None:
    """The application closes with data unacknowledged, and data comes."""
    peer.establish(PLAIN, rtt=RTT)
    peer.app.write(100)
    peer.app.close()
    peer.send("PA", ack=101, data=100)
    peer.send("A", ack=102)


@script
def close_with_unread_data(peer: RawPeer) -> None:
    """The application closes and has not read what came: a RST tells the peer that it is lost."""
    peer.establish()
    peer.send("PA", data=100)
    peer.app.close()
    peer.send("PA", data=100)


@script
def close_with_unread_data_and_fin(peer: RawPeer) -> None:
    """The same after the peer's FIN."""
    peer.establish()
    peer.send("FPA", data=100, patient=True)
    peer.app.close()
    peer.send("A")


@script
def close_with_unread_data_and_last_words(peer: RawPeer) -> None:
    """The same where what the application wrote is still on its way."""
    peer.establish(rtt=RTT)
    peer.send("PA", data=100)
    peer.app.write(100)
    peer.app.close()


@script
def close_with_unread_data_behind_a_gap(peer: RawPeer) -> None:
    """All that is unread is out of order."""
    peer.establish()
    peer.send("PA", seq=101, data=100)
    peer.app.close()
    peer.send("PA", seq=1, data=100)


@script
def close_with_unsent_data(peer: RawPeer) -> None:
    """The peer's window holds back what was written: it is sent, then the FIN."""
    peer.establish(PLAIN, rtt=RTT, window=2920)
    peer.app.write(4000)
    peer.app.close()
    peer.send("A", window=65535)
    peer.send("A", window=65535)
    peer.send("FA")


@script
def shutdown_with_unread_data(peer: RawPeer) -> None:
    """Shutdown is no close: what came can still be read."""
    peer.establish()
    peer.send("PA", data=100)
    peer.app.shutdown()
    peer.send("A")
    peer.app.read(100)


@script
def linger_of_zero(peer: RawPeer) -> None:
    """SO_LINGER with no time: a RST, whatever was written."""
    peer.establish(rtt=RTT)
    peer.app.set(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.app.write(100)
    peer.app.close()
    peer.send("A")


@script
def abort_with_data_on_its_way(peer: RawPeer) -> None:
    """A RST of the sequence number that comes next, with more written than the window holds."""
    peer.establish(PLAIN, rtt=RTT, window=2920)
    peer.app.write(5000)
    peer.app.abort()
    peer.send("A", ack=1)


@script
def abort_after_the_peers_fin(peer: RawPeer) -> None:
    """In CLOSE_WAIT."""
    peer.establish()
    peer.send("FA", patient=True)
    peer.app.abort()
    peer.send("FA", seq=1)


@script
def abort_of_an_idle_connection(peer: RawPeer) -> None:
    """A RST, and what comes then gets another."""
    peer.establish()
    peer.app.abort()
    peer.send("A")
    peer.send("PA", data=10)


@script
def fin_wait_2_and_rst(peer: RawPeer) -> None:
    """The peer resets a connection that is half closed."""
    peer.establish()
    peer.app.shutdown()
    peer.send("A")
    peer.send("R")
    peer.send("A")


def to_time_wait(peer: RawPeer, options: bytes = FULL, ts: int | None = None) -> None:
    """The application closes first; no steps of the view."""
    peer.establish(options, ts=ts)
    peer.app.close_quietly()
    peer.quietly("A")
    peer.quietly("FA")


@script
def time_wait_and_old_segments(peer: RawPeer) -> None:
    """What is left of the connection comes late."""
    to_time_wait(peer)
    peer.send("FA", seq=1)
    peer.send("A", seq=2)
    peer.send("A", seq=1)
    peer.send("PA", seq=1, data=1)
    peer.send("PA", seq=2, data=10)
    peer.send("A", seq=2, ack=50)


@script
def time_wait_and_rst(peer: RawPeer) -> None:
    """A RST at rcv_nxt in TIME_WAIT."""
    to_time_wait(peer)
    peer.send("R", seq=2)
    peer.send("FA", seq=1)


@script
def time_wait_and_a_newer_syn(peer: RawPeer) -> None:
    """A SYN beyond the old sequence numbers opens the flow anew."""
    to_time_wait(peer)
    peer.send("S", seq=100_000, options=FULL)
    peer.rcv_nxt = 1
    peer.send("A", seq=100_001)


@script
def time_wait_and_an_older_syn(peer: RawPeer) -> None:
    """A SYN within the old sequence numbers."""
    to_time_wait(peer)
    peer.send("S", seq=1, options=FULL)
    peer.send("S", seq=0xFFFF0000, options=FULL, what="S of before")


@script
def time_wait_and_a_syn_of_a_newer_timestamp(peer: RawPeer) -> None:
    """A SYN with old sequence numbers and a newer timestamp."""
    to_time_wait(peer, STAMPED, ts=10)
    peer.send("S", seq=0xFFFF0000, options=STAMPED, ts=5000, what="S of before, its timestamp newer")


@script
def time_wait_and_an_old_timestamp(peer: RawPeer) -> None:
    """PAWS in TIME_WAIT."""
    to_time_wait(peer, STAMPED, ts=10)
    peer.send("FA", seq=1, ts=5)
    peer.send("PA", seq=2, data=10, ts=5)
    peer.send("FA", seq=1, ts=11)


@script
def time_wait_is_over_for_a_syn_ack(peer: RawPeer) -> None:
    """SYN-ACKs find TIME_WAIT."""
    to_time_wait(peer)
    peer.send("SA", seq=100_000)
    peer.send("SA", seq=1)
