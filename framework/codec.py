"""Codecs: incremental parsers between TCP and a handler, compiled. They know no sockets, only bytes.

`parse(buf, start, end, out)` looks at the bytes [start, end) behind the address `buf`, where a request begins at `start`. It
returns the bytes that the request takes, PARTIAL if it is unfinished, or BAD. `out` is a row of int64 columns: the first two
say which part of the request the handler is given, as offsets from its beginning; the others are the codec's own. A
new request's columns are zero; an unfinished one's are as they were left, so that nothing is looked at twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from mpserve.dataplane.errors import SetupError

PARTIAL, BAD = 0, -1
BAD_REQUEST = 100  # an event's kind: a connection's stream is none of its codec's, or (a = 1) the codec has raised
NOT_A_NUMBER = -(1 << 63)  # what `parse_int` says of anything else
MOST_BYTES = 1 << 20  # of one request: what fits into a batch's arena with its neighbours


class Codec:
    """Subclass it and define `make_parse`, whose result is compiled: constants come from its closure.

    `most_bytes` is the longest request with all that frames it; one that is still unfinished then is BAD.
    """

    columns: ClassVar[int] = 2
    most_bytes: int

    def make_parse(self) -> Callable[[int, int, int, Any], int]:
        """A plain function `parse(buf, start, end, out)` within numba's subset."""
        raise NotImplementedError

    def __init_subclass__(cls) -> None:
        if not 2 <= cls.columns <= 1024:
            raise SetupError(f"{cls.__name__}.columns is {cls.columns}: give 2 to 1024")

    def check(self) -> None:
        """SetupError for what the box of a request can't hold."""
        if not 1 <= self.most_bytes <= MOST_BYTES:
            raise SetupError(f"{self!r}: requests of {self.most_bytes} bytes; there is room for 1 to {MOST_BYTES}")


class Lines(Codec):
    """Lines ended by LF or CR LF, which are not given. One of more than `max` bytes, its ending not counted, is BAD."""

    def __init__(self, max: int = 4096) -> None:
        self.max, self.most_bytes = max, max + 2
        self.check()

    def __repr__(self) -> str:
        return f"Lines(max={self.max})"

    def make_parse(self) -> Callable[[int, int, int, Any], int]:
        from mpserve.dataplane.memory import load8
        from mpserve.framework.views import find_in

        most = self.max

        def parse(buf, start, end, out):
            newline = find_in(buf, start + out[1], min(end, start + most + 2), 10)
            if newline < 0:
                out[1] = min(end - start, most + 2)  # looked at so far
                return BAD if end - start >= most + 2 else PARTIAL
            length = newline - start
            if length > 0 and load8(buf + newline - 1) == 13:
                length -= 1
            out[1] = length
            return newline + 1 - start if length <= most else BAD

        return parse


class Fixed(Codec):
    """Requests of `length` bytes each."""

    def __init__(self, length: int) -> None:
        self.length = self.most_bytes = length
        self.check()

    def __repr__(self) -> str:
        return f"Fixed({self.length})"

    def make_parse(self) -> Callable[[int, int, int, Any], int]:
        length = self.length

        def parse(buf, start, end, out):
            out[1] = length
            return length if end - start >= length else PARTIAL

        return parse


class LengthPrefixed(Codec):
    """An unsigned number of `bytes` (1 to 8) bytes, then as many bytes as it says, which are given. More than `max` are BAD."""

    def __init__(self, bytes: int = 4, order: str = "big", max: int = 65_536) -> None:
        if not 1 <= bytes <= 8:
            raise SetupError(f"LengthPrefixed(bytes={bytes}): give 1 to 8")
        if order not in ("big", "little"):
            raise SetupError(f'LengthPrefixed(order={order!r}): give "big" or "little"')
        self.bytes, self.order, self.max = bytes, order, max
        self.most_bytes = bytes + max
        if max < 0:
            raise SetupError(f"LengthPrefixed(max={max}): give 0 or more")
        self.check()

    def __repr__(self) -> str:
        return f"LengthPrefixed(bytes={self.bytes}, order={self.order!r}, max={self.max})"

    def make_parse(self) -> Callable[[int, int, int, Any], int]:
        from mpserve.dataplane.memory import load8

        size, most, is_big = self.bytes, self.max, self.order == "big"

        def parse(buf, start, end, out):
            if end - start < size:
                return PARTIAL
            length = 0
            for i in range(size):
                length = length << 8 | load8(buf + start + (i if is_big else size - 1 - i))
            if length < 0 or length > most:
                return BAD
            out[0], out[1] = size, size + length
            return size + length if end - start >= size + length else PARTIAL

        return parse
