"""The store: memory bound, order of eviction, expiry."""

import gc
import tracemalloc
from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st

from mpserve.apps.memcached.store import ITEM_OVERHEAD_BYTES, Store, weight


def put(store: Store, key: bytes, value: bytes = b"v", flags: int = 0, expires: float = inf) -> bool:
    return store.put(key, flags, expires, value + b"\r\n")


def test_an_item_answers_with_and_without_cas() -> None:
    store = Store(10_000)
    put(store, b"k", b"abc", 7)
    item = store.get(b"k", 0.0)
    assert item is not None and item.value == b"abc"
    assert item.answer == b"VALUE k 7 3\r\nabc\r\n"
    assert item.answer_with_cas() == b"VALUE k 7 3 1\r\nabc\r\n"


def test_the_least_recently_used_goes_first() -> None:
    store = Store(3 * (ITEM_OVERHEAD_BYTES + 30))
    for key in (b"a", b"b", b"c"):
        put(store, key)
    assert store.get(b"a", 0.0)
    put(store, b"d")
    assert [key for key in (b"a", b"b", b"c", b"d") if store.get(key, 0.0)] == [b"a", b"c", b"d"]
    assert store.count.evictions == 1


def test_a_value_larger_than_the_memory() -> None:
    store = Store(2000)
    put(store, b"a")
    assert not put(store, b"b", b"x" * 2000)
    assert store.get(b"a", 0.0) and not store.get(b"b", 0.0)
    assert not put(store, b"a", b"x" * 2000)
    assert store.bytes == 0 and not store.items


def test_expiry() -> None:
    store = Store(10_000, epoch=1_700_000_000.0)
    assert store.expiry(0, 5.0) == inf
    assert store.expiry(-1, 5.0) == -inf
    assert store.expiry(10, 5.0) == 15.0
    assert store.expiry(2592000, 5.0) == 2592005.0
    assert store.expiry(1_700_000_100, 5.0) == 100.0
    put(store, b"a", expires=10.0)
    assert store.get(b"a", 9.9)
    assert store.get(b"a", 10.0) is None
    assert store.count.reclaimed == 1 and store.bytes == 0


def test_a_delayed_flush() -> None:
    store = Store(10_000)
    put(store, b"a")
    store.flush_at = 5.0
    store.tick(4.9)
    assert store.get(b"a", 4.9)
    store.tick(5.0)
    assert store.get(b"a", 5.0) is None and store.flush_at == inf


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("sgd"), st.integers(0, 9), st.integers(0, 900)), max_size=60))
def test_bytes_are_the_sum_of_what_is_there(operations: list[tuple[str, int, int]]) -> None:
    store = Store(5000)
    for now, (operation, number, size) in enumerate(operations):
        key = b"%d" % number
        if operation == "s":
            put(store, key, b"x" * size, expires=now + size % 7)
        elif operation == "g":
            store.get(key, now)
        else:
            store.delete(key)
        assert store.bytes == sum(weight(key, item) for key, item in store.items.items()) <= 5000


def test_the_overhead_is_not_less_than_what_python_takes() -> None:
    store = Store(1 << 30)
    gc.collect()
    tracemalloc.start()
    try:
        for i in range(5000):
            put(store, b"key-%08d" % i, b"x" * 100)
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert 0.6 * store.bytes < used <= store.bytes
