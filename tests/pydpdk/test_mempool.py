"""Pools and memzones: made, found, counted, freed."""

import ctypes
import errno

import pytest

pytestmark = pytest.mark.dpdk


def function(name, arguments):
    from pydpdk import symbols

    return ctypes.CFUNCTYPE(*[ctypes.c_int64] * (arguments + 1))(symbols.address(name))


def test_counts_follow_allocation(start):
    from pydpdk import Mempool

    start()
    pool = Mempool.create("frames", 1023, data_room=512)
    assert (pool.name, pool.size, pool.data_room) == ("frames", 1023, 512)
    assert (pool.available(), pool.in_use()) == (1023, 0)
    mbufs = (ctypes.c_int64 * 10)()
    assert function("pydpdk_alloc_bulk", 3)(pool.address, ctypes.addressof(mbufs), 10) == 0
    assert len(set(mbufs)) == 10
    assert (pool.available(), pool.in_use()) == (1013, 10)
    assert function("pydpdk_pool_avail_count", 1)(pool.address) == 1013
    function("pydpdk_free_bulk", 2)(ctypes.addressof(mbufs), 10)
    assert pool.in_use() == 0


def test_exhausted_pool_gives_nothing(start):
    from pydpdk import Mempool

    start()
    pool = Mempool.create("frames", 7, cache=0)
    mbufs = (ctypes.c_int64 * 8)()
    assert function("pydpdk_alloc_bulk", 3)(pool.address, ctypes.addressof(mbufs), 8) < 0
    assert pool.in_use() == 0
    assert all(function("pydpdk_alloc", 1)(pool.address) for _ in range(7))
    assert function("pydpdk_alloc", 1)(pool.address) == 0


def test_found_by_name_and_freed(start):
    from pydpdk import DpdkError, Mempool

    start()
    pool = Mempool.create("frames", 63, cache=0)
    assert Mempool.lookup("frames").address == pool.address
    with pytest.raises(DpdkError) as refused:
        Mempool.create("frames", 63, cache=0)
    assert refused.value.errno == errno.EEXIST
    pool.free()
    pool.free()
    with pytest.raises(DpdkError) as refused:
        Mempool.lookup("frames")
    assert refused.value.errno == errno.ENOENT


def test_pool_beyond_the_memory_is_refused(start):
    from pydpdk import DpdkError, Mempool

    start()
    with pytest.raises(DpdkError, match="rte_pktmbuf_pool_create: Cannot allocate memory"):
        Mempool.create("frames", 1_000_000)


def test_fields_of_an_mbuf_are_where_the_layout_says(start):
    from pydpdk import Mempool, mbuf_layout

    start()
    layout = mbuf_layout()
    pool = Mempool.create("frames", 63, cache=0)
    mbuf = function("pydpdk_alloc", 1)(pool.address)
    function("pydpdk_mbuf_set_len", 2)(mbuf, 60)
    assert ctypes.c_uint16.from_address(mbuf + layout["data_len"]).value == 60
    assert ctypes.c_uint32.from_address(mbuf + layout["pkt_len"]).value == 60
    assert ctypes.c_uint16.from_address(mbuf + layout["data_off"]).value == layout["headroom"]
    assert ctypes.c_uint64.from_address(mbuf + layout["pool"]).value == pool.address
    data = ctypes.c_uint64.from_address(mbuf + layout["buf_addr"]).value + layout["headroom"]
    assert function("pydpdk_mbuf_data", 1)(mbuf) == data
    assert function("pydpdk_mbuf_headroom", 1)(mbuf) == layout["headroom"]
    assert function("pydpdk_mbuf_tailroom", 1)(mbuf) == pool.data_room - layout["headroom"] - 60
    assert function("pydpdk_mbuf_nb_segs", 1)(mbuf) == 1
    assert function("pydpdk_mbuf_next", 1)(mbuf) == 0
    function("pydpdk_mbuf_set_tx_offload", 5)(mbuf, 14, 20, 20, 1460)
    packed = 14 | 20 << 7 | 20 << 16 | 1460 << 24
    assert ctypes.c_uint64.from_address(mbuf + layout["tx_offload"]).value == packed


def test_memzone(start):
    from pydpdk import DpdkError, Memzone

    start()
    zone = Memzone.reserve("blocks", 100_000, align=4096)
    assert zone.size >= 100_000
    assert zone.address % 4096 == 0
    zone.buffer()[0:4] = b"abcd"
    assert ctypes.string_at(zone.address, 4) == b"abcd"
    assert Memzone.lookup("blocks").address == zone.address
    with pytest.raises(DpdkError) as refused:
        Memzone.reserve("blocks", 1)
    assert refused.value.errno == errno.EEXIST
    zone.free()
    with pytest.raises(DpdkError, match="rte_memzone_lookup: No such file or directory"):
        Memzone.lookup("blocks")


def test_packed_pool_has_no_gaps(start):
    """net_af_xdp registers as many bytes from the first object on as there are objects; without hugepages, by default,
    each has a page of its own."""
    from pydpdk import Mempool

    start()
    pool = Mempool.create("frames", 1023, cache=0, packed=True)
    alloc = function("pydpdk_alloc", 1)
    mbufs = sorted(alloc(pool.address) for _ in range(1023))
    stride = (mbufs[-1] - mbufs[0]) / 1022
    assert pool.pointer.elt_size < stride <= pool.pointer.elt_size + 128
    assert mbufs[1] - mbufs[0] == stride
    assert (pool.name, pool.data_room, pool.in_use()) == ("frames", 2176, 1023)


def test_packed_pool_refuses_what_others_do(start):
    from pydpdk import DpdkError, Mempool

    start()
    Mempool.create("frames", 63, cache=0, packed=True)
    for arguments, error in ((("frames", 63), errno.EEXIST), (("many", 1_000_000), errno.ENOMEM)):
        with pytest.raises(DpdkError) as refused:
            Mempool.create(*arguments, cache=0, packed=True)
        assert refused.value.errno == error
    with pytest.raises(DpdkError) as refused:
        Mempool.create("odd", 63, cache=0, private_bytes=3, packed=True)
    assert refused.value.errno == errno.EINVAL


def test_refill_takes_back_what_a_dead_process_held(start):
    from pydpdk import Mempool, symbols

    start()
    pool = Mempool.create("frames", 1023, packed=True)
    alloc = ctypes.CFUNCTYPE(*[ctypes.c_int64] * 4)(symbols.address("pydpdk_alloc_bulk"))
    mbufs = (ctypes.c_int64 * 1023)()
    assert alloc(pool.address, ctypes.addressof(mbufs), 400) == 0
    pool.refill()
    assert pool.available() == 1023
    assert alloc(pool.address, ctypes.addressof(mbufs), 1023) == 0 and len(set(mbufs)) == 1023
    assert pool.available() == 0
