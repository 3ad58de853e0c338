"""Named, contiguous DPDK memory, which other processes of the same file prefix find by its name."""

from __future__ import annotations

from typing import Any

from pydpdk.codes import call, check_pointer
from pydpdk.extension import ffi, lib, text


class Memzone:
    """Make one with `reserve`, find one with `lookup`."""

    def __init__(self, pointer: Any) -> None:
        self.pointer = pointer

    @classmethod
    def reserve(
        cls, name: str, size: int, *, align: int = 64, socket: int = -1, iova_contiguous: bool = False
    ) -> Memzone:
        """At least `size` bytes, of any content, at a multiple of `align`. DpdkError with ENOMEM, EEXIST, ENAMETOOLONG.
        rte_memzone_reserve_aligned."""
        flags = lib.RTE_MEMZONE_IOVA_CONTIG if iova_contiguous else 0
        pointer = lib.rte_memzone_reserve_aligned(name.encode(), size, socket, flags, align)
        return cls(check_pointer("rte_memzone_reserve_aligned", pointer))

    @classmethod
    def lookup(cls, name: str) -> Memzone:
        """A zone by its name; DpdkError with ENOENT. rte_memzone_lookup."""
        pointer = lib.rte_memzone_lookup(name.encode())
        return cls(check_pointer("rte_memzone_lookup", pointer))

    @property
    def name(self) -> str:
        return text(self.pointer.name)

    @property
    def address(self) -> int:
        return int(ffi.cast("uintptr_t", self.pointer.addr))

    @property
    def iova(self) -> int:
        """The address that a device uses."""
        return self.pointer.iova

    @property
    def size(self) -> int:
        """At least what was asked for."""
        return self.pointer.len

    def buffer(self) -> Any:
        """The bytes, writable, as a buffer: `numpy.frombuffer(zone.buffer(), dtype=...)`. Invalid after `free`."""
        return ffi.buffer(self.pointer.addr, self.size)

    def free(self) -> None:
        """rte_memzone_free."""
        call("rte_memzone_free", self.pointer)
        self.pointer = ffi.NULL
