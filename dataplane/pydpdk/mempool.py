"""Packet buffer pools, and where the fields of an mbuf are."""

from __future__ import annotations

import errno
from typing import Any

from pydpdk.codes import call, check_pointer, fail
from pydpdk.errors import DpdkError
from pydpdk.extension import ffi, lib, text

DEFAULT_BUF_SIZE = lib.RTE_MBUF_DEFAULT_BUF_SIZE
HEADROOM = lib.RTE_PKTMBUF_HEADROOM
CACHE_MAX = lib.RTE_MEMPOOL_CACHE_MAX_SIZE
ANY_SOCKET = lib.SOCKET_ID_ANY

MBUF_FIELDS = (
    "buf_addr data_off refcnt nb_segs port ol_flags packet_type pkt_len data_len vlan_tci buf_len pool next tx_offload"
).split()


def mbuf_layout() -> dict[str, int]:
    """The offset in bytes of each field of struct rte_mbuf as this DPDK has it, its `sizeof`, and the `headroom`."""
    layout = {name: int(ffi.offsetof("struct rte_mbuf", name)) for name in MBUF_FIELDS}
    return {**layout, "sizeof": int(ffi.sizeof("struct rte_mbuf")), "headroom": int(HEADROOM)}


class Mempool:
    """A pool of mbufs. Make one with `create`, or find one that another process made with `lookup`."""

    def __init__(self, pointer: Any) -> None:
        self.pointer = pointer

    @classmethod
    def create(
        cls,
        name: str,
        count: int,
        *,
        cache: int = 256,
        private_bytes: int = 0,
        data_room: int = DEFAULT_BUF_SIZE,
        socket: int = ANY_SOCKET,
        packed: bool = False,
    ) -> Mempool:
        """`count` mbufs of `data_room` bytes, headroom included; 2^q - 1 uses memory best. Each lcore caches up to
        `cache` of them (at most CACHE_MAX and 2/3 of count). DpdkError with ENOMEM, EEXIST, EINVAL.
        rte_pktmbuf_pool_create.

        `packed` lays them out without gaps, across pages (RTE_MEMPOOL_F_NO_IOVA_CONTIG), which hardware may not like. Of
        a pool with gaps net_af_xdp registers too little: frames in the mbufs beyond are lost, and the mbufs with them.
        """
        if packed:
            return cls(_create_packed(name, count, cache, private_bytes, data_room, socket))
        pointer = lib.rte_pktmbuf_pool_create(name.encode(), count, cache, private_bytes, data_room, socket)
        return cls(check_pointer("rte_pktmbuf_pool_create", pointer))

    @classmethod
    def lookup(cls, name: str) -> Mempool:
        """A pool by its name; DpdkError with ENOENT. rte_mempool_lookup."""
        return cls(check_pointer("rte_mempool_lookup", lib.rte_mempool_lookup(name.encode())))

    @property
    def address(self) -> int:
        """What compiled code calls the pool by."""
        return int(ffi.cast("uintptr_t", self.pointer))

    @property
    def name(self) -> str:
        return text(self.pointer.name)

    @property
    def size(self) -> int:
        return self.pointer.size

    @property
    def data_room(self) -> int:
        """Bytes of an mbuf's buffer, headroom included. rte_pktmbuf_data_room_size."""
        return lib.pydpdk_pool_data_room(self.pointer)

    def available(self) -> int:
        """How many mbufs are free, those in caches included; it walks all lcores. rte_mempool_avail_count."""
        return lib.rte_mempool_avail_count(self.pointer)

    def in_use(self) -> int:
        """How many mbufs are allocated. rte_mempool_in_use_count."""
        return lib.rte_mempool_in_use_count(self.pointer)

    def refill(self) -> None:
        """Put every mbuf back, whoever holds it: for the pool of a process that was killed, maybe in the middle of taking one.
        Nobody may use the pool meanwhile, nor an mbuf of it afterwards. DpdkError with ENOTSUP where its mbufs are not kept
        in a ring of DPDK's."""
        call("pydpdk_pool_refill", self.pointer)

    def free(self) -> None:
        """Give the memory back; nobody may hold an mbuf of it. Twice is once. rte_mempool_free."""
        lib.rte_mempool_free(self.pointer)
        self.pointer = ffi.NULL

    def __repr__(self) -> str:
        return f"<Mempool {self.name!r} of {self.size}>" if self.pointer else "<Mempool, freed>"


def _create_packed(name: str, count: int, cache: int, private_bytes: int, data_room: int, socket: int) -> Any:
    """The steps of rte_pktmbuf_pool_create, but for the flag."""
    if private_bytes % lib.RTE_MBUF_PRIV_ALIGN:
        fail("rte_pktmbuf_pool_create", errno.EINVAL)
    sizes = ffi.new("struct rte_pktmbuf_pool_private *")
    sizes.mbuf_data_room_size, sizes.mbuf_priv_size = data_room, private_bytes
    bytes_each = ffi.sizeof("struct rte_mbuf") + private_bytes + data_room
    flags = lib.RTE_MEMPOOL_F_NO_IOVA_CONTIG
    pool = lib.rte_mempool_create_empty(name.encode(), count, bytes_each, cache, ffi.sizeof(sizes[0]), socket, flags)
    check_pointer("rte_mempool_create_empty", pool)
    try:
        call("rte_mempool_set_ops_byname", pool, lib.rte_mbuf_best_mempool_ops(), ffi.NULL)
        lib.rte_pktmbuf_pool_init(pool, sizes)
        call("rte_mempool_populate_default", pool)
    except DpdkError:
        lib.rte_mempool_free(pool)
        raise
    lib.rte_mempool_obj_iter(pool, ffi.addressof(lib, "rte_pktmbuf_init"), ffi.NULL)
    return pool
