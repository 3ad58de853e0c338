"""Flows that arrive on one core and belong to another, in virtual time: two cores of a group, a function for the NIC."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import mpserve
from mpserve.dataplane.switchboard import SHARES
from mpserve.testing.group_host import GroupHost
from mpserve.testing.segment import Segment


class Echo(mpserve.Handler):
    def on_data(self, sock, data):
        sock.write(data)


@pytest.fixture
def group() -> Iterator[Callable[..., GroupHost]]:
    hosts: list[GroupHost] = []

    def make(**settings: Any) -> GroupHost:
        hosts.append(GroupHost(settings.pop("handler", Echo), **settings))
        return hosts[-1]

    yield make
    for host in hosts:
        host.stop()


def echoes(host: GroupHost, client: Any, data: bytes) -> bool:
    client.send(data)
    host.settle()
    return client.recv() == data


def test_each_core_serves_what_arrives_on_its_queue(group):
    host = group()
    for _ in range(8):
        assert echoes(host, host.connect(), b"hello")
    assert host.stats("connections_accepted") == [4, 4]
    assert host.stats("steered_out") == [0, 0]


def test_a_syn_on_a_core_that_does_not_listen_goes_to_one_that_does(group):
    host = group(accepting=(1,), nic=lambda segment, count: 0)
    clients = [host.connect() for _ in range(8)]
    assert all(client.established for client in clients)
    for client in clients:
        assert echoes(host, client, b"x" * 4000)
        client.close()
    host.settle()
    assert all(client.eof for client in clients)
    assert host.stats("connections_accepted") == [0, 8]
    assert host.stats("steered_new") == [8, 0]
    assert host.stats("steered_out") == [host.arrived[0], 0] and host.stats("steered_in") == [0, host.arrived[0]]
    assert host.stats("rsts_sent") == [0, 0]


def test_a_device_with_one_queue_spreads_flows_over_all(group):
    host = group(one_receives=True, nic=lambda segment, count: 0, cores=3)
    for _ in range(60):
        assert echoes(host, host.connect(), b"hello")
    accepted = host.stats("connections_accepted")
    assert sum(accepted) == 60 and min(accepted) >= 8
    assert host.stats("drop_steer_full") == [0, 0, 0] and host.stats("rsts_sent") == [0, 0, 0]


def test_a_flow_may_change_its_queue_at_any_segment(group):
    turns = iter(range(1 << 30))
    host = group(nic=lambda segment, count: next(turns) % count)
    clients = [host.connect() for _ in range(6)]
    for _ in range(5):
        for client in clients:
            assert echoes(host, client, b"y" * 3000)
    for client in clients:
        client.close()
    host.settle()
    assert all(client.eof and not client.was_reset for client in clients)
    assert sum(host.stats("connections_accepted")) == 6
    assert host.stats("rsts_sent") == [0, 0]


def test_a_syn_sent_again_that_comes_to_another_core_opens_no_second_connection(group):
    host = group()
    client = host.connect(sport=40_002)
    host.members[1].take(Segment(40_002, 7, 1000, 0, "S", 65535, b"", b"", "10.9.0.1", host.ip))
    host.settle()
    assert host.stats("syns_received") == [1, 0]
    assert echoes(host, client, b"still there")


def test_nobody_listens(group):
    host = group(nic=lambda segment, count: 0)
    client = host.connect(port=9)
    assert client.was_reset and not client.established
    assert host.stats("steered_out") == [0, 0]


def test_arp_replies_reach_all_cores(group):
    """Each asks for itself; one queue gets all the answers."""
    host = group(handler=Caller, nic=lambda segment, count: 0)
    accepted = host.listen(9)
    for member in host.members:
        member.handler.call()
    host.settle()
    host.advance(0.01)
    assert len(accepted) == 2 and all(client.established for client in accepted)


class Caller(mpserve.Handler):
    """Connects to 10.9.0.1:9 when it is told to."""

    def on_start(self, worker):
        self.worker = worker
        self.sock = None

    def call(self):
        self.sock = self.worker.connect(("10.9.0.1", 9))

    def on_data(self, sock, data):
        sock.write(data)


def test_no_two_cores_take_the_same_port(group):
    host = group(handler=Caller)
    host.listen(9)
    for _ in range(20):
        for member in host.members:
            member.handler.call()
        host.settle()
    ports = [[key[2] for key in host.accepted if key[2] % 2 == parity] for parity in (0, 1)]
    assert len(ports[0]) == len(ports[1]) == 20


def test_an_outgoing_connection_whose_replies_come_to_the_other_core(group):
    host = group(handler=Caller, nic=lambda segment, count: 1)
    accepted = host.listen(9)
    host.members[0].handler.call()
    host.settle()
    accepted[0].send(b"question")
    host.settle()
    assert accepted[0].recv() == b"question"
    assert host.stats("steered_in")[0] > 0 and host.stats("rsts_sent") == [0, 0]


def test_a_dead_core_takes_only_its_own_connections(group):
    host = group()
    clients = [host.connect() for _ in range(6)]
    host.kill(1)
    mine = [client for client in clients if client.local[1] % 2 == 0]
    for client in mine:
        assert echoes(host, client, b"unharmed")
    host.start(1)
    for client in clients:
        client.send(b"anybody there?")
    host.settle()
    assert [client.was_reset for client in clients] == [client not in mine for client in clients]
    assert echoes(host, host.connect(), b"new")


def test_what_is_steered_to_a_core_that_is_down_waits_for_its_successor(group):
    """A SYN that was on its way as the core died."""
    host = group(accepting=(1,), nic=lambda segment, count: 0)
    host.connect()
    dying = host.members[1]
    host.clients.clear()
    host.members[1] = None  # it takes no more turns, and nobody has noticed yet
    client = host.connect()
    assert not client.established
    dying.worker.close()
    dying._wire.close()
    host.start(1)
    host.settle()
    assert client.established and echoes(host, client, b"served")


def test_cookies_of_one_core_are_good_at_another(group):
    host = group(syn_backlog=1, nic=lambda segment, count: 0 if "S" in segment.flags else 1)
    for port in (50_001, 50_002, 50_003):
        host.members[0].take(Segment(port, 7, 77, 0, "S", 65535, b"", b"", "10.9.0.9", host.ip))
        host.members[0].worker.step(sleep=False)
    host.members[0]._wire.collect()
    client = host.connect()
    assert host.stats("syn_cookies_sent")[0] >= 1
    assert client.established and echoes(host, client, b"hello")
    assert host.stats("syn_cookies_taken") == [0, 1]


def test_a_full_ring_drops_and_counts(group):
    host = group(accepting=(1,), nic=lambda segment, count: 0, rcvbuf_bytes=1 << 22, rcvbuf_max_bytes=1 << 22)
    client = host.connect()
    sleeper = host.members[1]
    host.members[1] = None
    payload = b"z" * 1460
    for n in range(900):
        host.members[0].take(
            Segment(client.local[1], 7, 5000 + 1460 * n, 1, "A", 65535, payload, b"", "10.9.0.1", host.ip)
        )
        host.members[0].worker.step(sleep=False)
    host.members[1] = sleeper
    assert host.stats("drop_steer_full")[0] > 0
    host.settle()
    assert host.stats("steered_in")[1] == host.stats("steered_out")[0]
    assert echoes(host, client, b"and on it goes")


def test_new_flows_are_handed_on_as_a_core_asks(group):
    host = group()
    established = host.connect(sport=50_000)
    host.board.rows[0].redirect_to, host.board.rows[0].redirect_share = 1, SHARES // 2
    for sport in range(40_000, 40_200, 2):  # all on core 0's queue
        assert echoes(host, host.connect(sport=sport), b"hello")
    kept, taken = host.stats("connections_accepted")
    assert kept + taken == 101 and 30 < taken < 70
    assert echoes(host, established, b"still here")
    assert host.stats("rsts_sent") == [0, 0] and host.stats("steered_new")[0] == taken


def test_nothing_is_handed_on_to_who_does_not_accept(group):
    host = group(accepting=(0,))
    for to in (1, 5, -1):
        host.board.rows[0].redirect_to, host.board.rows[0].redirect_share = to, SHARES
        assert echoes(host, host.connect(), b"hello")
    assert host.stats("connections_accepted") == [3, 0]


def test_a_device_with_one_queue_gives_a_busy_core_less(group):
    host = group(one_receives=True, nic=lambda segment, count: 0, cores=3)
    host.board.rows[2].redirect_to, host.board.rows[2].redirect_share = 1, SHARES
    for _ in range(30):
        assert echoes(host, host.connect(), b"hello")
    first, second, third = host.stats("connections_accepted")
    assert third == 0 and second > first > 0


def test_a_shared_accept_queue_serves_every_connection_once(group):
    """Whoever looks first has it; the cores of this test look in turn, and each takes one at a look."""
    host = group(accept="shared", nic=lambda segment, count: 0)
    clients = [host.connect() for _ in range(20)]
    for client in clients:
        assert echoes(host, client, b"z" * 3000)
        client.close()
    host.settle()
    assert all(client.eof and not client.was_reset for client in clients)
    assert sum(host.stats("connections_accepted")) == 20
    assert host.stats("rsts_sent") == [0, 0]
