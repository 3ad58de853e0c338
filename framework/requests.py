"""The next request of a stream of bytes, by a codec: in place where it came whole, otherwise in the connection's residue.

`parse` and `OUT_COLUMNS` are put in by `bound`, once for each codec.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import FunctionType
from typing import Any

from mpserve.dataplane.jit import JIT, inner
from mpserve.dataplane.memory import copy, set_native64
from mpserve.framework.codec import BAD, PARTIAL, Codec
from mpserve.framework.residues import NO_RESIDUE, bytes_address, columns_address, keep_residue
from mpserve.framework.values import make_columns, whole

OUT_COLUMNS = 2
parse: Any = None


def _log_exception():
    logging.getLogger("mpserve.worker").exception("exception in compiled code of a handler, run as plain Python")


@inner
def _say_nothing():
    """Compiled code knows of an exception only that there was one."""


report = _say_nothing if JIT else _log_exception


def bound(function: Callable[..., Any], *, inline: bool = False, **names: Any) -> Callable[..., Any]:
    """A compiled copy of a plain function, with these names in place of its globals; part of its caller if `inline`."""
    assert isinstance(function, FunctionType)
    made = FunctionType(function.__code__, {**function.__globals__, **names}, function.__name__, function.__defaults__)
    return inner(made, inline)


def next_request(pool, row, start, end):
    """Parse at the new bytes [start, end), by address: (bytes of the request or PARTIAL or BAD, its address, how many of the
    new bytes are used up, its columns). A request in the residue stays there until `drop_residue`.
    """
    if row.residue == NO_RESIDUE:
        out = make_columns(pool.out, OUT_COLUMNS)
        _clear(pool.out)
        consumed = whole(parse(start, 0, end - start, out))
        if consumed == PARTIAL and (end - start >= pool.most or not keep_residue(pool, row, start, end - start)):
            consumed = BAD
        if consumed > end - start or consumed < PARTIAL:
            consumed = BAD
        return consumed, start, consumed if consumed > 0 else end - start, out
    here = bytes_address(pool, row.residue)
    out = make_columns(columns_address(pool, row.residue), OUT_COLUMNS)
    if row.residue_complete > 0:
        return row.residue_complete, here, 0, out
    held = row.residue_length
    fresh = min(end - start, pool.most - held)
    copy(here + held, start, fresh)
    row.residue_length = held + fresh
    consumed = whole(parse(here, 0, held + fresh, out))
    if consumed > 0:
        if consumed <= held or consumed > held + fresh:  # it was unfinished before: the codec is wrong
            return BAD, here, fresh, out
        return consumed, here, consumed - held, out
    if consumed < PARTIAL or (consumed == PARTIAL and held + fresh >= pool.most):
        consumed = BAD
    return consumed, here, fresh, out


@inner
def body_range(columns, consumed):
    """The part of a request that the handler gets, kept within the request."""
    start = min(max(columns[0], 0), consumed)
    return start, min(max(columns[1], start), consumed)


def _clear(address):
    for i in range(OUT_COLUMNS):
        set_native64(address + 8 * i, 0)


def request_parser(codec: Codec) -> Callable[..., Any]:
    """`next_request` for a codec, compiled."""
    clear = bound(_clear, OUT_COLUMNS=codec.columns)
    return bound(next_request, parse=inner(codec.make_parse()), OUT_COLUMNS=codec.columns, _clear=clear)
