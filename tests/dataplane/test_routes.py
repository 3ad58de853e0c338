"""What neighbour leads to a peer: the link, static routes by their longest prefix, the default gateway (RFC 1122 3.3.1)."""

import pytest
from peer import MAC, Peer, TestedStack

from mpserve.dataplane.errors import SetupError
from mpserve.dataplane.ip_records import ROUTES
from mpserve.testing.segment import arp_reply

MINUTE = 60_000_000
ROUTED = dict(
    gateway="10.9.0.254",
    routes=[
        ("10.8.0.0", 16, "10.9.0.10"),
        ("10.8.5.0", 24, "10.9.0.11"),
        ("10.8.5.7", 32, "10.9.0.12"),
        ("192.0.0.0", 8, "10.9.0.13"),
        ("10.9.0.128", 25, "10.9.0.14"),
    ],
)


def asked_for(stack: TestedStack, ip: str) -> list[str]:
    """The neighbours whose ARP entry is wanted for a segment to a peer whose handshake is long ago."""
    peer = Peer(stack, ip=ip).establish()
    stack.run(stack.at() + MINUTE + 10)
    stack.other_frames.clear()
    peer.write(b"x")
    peer.recv(data=b"x")
    return [".".join(map(str, frame[38:42])) for frame in stack.other_frames]


@pytest.mark.parametrize(
    "remote, hop",
    [
        ("10.9.0.77", "10.9.0.77"),
        ("10.9.0.200", "10.9.0.14"),  # longer than the link's own prefix
        ("10.8.4.1", "10.9.0.10"),
        ("10.8.5.1", "10.9.0.11"),
        ("10.8.5.7", "10.9.0.12"),
        ("192.168.3.4", "10.9.0.13"),
        ("172.16.0.1", "10.9.0.254"),
    ],
)
def test_the_longest_prefix_wins(make_stack, remote, hop):
    assert asked_for(make_stack(**ROUTED), remote) == [hop]


def test_the_order_in_which_routes_are_given_is_of_no_matter(make_stack):
    stack = make_stack(gateway="10.9.0.254", routes=ROUTED["routes"][::-1])
    assert asked_for(stack, "10.8.5.7") == ["10.9.0.12"]


@pytest.mark.parametrize("remote, hop", [("10.9.0.77", ["10.9.0.77"]), ("192.0.2.7", ["10.9.0.254"])])
def test_a_gateway_alone(make_stack, remote, hop):
    assert asked_for(make_stack(gateway="10.9.0.254"), remote) == hop


def test_beyond_the_routes_without_a_gateway_frames_go_back_the_way_they_came(make_stack):
    stack = make_stack(routes=ROUTED["routes"])
    assert asked_for(stack, "172.16.0.1") == []
    assert asked_for(stack, "10.8.4.1") == ["10.9.0.10"]


def test_frames_go_to_the_router_that_answers(make_stack):
    stack = make_stack(**ROUTED)
    peer = Peer(stack, ip="10.8.4.1").establish()
    stack.run(MINUTE + 10)
    peer.write(b"x")
    router = b"\x02\0\0\0\0\x10"
    stack.give(arp_reply(router, "10.9.0.10", stack.wire.mac, stack.ip))
    peer.write(b"y")
    assert stack.last_frame[:6] == router != MAC


def test_there_is_room_for_16(make_stack):
    many = [(f"10.8.{n}.0", 24, f"10.9.0.{100 + n}") for n in range(16)]
    stack = make_stack(gateway="10.9.0.254", routes=many)
    assert stack.core.record.route_count == ROUTES
    assert asked_for(stack, "10.8.15.1") == ["10.9.0.115"]
    with pytest.raises(SetupError, match="17 routes are too many: there is room for 16"):
        TestedStack(gateway="10.9.0.254", routes=[*many, ("10.7.0.0", 16, "10.9.0.1")])
