"""A worker's place at the switchboard of its server's stacks: the shared memory, laid out by whichever worker comes first."""

from __future__ import annotations

import fcntl
import mmap
import os

from mpserve.dataplane.device import Device
from mpserve.dataplane.limits import Limits
from mpserve.dataplane.switchboard import Seat, Switchboard, size
from mpserve.framework.group import Group


def take_seat(group: Group, limits: Limits, device: Device) -> Seat | None:
    """The seat of the worker that this process is, None if it has no others or they are not stacks."""
    if group.board < 0:
        return None
    wanted = size(group.workers, limits)
    fcntl.flock(group.board, fcntl.LOCK_EX)  # which the kernel lets go of when its holder is killed
    try:
        if os.fstat(group.board).st_size < wanted:
            os.ftruncate(group.board, wanted)
        board = Switchboard(mmap.mmap(group.board, wanted), group.workers, limits)
        if not board.is_made:
            known = bool(device.rss_key) and limits.receive_flow_deliver
            board.make(rss_key=device.rss_key if known else b"", rss_table=device.rss_table)
    finally:
        fcntl.flock(group.board, fcntl.LOCK_UN)
    board.rows[group.index].wake_fd = group.wakes[group.index].descriptors[-1]
    return Seat(board, group.index)
