"""What a stack sends: windows, Nagle, initial window, recovery by duplicate ACKs, SACK, probes and timeouts, ICMP and MTUs.

The peer takes its time for the handshake, and so the tested side's timers are far longer than what the script does between.
"""

import socket
import struct

from raw_peer import FULL, PLAIN, RTT, SACK_OK, SCALE, RawPeer, mss
from script import script

TCP = socket.IPPROTO_TCP
LONG = 0.8  # a round trip so long that a quarter of it, the time for reordering, is not over while the script works


@script
def initial_window(peer: RawPeer) -> None:
    """Ten segments, and two more for each that is acknowledged."""
    peer.establish(rtt=RTT)
    peer.app.write(1460 * 20)
    peer.send("A", ack=1461)
    peer.send("A", ack=2921)
    peer.send("A", ack=1460 * 4 + 1)


@script
def segments_with_timestamps(peer: RawPeer) -> None:
    """Timestamps take 12 bytes of each segment."""
    peer.establish(mss(1460) + SACK_OK + SCALE, rtt=RTT, ts=5)
    peer.app.write(3000)


@script
def nagle(peer: RawPeer) -> None:
    """With Nagle's rule small writes wait for the ACK and leave together."""
    peer.establish(rtt=RTT)
    peer.app.set(TCP, socket.TCP_NODELAY, 0)
    for _ in range(3):
        peer.app.write(100)
    peer.app.write(1400)
    peer.send("A")
    peer.send("A")


@script
def nagle_and_fin(peer: RawPeer) -> None:
    """Nagle's rule holds a small segment back, the FIN lets it go."""
    peer.establish(rtt=RTT)
    peer.app.set(TCP, socket.TCP_NODELAY, 0)
    peer.app.write(100)
    peer.app.write(100)
    peer.app.shutdown()


@script
def no_nagle(peer: RawPeer) -> None:
    """With TCP_NODELAY each write leaves at once."""
    peer.establish(rtt=RTT)
    peer.app.set(TCP, socket.TCP_NODELAY, 1)
    for _ in range(3):
        peer.app.write(100)
    peer.send("A")


@script
def small_window(peer: RawPeer) -> None:
    """The peer offers less than a segment."""
    peer.establish(PLAIN, rtt=RTT, window=500)
    peer.app.write(1200)
    peer.send("A", window=500)
    peer.send("A", window=500)


@script
def window_below_two_segments(peer: RawPeer) -> None:
    """The peer offers a segment and a half."""
    peer.establish(PLAIN, rtt=RTT, window=2000)
    peer.app.write(3000)


@script
def window_shrinks(peer: RawPeer) -> None:
    """The peer takes back window that is in use."""
    peer.establish(PLAIN, rtt=RTT, window=4380)
    peer.app.write(1460 * 6)
    peer.send("A", ack=1461, window=1460)
    peer.send("A", ack=1461, window=1000)
    peer.send("A", ack=4381, window=4380)


@script
def closed_window_is_probed(peer: RawPeer) -> None:
    """Into a closed window go probes, further and further apart while the peer answers; an opened one takes the data."""
    peer.establish(PLAIN, rtt=0.2, window=0)
    peer.app.write(1000)
    peer.until(1)
    peer.send("A", ack=1, window=0)
    peer.until(1)
    peer.send("A", ack=1, window=0)
    peer.until(1)
    peer.send("A", ack=1, window=4000)


@script
def window_update(peer: RawPeer) -> None:
    """The window closes in mid-stream, and an update lets the rest go at once."""
    peer.establish(PLAIN, rtt=RTT, window=2920)
    peer.app.write(1460 * 4)
    peer.send("A", ack=2921, window=0)
    peer.send("A", ack=2921, window=1460)
    peer.send("A", ack=4381, window=65535)


@script
def fin_into_a_closed_window(peer: RawPeer) -> None:
    """There is no data, but a FIN, and the window is closed."""
    peer.establish(PLAIN, rtt=RTT, window=0)
    peer.app.shutdown()
    peer.until(1)
    peer.send("A", ack=1, window=1000)
    peer.send("A", ack=2, window=1000)


@script
def three_duplicate_acks(peer: RawPeer) -> None:
    """Without SACK: the third duplicate sends the first segment again, a partial ACK the next hole."""
    peer.establish(PLAIN, rtt=RTT)
    peer.app.write(1460 * 6)
    peer.pause(RTT)
    peer.send("A", ack=1)
    peer.send("A", ack=1)
    peer.send("A", ack=1)
    peer.send("A", ack=2921)
    peer.send("A", ack=1460 * 6 + 1)


@script
def limited_transmit(peer: RawPeer) -> None:
    """Without SACK the first two duplicates let a new segment go each."""
    peer.establish(PLAIN, rtt=RTT)
    peer.app.write(1460 * 14)
    peer.pause(RTT)
    peer.send("A", ack=1)
    peer.send("A", ack=1)


@script
def duplicates_with_data(peer: RawPeer) -> None:
    """ACKs that carry data, or a larger window, are no duplicates."""
    peer.establish(PLAIN, rtt=RTT)
    peer.app.write(1460 * 6)
    peer.pause(RTT)
    for _ in range(4):
        peer.send("PA", ack=1, data=10)
    for window in (50_000, 51_000, 52_000, 53_000):
        peer.send("A", ack=1, window=window)


@script
def duplicates_with_a_smaller_window(peer: RawPeer) -> None:
    """ACKs that take window back, otherwise like duplicates."""
    peer.establish(PLAIN, rtt=RTT)
    peer.app.write(1460 * 6)
    peer.pause(RTT)
    for window in (53_000, 52_000, 51_000, 50_000):
        peer.send("A", ack=1, window=window)


@script
def sack_of_three_segments(peer: RawPeer) -> None:
    """With SACK: three segments delivered behind a hole show it to be lost."""
    peer.establish(rtt=LONG)
    peer.app.write(1460 * 6)
    peer.pause(LONG)
    peer.burst("reports of three segments, one by one", *_reports(peer, 1461, 2921, 4381, 5841))
    peer.send("A", ack=1460 * 6 + 1)


def _reports(peer: RawPeer, start: int, *ends: int):  # type: ignore[no-untyped-def]
    """ACKs that report more and more of what begins at `start`."""
    return [peer.segment("A", ack=1, options=peer.sack(start, end)) for end in ends]


@script
def sack_of_two_holes(peer: RawPeer) -> None:
    """One ACK shows two holes: both are filled, and nothing else is sent again."""
    peer.establish(rtt=LONG)
    peer.app.write(1460 * 9)
    peer.pause(LONG)
    report = peer.sack(1460 * 5 + 1, 1460 * 9 + 1, 1461, 1460 * 4 + 1)
    peer.send("A", ack=1, options=report)
    peer.send("A", ack=1460 * 4 + 1, options=peer.sack(1460 * 5 + 1, 1460 * 9 + 1))
    peer.send("A", ack=1460 * 9 + 1)


@script
def sack_of_one_segment(peer: RawPeer) -> None:
    """One segment delivered behind a hole: the hole is given the time of a little reordering."""
    peer.establish(rtt=LONG)
    peer.app.write(1460 * 3)
    peer.pause(LONG)
    peer.send("A", ack=1, options=peer.sack(1461, 2921))
    peer.until(1)


@script
def tail_loss_probe(peer: RawPeer) -> None:
    """No ACK comes: after two round trips the last segment is sent again, and its report shows what was lost."""
    peer.establish(rtt=RTT)
    peer.app.write(1460 * 4)
    peer.until(1)
    peer.send("A", ack=1, options=peer.sack(4381, 5841))
    peer.until(1)
    peer.send("A", ack=5841)


@script
def tail_loss_probe_repairs(peer: RawPeer) -> None:
    """Only the last segment was lost: the probe repairs it."""
    peer.establish(rtt=RTT)
    peer.app.write(1460 * 4)
    peer.pause(RTT)
    peer.send("A", ack=4381)
    peer.until(1)
    peer.send("A", ack=5841)
    peer.silence(1.0)


@script
def timeouts(peer: RawPeer) -> None:
    """No ACK comes, and there is no SACK: the first segment again, further and further apart."""
    peer.establish(PLAIN, rtt=0.2)
    peer.app.write(100)
    for _ in range(3):
        peer.until(1)
    peer.send("A", ack=101)
    peer.silence(0.5)


@script
def after_a_timeout(peer: RawPeer) -> None:
    """Several segments were lost: one goes out at the timeout, more with each ACK."""
    peer.establish(PLAIN, rtt=RTT)
    peer.app.write(1460 * 5)
    peer.until(1)
    peer.send("A", ack=1461)
    peer.send("A", ack=4381)
    peer.send("A", ack=1460 * 5 + 1)


@script
def fin_is_lost(peer: RawPeer) -> None:
    """A FIN that is not acknowledged is sent again, with the data before it."""
    peer.establish(PLAIN, rtt=RTT)
    peer.app.write(100)
    peer.pause(0.1)
    peer.app.shutdown()
    peer.until(1)
    peer.send("A", ack=101)
    peer.until(1)
    peer.send("A", ack=102)
    peer.silence(1.0)


@script
def dsack_is_no_loss(peer: RawPeer) -> None:
    """A report of what is acknowledged already: a duplicate arrived, nothing was lost."""
    peer.establish(rtt=RTT)
    peer.app.write(1460 * 2)
    peer.send("A")
    peer.app.write(1460 * 2)
    peer.send("A", ack=2921, options=peer.sack(1, 1461))
    peer.send("A", ack=5841)


@script
def sack_of_what_was_not_sent(peer: RawPeer) -> None:
    """A report beyond snd_nxt, and one that ends before it begins."""
    peer.establish(rtt=RTT)
    peer.app.write(1460 * 2)
    peer.send("A", ack=1, options=peer.sack(100_001, 101_461))
    peer.send("A", ack=1, options=peer.sack(2921, 1461))
    peer.send("A", ack=2921)


@script
def icmp_port_unreachable(peer: RawPeer) -> None:
    """Unreachable, of any kind, ends no established connection."""
    peer.establish(rtt=RTT)
    peer.app.write(100)
    for code, name in ((0, "net"), (1, "host"), (2, "protocol"), (3, "port"), (13, "prohibited")):
        peer.icmp(f"{name} unreachable", 3, code)
    peer.icmp("source quench", 4, 0)
    peer.icmp("time exceeded", 11, 0)
    peer.send("A", ack=101)
    peer.app.write(10)


@script
def icmp_fragmentation_needed(peer: RawPeer) -> None:
    """Path MTU discovery: what is in flight leaves again in smaller segments, and so does what follows."""
    peer.establish(rtt=RTT)
    peer.app.write(1460)
    peer.icmp("fragmentation needed, mtu 1000", 3, 4, struct.pack("!HH", 0, 1000))
    peer.send("A", ack=1461)
    peer.app.write(2000)


@script
def icmp_fragmentation_needed_to_be_doubted(peer: RawPeer) -> None:
    """An MTU that can't be: zero, tiny, no smaller than the segment; an error about what is not in flight."""
    peer.establish(rtt=RTT)
    peer.app.write(1460)
    peer.icmp("about what was never sent", 3, 4, struct.pack("!HH", 0, 1000), seq=50_000)
    peer.icmp("mtu 1500", 3, 4, struct.pack("!HH", 0, 1500))
    peer.icmp("mtu 9000", 3, 4, struct.pack("!HH", 0, 9000))
    peer.send("A", ack=1461)
    peer.icmp("about what is acknowledged", 3, 4, struct.pack("!HH", 0, 1000), seq=1)
    peer.app.write(1460)


@script
def icmp_fragmentation_needed_tiny(peer: RawPeer) -> None:
    """An MTU of 100."""
    peer.establish(rtt=RTT)
    peer.app.write(1460)
    peer.icmp("mtu 100", 3, 4, struct.pack("!HH", 0, 100))


@script
def icmp_fragmentation_needed_without_mtu(peer: RawPeer) -> None:
    """A router from before RFC 1191 tells no MTU."""
    peer.establish(rtt=RTT)
    peer.app.write(1460)
    peer.icmp("mtu 0", 3, 4)


@script
def keepalive(peer: RawPeer) -> None:
    """An idle connection is probed; an answer satisfies it, none ends it."""
    peer.establish()
    peer.keep_alive(idle=1, interval=1, count=2)
    peer.until(1)
    peer.send("A")
    for _ in range(3):
        peer.until(1)
    peer.app.read(0)


@script
def keepalive_without_answer(peer: RawPeer) -> None:
    """A RST answers the probe."""
    peer.establish()
    peer.keep_alive(idle=1, interval=1, count=2)
    peer.until(1)
    peer.send("R")
    peer.app.read(0)


@script
def user_timeout(peer: RawPeer) -> None:
    """What is written has been unacknowledged for TCP_USER_TIMEOUT."""
    peer.establish(PLAIN, rtt=0.1)
    peer.app.set(TCP, socket.TCP_USER_TIMEOUT, 1500)
    peer.app.write(100)
    peer.silence(3.0)
    peer.app.read(0)
    peer.send("A", ack=101)


@script
def pushes(peer: RawPeer) -> None:
    """The end of each write is pushed."""
    peer.establish(FULL, rtt=RTT)
    peer.app.write(1460)
    peer.app.write(2920)
    peer.app.write(1)
