"""The client of `mpserve.testing`: which RSTs end its connection (RFC 5961 section 3.2)."""

import pytest

from mpserve.testing.client import Client
from mpserve.testing.segment import Segment

HERE, THERE = ("10.9.0.1", 40_000), ("10.9.0.2", 7)
ISS, WINDOW = 5000, 16_384


def from_host(flags, seq, ack):
    return Segment(THERE[1], HERE[1], seq, ack, flags, 1000, source=THERE[0], destination=HERE[0])


@pytest.fixture
def said():
    return []


@pytest.fixture
def connecting(said):
    return Client(said.append, local=HERE, remote=THERE, window=WINDOW)


@pytest.fixture
def client(connecting, said):
    connecting.arrives(from_host("SA", ISS, said[0].seq + 1), 0.0)
    assert connecting.established
    said.clear()
    return connecting


def test_at_rcv_nxt_it_ends_the_connection(client):
    client.arrives(from_host("R", ISS + 1, 0), 0.0)
    assert client.was_reset


def test_elsewhere_in_the_window_it_gets_a_challenge(client, said):
    client.arrives(from_host("R", ISS + 2, 0), 0.0)
    assert not client.was_reset
    assert [(segment.flags, segment.ack) for segment in said] == [("A", ISS + 1)]


@pytest.mark.parametrize("offset", [WINDOW, -1])
def test_outside_of_the_window_it_is_nothing(client, said, offset):
    """One at the window's very edge was taken: it answered a blind ACK of somebody else's."""
    client.arrives(from_host("R", ISS + 1 + offset, 0), 0.0)
    assert not client.was_reset and said == []


@pytest.mark.parametrize("flags, beyond, refused", [("RA", 0, True), ("RA", 1, False), ("R", 0, False)])
def test_before_the_hosts_syn_it_must_acknowledge_ours(connecting, said, flags, beyond, refused):
    connecting.arrives(from_host(flags, 0, said[0].seq + 1 + beyond), 0.0)
    assert connecting.was_reset == refused
