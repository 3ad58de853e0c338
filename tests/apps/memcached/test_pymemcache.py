"""The memcached handler as pymemcache sees it, on the real stack in virtual time."""

from typing import Any

import pytest

import mpserve
from mpserve.apps.memcached import Memcached

pymemcache = pytest.importorskip("pymemcache", reason="pymemcache isn't installed: pip install pymemcache")


@pytest.fixture
def host(mpserve_host: Any) -> Any:
    return mpserve_host(Memcached(memory_mib=8))


@pytest.fixture
def client(host: Any, socket_module: Any) -> Any:
    return pymemcache.Client(("10.9.0.2", 7), socket_module=socket_module(host), default_noreply=False)


def test_store_and_fetch(client: Any) -> None:
    assert client.set("a", b"1", flags=7)
    assert client.get("a") == b"1" and client.get("b") is None
    assert not client.add("a", b"2") and client.add("b", b"2")
    assert client.replace("b", b"3") and not client.replace("c", b"3")
    assert client.append("b", b"4") and client.prepend("b", b"2") and client.get("b") == b"234"
    assert client.delete("b") and not client.delete("b")


def test_many(client: Any) -> None:
    values = {f"key-{i}": b"%d" % i * (i % 50 + 1) for i in range(3000)}
    assert client.set_many(values) == []
    assert client.get_many(list(values) + ["nothing"]) == values
    assert client.set_many({"x": b"1", "y": b"2"}, noreply=True) == []
    assert client.delete_many(["x", "y"]) and client.get("x") is None


def test_cas(client: Any) -> None:
    client.set("a", b"1")
    value, cas = client.gets("a")
    assert value == b"1" and client.cas("a", b"2", cas)
    assert client.cas("a", b"3", cas) is False
    assert client.cas("b", b"3", b"1") is None


def test_arithmetic(client: Any) -> None:
    client.set("n", b"10")
    assert client.incr("n", 5) == 15 and client.decr("n", 20) == 0
    assert client.incr("nothing", 1) is None
    client.set("s", b"word")
    with pytest.raises(pymemcache.exceptions.MemcacheClientError, match="non-numeric value"):
        client.incr("s", 1)


def test_time(client: Any, host: Any) -> None:
    client.set("a", b"1", expire=5)
    client.set("b", b"1", expire=5)
    assert client.touch("b", 60)
    host.advance(6.0)
    assert client.get("a") is None and client.get("b") == b"1"
    assert client.flush_all(delay=10) and client.get("b") == b"1"
    host.advance(11.0)
    assert client.get("b") is None


def test_the_largest_value_and_one_more(client: Any) -> None:
    assert client.set("a", b"x" * 1_048_516) and len(client.get("a")) == 1_048_516
    with pytest.raises(pymemcache.exceptions.MemcacheServerError, match="object too large for cache"):
        client.set("a", b"x" * 1_048_517)
    assert client.get("a") is None


def test_the_rest(client: Any) -> None:
    assert client.version() == mpserve.__version__.encode()
    assert client.stats()[b"curr_connections"] == 1
    assert client.stats("settings")[b"item_size_max"] == 1 << 20
    client.quit()
    assert client.set("a", b"1")  # over a new connection
