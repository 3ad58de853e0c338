"""What `Channel.dispatch` gives: completions of commands."""

from __future__ import annotations

import errno
from enum import IntEnum
from typing import Any, NamedTuple

from mpserve.dataplane.events import Reason


class Kind(IntEnum):
    """The command that has completed."""

    ACCEPT = 1
    READ = 2
    WRITE = 3
    CONNECT = 4
    DISCONNECT = 5


class Completion(NamedTuple):
    """A command has completed, well or not.

    `result` is bytes for READ (0: end of stream) and WRITE, 0 for the others, or a negative errno: -errno.ECONNRESET.
    """

    kind: Kind
    handle: int
    cookie: Any
    result: int
    data: bytes = b""  # of a READ: yours to keep
    endpoint: Any = None  # of an ACCEPT: the new connection, to be registered or closed
    waiting: int = 0  # of an ACCEPT: connections that wait to be accepted; -1 where the kernel does not tell


ERRNO_OF = {  # of the end of a connection
    Reason.FINISHED: errno.EPIPE,  # for who writes on; who reads gets the end of the stream
    Reason.RESET: errno.ECONNRESET,
    Reason.ABORTED: errno.ECONNABORTED,
    Reason.TIMED_OUT: errno.ETIMEDOUT,
    Reason.SLOW_READER: errno.ENOBUFS,
    Reason.NO_MEMORY: errno.ENOBUFS,
    Reason.REFUSED: errno.ECONNREFUSED,
    Reason.UNREACHABLE: errno.EHOSTUNREACH,
}
