"""The memcached handler on the real stack in virtual time."""

from typing import Any

import pytest

from mpserve.apps.memcached import Memcached
from mpserve.dataplane.errors import SetupError


def ask(host: Any, client: Any, command: bytes) -> bytes:
    client.send(command)
    host.settle()
    reply: bytes = client.recv()
    return reply


def test_two_clients_share_a_store(mpserve_host: Any) -> None:
    host = mpserve_host(Memcached(), port=11211)
    one, two = host.connect(), host.connect()
    assert ask(host, one, b"set a 1 0 3\r\nabc\r\n") == b"STORED\r\n"
    assert ask(host, two, b"get a\r\n") == b"VALUE a 1 3\r\nabc\r\nEND\r\n"
    assert ask(host, two, b"get b\r\n") == b"END\r\n"
    assert b"STAT curr_connections 2\r\n" in ask(host, one, b"stats\r\n")
    assert ask(host, two, b"quit\r\n") == b"" and two.eof
    host.advance(0.1)
    two.close()
    host.advance(5.0)
    stats = ask(host, one, b"stats\r\n")
    assert b"STAT curr_connections 1\r\n" in stats and b"STAT total_connections 2\r\n" in stats
    assert b"STAT get_hits 1\r\n" in stats and b"STAT get_misses 1\r\n" in stats


def test_values_expire_by_the_worker_s_clock(mpserve_host: Any) -> None:
    host = mpserve_host(Memcached())
    client = host.connect()
    ask(host, client, b"set a 0 2 1\r\nx\r\n")
    host.advance(1.5)
    assert ask(host, client, b"get a\r\n").startswith(b"VALUE")
    host.advance(1.0)
    assert ask(host, client, b"get a\r\n") == b"END\r\n"
    ask(host, client, b"set a 0 0 1\r\nx\r\nflush_all 3\r\n")
    host.advance(1.0)
    assert ask(host, client, b"get a\r\n").startswith(b"VALUE")
    host.advance(3.0)
    assert ask(host, client, b"get a\r\n") == b"END\r\n"


def test_a_short_get_between_the_pieces_of_another_command(mpserve_host: Any) -> None:
    host = mpserve_host(Memcached())
    client = host.connect()
    ask(host, client, b"set a 0 0 1\r\nx\r\n")
    assert ask(host, client, b"set b 0 0 7\r\n") == b""
    assert ask(host, client, b"get a\r\n") == b""
    assert ask(host, client, b"\r\n") == b"STORED\r\n"
    assert ask(host, client, b"get b\r\n") == b"VALUE b 0 7\r\nget a\r\n\r\nEND\r\n"
    assert ask(host, client, b"get ") == b"" and ask(host, client, b"a\r\n").startswith(b"VALUE a 0 1\r\n")


def test_more_is_asked_for_than_the_send_buffer_holds(mpserve_host: Any) -> None:
    host = mpserve_host(Memcached())
    client = host.connect()
    value = bytes(range(256)) * 2000
    client.send(b"set a 0 0 %d\r\n%b\r\n" % (len(value), value))
    host.advance(1.0)
    assert client.recv() == b"STORED\r\n"
    client.send(b"get a\r\n" * 20 + b"get " + b"a " * 20 + b"\r\nget a\r\n")
    host.advance(5.0)
    answer = b"VALUE a 0 %d\r\n%b\r\n" % (len(value), value)
    assert client.recv() == (answer + b"END\r\n") * 20 + answer * 20 + b"END\r\n" + answer + b"END\r\n"
    assert host.stats["handler_errors"] == 0


def test_a_client_that_does_not_read_costs_little(mpserve_host: Any) -> None:
    handler = Memcached()
    host = mpserve_host(handler)
    client, other = host.connect(window=0), host.connect()
    client.send(b"set a 0 0 100000\r\n" + b"x" * 100_000 + b"\r\n" + b"get a\r\n" * 5000)
    host.advance(1.0)
    assert handler.store.count.bytes_written < 2_000_000
    assert ask(host, other, b"version\r\n").startswith(b"VERSION ")


def test_idle_timeout(mpserve_host: Any) -> None:
    host = mpserve_host(Memcached(idle_timeout=2.0))
    client = host.connect()
    host.advance(1.5)
    ask(host, client, b"version\r\n")
    host.advance(1.5)
    assert not client.eof
    host.advance(1.0)
    assert client.eof


@pytest.mark.parametrize("options", [{"memory_mib": 1}, {"max_item_bytes": 10}, {"max_item_bytes": 1 << 30}])
def test_options_that_make_no_sense(options: dict[str, int]) -> None:
    with pytest.raises(SetupError, match="give"):
        Memcached(**options)
