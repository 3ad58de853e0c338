"""RSTs: where they count, where they are challenged, where they pass unseen."""

from raw_peer import PLAIN, RTT, RawPeer
from script import script


def _is_alive(peer: RawPeer) -> None:
    """A step that shows whether there is still a connection: what the application writes."""
    peer.app.write(10)


@script
def rst_at_rcv_nxt(peer: RawPeer) -> None:
    """Exactly where the next byte is expected: the connection ends, and what comes after finds nobody."""
    peer.establish()
    peer.send("R", seq=1)
    peer.app.read(0)
    peer.send("PA", seq=1, data=10)


@script
def rst_with_ack_at_rcv_nxt(peer: RawPeer) -> None:
    """The same with an ACK, even one that makes no sense."""
    peer.establish()
    peer.send("RA", seq=1, ack=77_777)
    peer.app.read(0)


@script
def rst_in_the_window(peer: RawPeer) -> None:
    """Elsewhere in the window: a challenge ACK."""
    peer.establish(PLAIN, rtt=RTT)
    peer.send("R", seq=2)
    peer.send("R", seq=30_000)
    peer.send("RA", seq=1000)
    _is_alive(peer)


@script
def rst_out_of_the_window(peer: RawPeer) -> None:
    """Before and behind it: nothing."""
    peer.establish(PLAIN, rtt=RTT)
    peer.send("R", seq=0)
    peer.send("R", seq=1_000_000)
    _is_alive(peer)


@script
def rst_behind_a_gap(peer: RawPeer) -> None:
    """Data is missing: a RST at rcv_nxt, or where SACK says that the stream goes to."""
    peer.establish()
    peer.send("A", seq=101, data=100)
    peer.send("R", seq=201)
    peer.send("R", seq=1)
    peer.app.read(0)


@script
def rst_with_data(peer: RawPeer) -> None:
    """Data in a RST, as some stacks send for a reason: it is none of the stream."""
    peer.establish()
    peer.send("R", seq=1, data=20)
    peer.app.read(0)


@script
def rst_with_unread_data(peer: RawPeer) -> None:
    """What came before a RST and was not read: the application gets it, or doesn't."""
    peer.establish()
    peer.send("PA", data=100)
    peer.send("R")
    peer.app.read(100)
    peer.app.read(0)


@script
def rst_after_fin(peer: RawPeer) -> None:
    """The peer has sent its FIN and then resets: behind it, at its own place, and exactly."""
    peer.establish()
    peer.send("FA", patient=True)
    peer.send("R", seq=3)
    peer.send("R", seq=1)
    peer.send("R", seq=2)
    peer.app.write(10)


@script
def rst_of_our_data(peer: RawPeer) -> None:
    """A peer that has forgotten the connection answers data by a RST of the sequence number that was acknowledged."""
    peer.establish(rtt=RTT)
    peer.app.write(100)
    peer.send("R", seq=1)
    peer.app.write(10)


@script
def rst_into_a_closed_window(peer: RawPeer) -> None:
    """With the window closed, a RST at rcv_nxt still counts."""
    peer.establish(PLAIN)
    peer.fill_window()
    peer.send("R", seq=2)
    peer.send("R", seq=1)
    peer.send("A", seq=1)
