"""`Group`: the memory that a server's processes share, and how one wakes another. Nothing here is on the path of a packet.

The supervisor makes it without a name, as a memfd, with an eventfd for each worker; every worker and spare inherits the
descriptors, and the last process that ends takes all of it away. Words are int64, in the processor's order:

    header            MAGIC, workers
    a row a worker    one cache line each: CORE, PID, GENERATION, STATE, written by the supervisor;
                      ASLEEP, written by the worker; MAIL, set by whoever sent it a message, cleared by the worker.
                      Then COUNTERS words: what the worker counts outside its stack (`counters`)

The stack's part, on the path of packets that went astray, is memory of its own: `board`, a `dataplane.switchboard` in it.

Whatever a process holds here outlives it: its successor finds the row as it was left, with the next GENERATION. Before it
sleeps a worker sets ASLEEP, then looks once more for what others may have left it; whoever leaves it something looks at
ASLEEP afterwards and, if it is set, calls `wake`. Both need a full fence between the two steps.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import fcntl
import mmap
import os
import socket
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from mpserve.dataplane.errors import SetupError
from mpserve.dataplane.member_rows import ROW_BYTES, STATE_AT
from mpserve.dataplane.member_rows import ROWS_AT as ROWS_ON_BOARD
from mpserve.framework.polling import Wake

MAGIC = 0x31_70_75_6F_72_67_70_6D  # "mpgroup1"
_LINE = 8  # words of a cache line
ROWS_AT = 2 * _LINE  # in words, as what follows; processors fetch lines in pairs
CORE, PID, GENERATION, STATE = range(4)
ASLEEP, MAIL = 2 * _LINE, 4 * _LINE
COUNTERS_AT, COUNTERS = 6 * _LINE, 64
ROW = COUNTERS_AT + COUNTERS + 2 * _LINE


class State(enum.IntEnum):
    """What the supervisor knows of a worker."""

    STARTING = 0
    SERVING = 1
    DEAD = 2


class Group:
    """One process's view. `index` is the worker's own number there; -1 in the supervisor."""

    def __init__(
        self, fd: int, wakes: Sequence[Wake], boxes: Sequence[tuple[int, int]], board: int = -1, index: int = -1
    ) -> None:
        """`fd` has the size and the header already; `boxes` are descriptors: to take messages from, to put them in.

        `board` is memory for a switchboard, -1 if there is none: empty, until the first worker gives it its size.
        """
        self.fd, self.wakes, self.boxes, self.board, self.index = fd, list(wakes), list(boxes), board, index
        self._map = mmap.mmap(fd, os.fstat(fd).st_size)
        self.words = memoryview(self._map).cast("q")
        self._first = ctypes.c_char.from_buffer(self._map)
        self.address = ctypes.addressof(self._first)
        magic, self.workers = self.words[:2].tolist()
        if magic != MAGIC:
            raise SetupError("the processes of this server are not of one version: stop it and start it again")

    @classmethod
    def create(cls, cores: Sequence[int], *, board: bool = False) -> Group:
        """Memory for a worker on each of these cores, in this order; with a `board`, stacks find each other."""
        fd = _make_memory(-(-8 * (ROWS_AT + ROW * len(cores)) // mmap.PAGESIZE) * mmap.PAGESIZE)
        os.pwrite(fd, memoryview((ctypes.c_int64 * 2)(MAGIC, len(cores))).cast("B"), 0)
        wakes, boxes = [Wake() for _ in cores], [_make_box() for _ in cores]
        made = cls(fd, wakes, boxes, os.memfd_create("mpserve-board", os.MFD_CLOEXEC) if board else -1)
        for index, core in enumerate(cores):
            made._put(index, CORE, core)
        return made

    # -- how a process comes to have it

    @property
    def descriptors(self) -> list[int]:
        """All that a child has to inherit."""
        wakes = {fd for wake in self.wakes for fd in wake.descriptors}
        boards = [self.board] if self.board >= 0 else []
        return [self.fd, *sorted(wakes), *(fd for pair in self.boxes for fd in pair), *boards]

    def invitation(self) -> dict[str, Any]:
        """What `attach` needs to know, for JSON."""
        wakes = [wake.descriptors for wake in self.wakes]
        return {"memory": self.fd, "wakes": wakes, "boxes": self.boxes, "board": self.board}

    @classmethod
    def attach(cls, invitation: Mapping[str, Any], index: int) -> Group:
        """The group that this process has inherited, as its worker of that number. What it starts does not inherit it."""
        wakes = [Wake(tuple(pair)) for pair in invitation["wakes"]]
        boxes = [tuple(pair) for pair in invitation["boxes"]]
        made = cls(invitation["memory"], wakes, boxes, invitation["board"], index)
        for fd in made.descriptors:
            os.set_inheritable(fd, False)
        return made

    # -- rows

    @property
    def cores(self) -> list[int]:
        """The core of each worker."""
        return [self.words[self.row(index) + CORE] for index in range(self.workers)]

    def row(self, index: int) -> int:
        """The word where a worker's row begins."""
        return ROWS_AT + ROW * index

    def row_address(self, index: int) -> int:
        """The same as an address, for compiled code, while this object is open."""
        return self.address + 8 * self.row(index)

    def get(self, index: int, field: int) -> int:
        """CORE, PID, GENERATION, STATE, ASLEEP or MAIL of a worker."""
        return self.words[self.row(index) + field]

    def _put(self, index: int, field: int, value: int) -> None:
        self.words[self.row(index) + field] = value

    def counters_of(self, index: int) -> memoryview:
        """A worker's COUNTERS words."""
        at = self.row(index) + COUNTERS_AT
        return self.words[at : at + COUNTERS]

    # -- the supervisor's

    def begin(self, index: int, pid: int) -> None:
        """A process is to serve as this worker."""
        self._put(index, PID, pid)
        self._put(index, GENERATION, self.get(index, GENERATION) + 1)
        self._put(index, ASLEEP, 0)
        self._put(index, STATE, State.STARTING)

    def serves(self, index: int) -> None:
        self._put(index, STATE, State.SERVING)

    def died(self, index: int) -> None:
        """The other stacks find no flows there any more."""
        self._put(index, STATE, State.DEAD)
        if self.board >= 0 and os.fstat(self.board).st_size:
            os.pwrite(self.board, bytes(8), ROWS_ON_BOARD + index * ROW_BYTES + STATE_AT)

    # -- a worker's

    def wake(self, index: int) -> None:
        """End a worker's sleep, or its next one if it does not sleep."""
        self.wakes[index].set()

    def close(self) -> None:
        """Addresses in it are invalid from here on."""
        self.words.release()
        del self._first
        with contextlib.suppress(BufferError):  # somebody still looks at it: it goes with the process
            self._map.close()
        for fd in self.descriptors:
            os.close(fd)


def _make_box() -> tuple[int, int]:
    """Two sockets: connected to each other, they are bounded by bytes, and not by net.unix.max_dgram_qlen messages."""
    taking, putting = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    return taking.detach(), putting.detach()


def _make_memory(size: int) -> int:
    """A descriptor of so many zeroed bytes without a name, which nobody can make smaller: that would kill who reads there."""
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile() as file:
            file.truncate(size)
            return os.dup(file.fileno())
    fd = os.memfd_create("mpserve-group", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd
