"""DPDK's three ways to fail (a negative code, -1 or NULL with rte_errno) become DpdkError."""

from typing import Any, NoReturn

from pydpdk.errors import DpdkError
from pydpdk.extension import ffi, lib, text


def strerror(errno: int) -> str:
    """DPDK's text for a positive error code. rte_strerror."""
    return text(lib.rte_strerror(errno))


def fail(function: str, errno: int) -> NoReturn:
    raise DpdkError(function, errno, strerror(errno))


def check(function: str, code: int) -> int:
    """`code` if it isn't negative; otherwise raises DpdkError for -code."""
    if code < 0:
        fail(function, -code)
    return code


def check_errno(function: str, code: int) -> int:
    """`code` if it isn't negative; otherwise raises DpdkError for rte_errno."""
    if code < 0:
        fail(function, lib.pydpdk_errno())
    return code


def check_pointer(function: str, pointer: Any) -> Any:
    """`pointer` if it isn't NULL; otherwise raises DpdkError for rte_errno."""
    if pointer == ffi.NULL:
        fail(function, lib.pydpdk_errno())
    return pointer


def call(function: str, *arguments: Any) -> int:
    """Call DPDK's `function` and return its code; DpdkError if that is negative."""
    return check(function, getattr(lib, function)(*arguments))
