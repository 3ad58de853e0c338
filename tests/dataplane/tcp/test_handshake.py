"""Passive opens: what a SYN gets, what completes a handshake (RFC 9293 section 3.10.7.2 and 3.10.7.4, SYN-RECEIVED)."""

import pytest
from peer import MSS_1460, SCALE_7, TICK, Peer, timestamps

from mpserve.dataplane.events import Command, Event
from mpserve.dataplane.tcp.state import State


def test_three_way_handshake(stack):
    peer = Peer(stack)
    peer.send(0, flags="S", options=MSS_1460 + SCALE_7)
    peer.recv(0, flags="SA", seq=0, ack=1, mss=1460, scale=3, window=65535)
    assert peer.state == State.SYN_RECEIVED
    peer.send(0, flags="A")
    peer.nothing()
    assert peer.state == State.ESTABLISHED
    assert peer.kinds() == [Event.ACCEPT]


def test_a_syn_without_options_means_536_bytes_and_no_scaling(stack):
    peer = Peer(stack, window=9000).establish(options=b"")
    assert (peer.tcb.mss, peer.tcb.snd_scale, peer.tcb.rcv_scale, peer.tcb.snd_wnd) == (536, 0, 0, 9000)


def test_without_window_scale_none_is_offered(stack):
    peer = Peer(stack)
    peer.send(0, flags="S", options=MSS_1460)
    peer.recv(0, flags="SA", mss=1460, scale=None)


def test_scales_apply_after_the_handshake_only(stack):
    peer = Peer(stack, window=100).establish(MSS_1460 + SCALE_7)
    assert (peer.tcb.snd_wnd, peer.tcb.snd_scale) == (100 << 7, 7)
    peer.send(0, data=b"x" * 1460)
    peer.send(0, data=b"x" * 1460)
    assert peer.recv().window << 3 > 65535


@pytest.mark.parametrize("offered, used", [(1, 64), (100, 100), (1460, 1460), (9000, 1460), (0, 536)])
def test_mss_is_bounded_by_both_sides(stack, offered, used):
    peer = Peer(stack).establish(b"\x02\x04" + offered.to_bytes(2, "big"))
    assert peer.tcb.mss == used


def test_a_scale_above_14_is_14(stack):
    peer = Peer(stack, window=4).establish(b"\x03\x03\xff")
    assert peer.tcb.snd_scale == 14


def test_a_repeated_syn_gets_the_same_syn_ack(stack):
    peer = Peer(stack)
    peer.send(0, flags="S", seq=0)
    first = peer.recv(0, flags="SA")
    peer.send(1000, flags="S", seq=0)
    assert peer.recv(1000, flags="SA", ack=1).seq == first.seq
    assert stack.counter("syns_received") == 1


def test_syn_ack_is_sent_again_with_doubled_waits_then_forgotten(stack):
    peer = Peer(stack).reach(State.SYN_RECEIVED)
    for seconds in (1, 2, 4, 8, 16):
        due = peer.received_at + seconds * 1_000_000
        peer.nothing(due - 1)
        peer.recv(due + TICK, flags="SA", seq=0, ack=1)
    peer.nothing(stack.at() + 70_000_000)
    assert peer.state == State.CLOSED
    assert stack.counter("syn_acks_resent") == 5


def test_a_handshake_completed_late_works(stack):
    peer = Peer(stack).reach(State.SYN_RECEIVED)
    peer.recv(1_000_000 + TICK, flags="SA", seq=0)
    peer.send(1_500_000, data=b"late")
    assert peer.take() == b"late"
    assert peer.tcb.srtt_us == 0, "Karn: the SYN-ACK was sent twice"


@pytest.mark.parametrize("lost, segments", [(1, 10), (2, 1)])
def test_after_a_lost_syn_ack_the_rto_is_three_seconds(stack, lost, segments):
    """RFC 6298 (5.7); and after more than one the initial window is one segment (RFC 6928 section 2)."""
    peer = Peer(stack).reach(State.SYN_RECEIVED)
    for _ in range(lost):
        peer.recv(stack.at() + 5_000_000, flags="SA")
    peer.send(stack.at() + 1000)
    peer.write(bytes(30_000))
    left = stack.at()
    assert [seen["length"] for seen in peer.drain()] == [1460] * segments
    peer.nothing(left + 3_000_000 - 1)
    peer.recv(left + 3_000_000 + TICK, seq=1)


def test_round_trip_time_of_the_handshake_sets_the_rto(stack):
    peer = Peer(stack).reach(State.SYN_RECEIVED)
    peer.send(100_000)
    assert (peer.tcb.srtt_us, peer.tcb.rttvar_us, peer.tcb.rto_us) == (100_000, 50_000, 300_000)


def test_data_with_the_last_ack_is_delivered(stack):
    peer = Peer(stack).reach(State.SYN_RECEIVED)
    peer.send(0, data=b"hello")
    assert peer.take() == b"hello"
    assert peer.kinds() == [Event.ACCEPT]


def test_data_and_fin_with_the_last_ack(stack):
    peer = Peer(stack).reach(State.SYN_RECEIVED)
    peer.send(0, flags="FA", data=b"hello")
    peer.recv(0, flags="A", ack=7)
    assert peer.kinds() == [Event.ACCEPT, Event.READ, Event.EOF]
    assert peer.state == State.CLOSE_WAIT


def test_the_ack_lost_and_data_out_of_order(stack):
    peer = Peer(stack).reach(State.SYN_RECEIVED)
    peer.send(0, seq=4, data=b"def")
    peer.send(0, seq=1, data=b"abc")
    assert peer.take() == b"abcdef"


@pytest.mark.parametrize("ack", [0, 2, 1000, -1])
def test_a_wrong_ack_in_syn_received_gets_a_rst(stack, ack):
    peer = Peer(stack).reach(State.SYN_RECEIVED)
    peer.send(0, flags="A", ack=ack)
    peer.recv(0, flags="R", seq=ack & 0xFFFFFFFF)
    assert peer.state == State.SYN_RECEIVED
    assert stack.counter("rsts_sent") == 1


def test_a_rst_at_the_next_number_forgets_the_handshake(stack):
    peer = Peer(stack).reach(State.SYN_RECEIVED)
    peer.send(0, flags="R", seq=1)
    assert peer.state == State.CLOSED
    peer.nothing(5_000_000)
    peer.send(stack.at(), flags="S", seq=0)
    peer.recv(flags="SA")  # back in LISTEN


@pytest.mark.parametrize("seq", [0, -2000, 1 + 262_144])
def test_a_rst_outside_the_window_is_ignored_in_syn_received(stack, seq):
    peer = Peer(stack).reach(State.SYN_RECEIVED)
    peer.send(0, flags="R", seq=seq)
    peer.nothing()
    assert peer.state == State.SYN_RECEIVED


@pytest.mark.parametrize("seq", [2, 5000])
def test_a_rst_elsewhere_in_the_window_gets_a_challenge_ack_in_syn_received(stack, seq):
    peer = Peer(stack).reach(State.SYN_RECEIVED, MSS_1460 + SCALE_7 + timestamps(5))
    peer.send(0, flags="R", seq=seq)
    answer = peer.recv(0, flags="A", seq=1, ack=1)
    assert answer.option(8) is not None and answer.window > 0
    assert peer.state == State.SYN_RECEIVED and stack.counter("challenge_acks") == 1


def test_a_syn_with_another_number_starts_over(stack):
    peer = Peer(stack).reach(State.SYN_RECEIVED)
    peer.send(0, flags="S", seq=50_000)
    peer.recv(0, flags="SA", ack=50_001)
    peer.send(0, flags="A")
    assert peer.state == State.ESTABLISHED


def test_a_segment_without_ack_is_dropped_in_syn_received(stack):
    peer = Peer(stack).reach(State.SYN_RECEIVED)
    peer.send(0, flags="P", data=b"x")
    peer.nothing()
    assert stack.counter("drop_no_ack") == 1


@pytest.mark.parametrize("seq", [-2000, 0, 1 + 262_144])
def test_outside_the_window_nothing_is_established(stack, seq):
    """RFC 9293 section 3.10.7.4, first: an ACK tells where the window is."""
    peer = Peer(stack).reach(State.SYN_RECEIVED)
    peer.send(0, seq=seq, data=b"x")
    peer.recv(0, flags="A", seq=1, ack=1)
    assert peer.state == State.SYN_RECEIVED
    assert stack.counter("drop_out_of_window") == 1


def test_a_syn_with_a_rst_bit_is_ignored(stack):
    peer = Peer(stack)
    peer.send(0, flags="SR")
    peer.nothing(5_000_000)


@pytest.mark.parametrize("flags", ["SF", "F", "", "P", "U"])
def test_nonsense_for_a_listener_is_counted(stack, flags):
    peer = Peer(stack)
    peer.send(0, flags=flags)
    peer.nothing()
    assert stack.counter("drop_tcp_flags") == 1


@pytest.mark.parametrize("flags", ["A", "SA", "FA", "PA"])
def test_an_ack_for_a_listener_gets_a_rst(stack, flags):
    peer = Peer(stack)
    peer.send(0, flags=flags, ack=77)
    assert peer.recv(0, flags="R").seq == 77


def test_no_listener_means_rst(stack):
    peer = Peer(stack, to_port=9)
    peer.send(0, flags="S")
    peer.recv(0, flags="RA", ack=1)
    peer.send(0, flags="FA", data=b"abc", ack=5)
    assert peer.recv(0, flags="R").seq == 5
    peer.send(0, flags="R")
    peer.nothing()
    assert (stack.counter("drop_no_listener"), stack.counter("rsts_sent")) == (3, 2)


def test_two_stacks_and_two_flows_differ_in_iss(make_stack):
    numbers = set()
    for seed in (1, 2):
        stack = make_stack(seed=seed)
        for port in (1000, 1001):
            peer = Peer(stack, port=port).reach(State.SYN_RECEIVED)
            numbers.add(peer.stack_iss)
    assert len(numbers) == 4


def test_iss_grows_with_time_for_one_flow(stack):
    peer = Peer(stack).reach(State.SYN_RECEIVED)
    first = peer.stack_iss
    peer.send(100_000, flags="R", seq=1)
    peer.send(400_000, flags="S", seq=0)
    second = peer.recv().seq
    assert 90_000 < (second - first) & 0xFFFFFFFF < 110_000


def test_a_listener_of_one_address(make_stack):
    from mpserve.testing.stack import listen

    stack = make_stack()
    listen(stack.core, 80, ip="10.9.0.99")
    peer = Peer(stack, to_port=80)
    peer.send(0, flags="S")
    peer.recv(0, flags="RA")
    listen(stack.core, 80, ip=stack.ip)
    peer.send(0, flags="S", seq=0)
    peer.recv(0, flags="SA")


def test_the_event_names_the_listener(stack):
    from mpserve.testing.stack import listen

    number = listen(stack.core, 80)
    peer = Peer(stack, to_port=80).establish()
    assert [(e.kind, e.a) for e in peer.events] == [(Event.ACCEPT, number)]
    peer.ask(Command.ABORT)
    peer.recv(0, flags="RA", seq=1, ack=1)
