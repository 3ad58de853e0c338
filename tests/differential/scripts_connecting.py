"""The active open: what a connecting stack sends, and what it makes of the answers."""

from raw_peer import FULL, PLAIN, RTT, SACK_OK, SCALE, RawPeer, mss
from script import script


@script
def connect_and_talk(peer: RawPeer) -> None:
    """SYN, SYN-ACK, data both ways."""
    peer.app.connect()
    peer.pause(RTT)
    peer.send("SA", options=FULL)
    peer.app.outcome()
    peer.app.write(100)
    peer.send("PA", data=10, patient=True)
    peer.app.read(10)


@script
def connect_to_one_without_options(peer: RawPeer) -> None:
    """The SYN-ACK carries no option: none is used, and segments hold 536 bytes."""
    peer.app.connect()
    peer.pause(RTT)
    peer.send("SA")
    peer.app.write(1000)


@script
def connect_with_timestamps(peer: RawPeer) -> None:
    """The peer echoes and sends timestamps."""
    peer.app.connect()
    peer.pause(RTT)
    peer.send("SA", options=mss(1460) + SACK_OK + SCALE, ts=3)
    peer.app.write(2000)
    peer.send("A", ts=4)


@script
def connect_is_refused(peer: RawPeer) -> None:
    """A RST with the right ACK."""
    peer.app.connect()
    peer.send("RA", seq=0)
    peer.app.outcome()


@script
def connect_is_not_refused(peer: RawPeer) -> None:
    """A RST without ACK, segments that are no SYN."""
    peer.app.connect()
    peer.send("R", seq=0)
    peer.send("FA", seq=0)
    peer.send("PA", seq=0, data=10)
    peer.send("SA", seq=0, options=PLAIN)
    peer.app.outcome()


@script
def connect_and_wrong_acks(peer: RawPeer) -> None:
    """SYN-ACKs, ACKs and RSTs of something else: a RST for each but RSTs, and no connection."""
    for number, flags in enumerate(("SA", "A", "RA")):
        flow = peer.another(41_000 + number)
        flow.app.connect()
        flow.send(flags, seq=0, ack=77, wait=0.5)
        flow.send("SA", seq=0, options=PLAIN)
        flow.app.outcome()


@script
def connect_not_answered(peer: RawPeer) -> None:
    """The SYN is sent again with growing waits."""
    peer.app.connect()
    peer.until(1)
    peer.until(1)
    peer.send("SA", options=FULL)
    peer.app.outcome()


@script
def simultaneous_open(peer: RawPeer) -> None:
    """SYNs cross: SYN-ACKs answer both, and then there is a connection."""
    peer.app.connect()
    peer.pause(RTT)
    peer.send("S", seq=0, options=FULL)
    peer.send("SA", seq=0, options=FULL)
    peer.app.outcome()
    peer.app.write(10)
    peer.send("PA", data=10, patient=True)
    peer.app.read(10)


@script
def simultaneous_open_ended_by_an_ack(peer: RawPeer) -> None:
    """The same, where the peer's SYN-ACK was lost and an ACK comes."""
    peer.app.connect()
    peer.pause(RTT)
    peer.send("S", seq=0, options=FULL)
    peer.send("A", seq=1)
    peer.app.outcome()
    peer.app.write(10)


@script
def syn_ack_with_data(peer: RawPeer) -> None:
    """Data and FIN come with the SYN-ACK."""
    peer.app.connect()
    peer.send("SA", data=10, options=FULL)
    peer.app.outcome()
    peer.send("FPA", seq=1, data=20, patient=True)
    peer.app.read(20)
    peer.app.read(0)


@script
def syn_ack_twice(peer: RawPeer) -> None:
    """The ACK of the SYN-ACK was lost."""
    peer.app.connect()
    peer.send("SA", seq=0, options=FULL)
    peer.send("SA", seq=0, options=FULL)
    peer.app.outcome()


@script
def connect_and_port_unreachable(peer: RawPeer) -> None:
    """ICMP port unreachable is a refusal, unless it is about another sequence number."""
    peer.app.connect()
    peer.icmp("about another sequence number", 3, 3, seq=5)
    peer.icmp("port unreachable", 3, 3, seq=0)
    peer.app.outcome()


@script
def connect_and_host_unreachable(peer: RawPeer) -> None:
    """ICMP host unreachable is a hint: the host may come back."""
    peer.app.connect()
    peer.icmp("host unreachable", 3, 1, seq=0)
    peer.app.outcome(0.3)
