"""The active open: SYN_SENT, simultaneous open, ports (RFC 9293 sections 3.5, 3.10.1, 3.10.7.3; RFC 6056)."""

import pytest
from peer import MAC, MSS_1460, SACK_PERMITTED, SCALE_7, TICK, Peer, pattern, timestamps

from mpserve.dataplane.core import ipv4
from mpserve.dataplane.events import Command, Event, Reason
from mpserve.dataplane.layout import V4_MAPPED
from mpserve.dataplane.tcp.connect import FIRST_PORT, IN_USE, NO_ROUTE, PORTS, TABLE_FULL, connect
from mpserve.dataplane.tcp.state import State
from mpserve.testing.segment import arp_reply
from mpserve.testing.stack import listen

OPTIONS = MSS_1460 + SCALE_7 + SACK_PERMITTED
SECOND = 1_000_000


def ask(stack, address="10.9.0.1", port=80, local_port=0):
    """Call `connect` as the channel does."""
    return connect(stack.core.address, V4_MAPPED | ipv4(address), port, local_port)


def opening(stack, local_port=0, port=80):
    """A peer that a connection is being opened to."""
    handle = ask(stack, port=port, local_port=local_port)
    assert handle >= 0
    conn = stack.core.arrays["conns"][handle & 0xFFFFFF]
    peer = Peer(stack, port=port, to_port=int(conn.ports) & 0xFFFF)
    peer.handle = handle
    return peer


def opened(stack, options=OPTIONS):
    peer = opening(stack)
    peer.recv(flags="S")
    peer.send(stack.at() + 1000, flags="SA", options=options)
    peer.recv(flags="A", seq=1, ack=1)
    return peer


@pytest.fixture
def stack(make_stack):
    stack = make_stack()
    stack.answer_arp = "*"
    return stack


def test_the_handshake(stack):
    peer = opening(stack)
    syn = peer.recv(0, flags="S", mss=1460)
    assert syn.option(4) == b"" and len(syn.option(8)) == 8 and syn.window_scale() is not None
    peer.send(1000, flags="SA", options=OPTIONS)
    peer.recv(1000, flags="A", seq=1, ack=1, length=0)
    assert peer.state == State.ESTABLISHED
    assert peer.kinds() == [Event.CONNECT]
    assert stack.counter("connections_opened") == 1
    assert peer.tcb.srtt_us == 1000


def test_data_both_ways(stack):
    peer = opened(stack)
    peer.write(b"request")
    peer.recv(flags="PA", seq=1, data=b"request")
    peer.send(stack.at() + 1000, data=b"reply")
    assert peer.take() == b"reply"


def test_what_was_written_before_leaves_with_the_last_ack(stack):
    peer = opening(stack)
    peer.recv(0, flags="S")
    peer.write(b"early")
    peer.nothing()
    peer.send(1000, flags="SA", options=OPTIONS)
    peer.recv(1000, flags="PA", seq=1, ack=1, data=b"early")


def test_options_that_the_peer_does_not_take_are_not_used(stack):
    peer = opened(stack, options=b"")
    assert (peer.tcb.mss, peer.tcb.snd_scale, peer.tcb.rcv_scale) == (536, 0, 0)
    peer.write(b"x")
    assert peer.recv().options == b""


def test_timestamps_are_used_if_the_peer_has_them(stack):
    peer = opening(stack)
    peer.recv(0, flags="S")
    peer.send(1000, flags="SA", options=OPTIONS + timestamps(77))
    ack = peer.recv(1000, flags="A")
    assert ack.option(8)[4:] == (77).to_bytes(4, "big")
    assert peer.tcb.mss == 1448


def test_data_and_fin_that_come_with_the_syn_ack(stack):
    peer = opening(stack)
    peer.recv(0, flags="S")
    peer.send(1000, flags="SFA", data=b"hello", options=OPTIONS)
    peer.recv(1000, flags="A", ack=7)
    assert peer.take() == b"hello"
    assert peer.kinds() == [Event.CONNECT, Event.EOF]


def test_a_refusal(stack):
    peer = opening(stack)
    peer.recv(0, flags="S")
    peer.send(1000, flags="RA", seq=0, ack=1)
    assert [(e.kind, e.a) for e in peer.events] == [(Event.CONNECT, Reason.REFUSED), (Event.CLOSED, Reason.REFUSED)]
    assert stack.counter("connections_refused") == 1
    peer.nothing(10 * SECOND)


def test_a_rst_that_acknowledges_nothing_is_ignored(stack):
    peer = opening(stack)
    peer.recv(0, flags="S")
    peer.send(1000, flags="R", seq=0)
    peer.send(1000, flags="RA", seq=0, ack=2)
    assert peer.state == State.SYN_SENT


def test_an_ack_of_something_else_gets_a_rst(stack):
    """A half-open connection of an earlier life: RFC 9293 figure 9."""
    peer = opening(stack)
    peer.recv(0, flags="S")
    peer.send(1000, flags="A", seq=300, ack=77)
    peer.recv(1000, flags="R", seq=77)
    assert peer.state == State.SYN_SENT


def test_a_segment_without_syn_is_dropped(stack):
    peer = opening(stack)
    peer.recv(0, flags="S")
    peer.send(1000, flags="A", ack=1)
    peer.nothing(2000)
    assert peer.state == State.SYN_SENT and stack.counter("drop_tcp_flags") == 1


def test_the_syn_is_sent_again_and_at_last_given_up(make_stack):
    stack = make_stack()
    stack.answer_arp = "*"
    peer = opening(stack)
    peer.recv(0, flags="S")
    for wait in (1, 2, 4, 8, 16, 32, 60):
        due = peer.received_at + wait * SECOND
        peer.nothing(due - 1)
        peer.recv(due + TICK, flags="S", seq=0)
    peer.nothing(180 * SECOND)
    assert peer.state == State.SYN_SENT, "three minutes at least"
    peer.nothing(184 * SECOND)
    assert [(e.kind, e.a) for e in peer.events] == [(Event.CONNECT, Reason.TIMED_OUT), (Event.CLOSED, Reason.TIMED_OUT)]


@pytest.mark.parametrize("lost, segments", [(1, 10), (2, 1)])
def test_after_a_lost_syn_the_rto_is_three_seconds(stack, lost, segments):
    """RFC 6298 (5.7); and after more than one the initial window is one segment (RFC 6928 section 2)."""
    peer = opening(stack)
    for _ in range(1 + lost):
        peer.recv(stack.at() + 5 * SECOND, flags="S")
    peer.write(pattern(30_000))
    peer.send(stack.at() + 1000, flags="SA", options=OPTIONS)
    assert len([s for s in peer.drain() if s["length"]]) == segments
    left = stack.at()
    peer.nothing(left + 3 * SECOND - 1)
    peer.recv(left + 3 * SECOND + TICK, seq=1)


def test_simultaneous_open(stack):
    """RFC 9293 figure 8: the SYNs cross, both sides answer with SYN-ACK."""
    peer = opening(stack)
    peer.recv(0, flags="S", seq=0)
    peer.send(1000, flags="S", options=OPTIONS)
    peer.recv(1000, flags="SA", seq=0, ack=1)
    assert peer.kinds() == []
    peer.send(2000, flags="SA", seq=0, ack=1, options=OPTIONS)
    assert peer.state == State.ESTABLISHED and peer.kinds() == [Event.CONNECT]
    peer.recv(2000, flags="A", seq=1, ack=1)
    peer.nothing(5 * SECOND)
    peer.write(b"x")
    peer.recv(flags="PA", seq=1, ack=1, data=b"x")


@pytest.mark.parametrize("fields", [{"ack": 0}, {"ack": 2}, {"seq": -1}, {"flags": "S"}])
def test_a_syn_ack_of_something_else_completes_no_simultaneous_open(stack, fields):
    peer = opening(stack)
    peer.recv(0, flags="S", seq=0)
    peer.send(1000, flags="S", options=OPTIONS)
    peer.recv(1000, flags="SA", seq=0, ack=1)
    peer.send(2000, **{"flags": "SA", "seq": 0, "ack": 1, **fields})
    assert peer.tcb.state == State.SYN_RECEIVED and peer.kinds() == []


def test_a_simultaneous_open_that_is_answered_by_data(stack):
    peer = opening(stack)
    peer.recv(0, flags="S")
    peer.send(1000, flags="S", options=OPTIONS)
    peer.recv(1000, flags="SA")
    peer.send(2000, flags="A", seq=1, ack=1, data=b"hello")
    assert peer.take() == b"hello" and peer.state == State.ESTABLISHED


def test_the_syn_ack_of_a_simultaneous_open_is_sent_again(stack):
    peer = opening(stack)
    peer.recv(0, flags="S")
    peer.send(1000, flags="S", options=OPTIONS)
    peer.recv(1000, flags="SA")
    peer.recv(SECOND + 1000 + TICK, flags="SA", seq=0, ack=1)


def test_a_wrong_ack_in_a_simultaneous_open_gets_a_rst(stack):
    peer = opening(stack)
    peer.recv(0, flags="S")
    peer.send(1000, flags="S", options=OPTIONS)
    peer.recv(1000, flags="SA")
    peer.send(2000, flags="A", seq=1, ack=0)
    peer.recv(2000, flags="R", seq=0)
    assert peer.state == State.SYN_RECEIVED or peer.tcb.state == State.SYN_RECEIVED


def test_a_rst_in_a_simultaneous_open_is_a_refusal(stack):
    """SYN_RECEIVED remembers that it came from SYN_SENT (RFC 9293 section 3.10.7.4): there is no LISTEN to go back to."""
    peer = opening(stack)
    peer.recv(0, flags="S")
    peer.send(1000, flags="S", options=OPTIONS)
    peer.recv(1000, flags="SA")
    peer.send(2000, flags="R", seq=1)
    assert [(e.kind, e.a) for e in peer.events] == [(Event.CONNECT, Reason.REFUSED), (Event.CLOSED, Reason.REFUSED)]


def test_a_port_is_listened_on_while_connections_of_it_are_being_made(stack):
    """RFC 9293 section 3.9.1.1: beside one in SYN_SENT and one in SYN_RECEIVED, others come and are accepted."""
    out = opening(stack, local_port=7)
    out.recv(0, flags="S")
    half = Peer(stack).reach(State.SYN_RECEIVED)
    other = Peer(stack).establish()
    listen(stack.core, 80)
    assert Peer(stack, to_port=80).establish().state == State.ESTABLISHED
    assert (out.state, half.state, other.state) == (State.SYN_SENT, State.SYN_RECEIVED, State.ESTABLISHED)
    out.send(1000, flags="SA", options=OPTIONS)
    half.send(1000)
    assert out.state == half.state == State.ESTABLISHED


def test_close_before_it_is_there(stack):
    peer = opening(stack)
    peer.recv(0, flags="S")
    peer.ask(Command.CLOSE)
    peer.nothing(10 * SECOND)
    assert peer.kinds() == [Event.CONNECT, Event.CLOSED]


def test_shutdown_before_it_is_there_sends_the_fin_after_the_data(stack):
    peer = opening(stack)
    peer.recv(0, flags="S")
    peer.write(b"all")
    peer.ask(Command.SHUTDOWN)
    peer.send(1000, flags="SA", options=OPTIONS)
    assert [(s["flags"], s["data"]) for s in peer.drain()] == [("PA", b"all"), ("FA", b"")]
    assert peer.state == State.FIN_WAIT_1


def test_the_syn_leaves_when_arp_is_answered(make_stack):
    stack = make_stack()
    peer = opening(stack)
    stack.run(10_000)
    peer.nothing()
    assert len(stack.other_frames) == 1
    stack.give(arp_reply(MAC, "10.9.0.1", stack.wire.mac, stack.ip))
    peer.recv(10_000, flags="S")


def test_nobody_answers_arp(make_stack):
    stack = make_stack()
    peer = opening(stack)
    stack.run(5 * SECOND)
    reasons = [(e.kind, e.a) for e in peer.events]
    assert reasons == [(Event.CONNECT, Reason.UNREACHABLE), (Event.CLOSED, Reason.UNREACHABLE)]
    assert stack.counter("arp_requests_sent") == 4


@pytest.mark.parametrize("address", ["10.8.0.1", "10.9.0.2", "127.0.0.1", "224.0.0.1", "0.0.0.1", "10.9.0.255"])
def test_destinations_that_cannot_be_had(stack, address):
    assert ask(stack, address) == NO_ROUTE


def test_ports_are_from_the_ephemeral_range_and_differ(make_stack):
    stack = make_stack(max_connections=64)
    ports = [int(stack.core.arrays["conns"][ask(stack) & 0xFFFFFF].ports) & 0xFFFF for _ in range(64)]
    assert len(set(ports)) == 64
    assert all(FIRST_PORT <= port < FIRST_PORT + PORTS for port in ports)
    assert ask(stack) == TABLE_FULL


def test_ports_to_another_destination_start_elsewhere(make_stack):
    """RFC 6056: who sees the ports of one destination learns nothing of another's."""
    first = [_first_port(make_stack(seed=seed), port) for seed in (1, 2) for port in (80, 81)]
    assert len(set(first)) == 4


def _first_port(stack, port):
    return int(stack.core.arrays["conns"][ask(stack, port=port) & 0xFFFFFF].ports) & 0xFFFF


def test_a_port_in_use_for_the_destination_is_refused(stack):
    assert ask(stack, local_port=5000) >= 0
    assert ask(stack, local_port=5000) == IN_USE
    assert ask(stack, local_port=5000, port=81) >= 0


def test_a_port_in_time_wait_is_in_use(stack):
    peer = opened(stack)
    port = peer.to_port
    peer.ask(Command.SHUTDOWN)
    peer.recv(flags="FA")
    peer.send(stack.at(), flags="FA")
    peer.recv(flags="A")
    assert peer.state == State.TIME_WAIT
    assert ask(stack, local_port=port) == IN_USE
    stack.run(stack.at() + 10 * SECOND)
    assert ask(stack, local_port=port) >= 0


def test_ports_in_use_are_passed_over(make_stack):
    stack = make_stack(max_connections=64)
    taken = {int(stack.core.arrays["conns"][ask(stack) & 0xFFFFFF].ports) & 0xFFFF for _ in range(10)}
    stack.core.record.next_port -= 10  # the same ones again: they are passed over
    more = int(stack.core.arrays["conns"][ask(stack) & 0xFFFFFF].ports) & 0xFFFF
    assert more not in taken


def test_a_large_transfer_out(stack):
    peer = opened(stack)
    data = pattern(100_000)
    peer.write(data)
    got = b""
    while len(got) < len(data):
        got += b"".join(seen["data"] for seen in peer.drain())
        peer.send(stack.at() + 1000, ack=1 + len(got))
    assert got == data


def test_nothing_is_kept_of_connections_that_failed(stack):
    peers = [opening(stack, port=80 + n) for n in range(3)]
    for peer in peers:
        peer.recv(flags="S")
    peers[0].send(1000, flags="RA", seq=0, ack=1)
    peers[1].ask(Command.ABORT)
    assert stack.leaks() == []
