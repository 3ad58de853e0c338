"""`CompiledHandler`: a handler whose callbacks are compiled by numba and run inside the loop, with no interpreter on the path."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numba.core.errors import NumbaError, UnsupportedBytecodeError

from mpserve.dataplane.errors import SetupError
from mpserve.dataplane.jit import JIT, BoundUnit, inner
from mpserve.dataplane.memory import allocate, unregister
from mpserve.framework import compiled_connection, compiled_entry, views  # noqa: F401  (views: methods of data)
from mpserve.framework.compiled_connection import HEAD, ROW
from mpserve.framework.compiled_errors import check_callback, check_names, definition_place, explain
from mpserve.framework.compiled_fields import Field, Memory, annotations_of, lay_out
from mpserve.framework.handler import Handler
from mpserve.framework.options import REQUIRED
from mpserve.framework.reached import facts
from mpserve.framework.requests import bound, request_parser
from mpserve.framework.residues import Residues
from mpserve.framework.values import place_maker, place_type

if TYPE_CHECKING:
    from mpserve.dataplane.core import Core

CALLBACKS = {  # name -> arguments, self included
    "on_accept": (2,),
    "on_data": (3,),
    "on_request": (3, 4),
    "on_eof": (2,),
    "on_writable": (2,),
    "on_timeout": (2,),
    "on_close": (3,),
}
IN_PYTHON = ("on_start", "on_stop")


def _nothing(self, conn):
    """What a handler leaves out."""


def _close(self, conn):
    conn.close()


def _no_reason(self, conn, reason):
    """What a handler leaves out."""


def _no_data(self, conn, data):
    """Data that nobody asked for."""


_DEFAULTS: dict[str, Callable[..., Any]] = {
    "on_accept": _nothing,
    "on_data": _no_data,
    "on_eof": _close,
    "on_writable": _nothing,
    "on_timeout": _close,
    "on_close": _no_reason,
}


class CompiledHandler(Handler):
    """Subclass it and define callbacks within numba's subset, which `docs/handlers.md` lists.

    Annotated attributes are fields of the handler's record, and its options unless their name begins with an underscore;
    those of a nested class `Connection` are fields of each connection, zero at accept. With `codec`, `on_request(self, conn,
    request)` gets whole requests in place of `on_data`. `on_start(self, worker)` and `on_stop(self)` run in Python.

    A mistake is a SetupError where the class is defined, with its file and line.
    """

    is_compiled: ClassVar[bool] = True
    unit: ClassVar[BoundUnit]  # the compiled entry
    _layout: ClassVar[tuple[Any, int, int]]  # fields of the handler, bytes of its record, bytes of a connection's row

    class Connection:
        """Annotate the fields of a connection here."""

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        callbacks, methods = _functions_of(cls)
        for name, function in callbacks.items():
            check_callback(cls.__qualname__, name, function, CALLBACKS)
        check_names(cls.__qualname__, {**callbacks, **methods})
        try:
            cls._define(callbacks, methods)
        except SetupError as error:
            if ", line " in str(error):
                raise
            raise SetupError(f"{definition_place()}{error}") from None

    @classmethod
    def _define(cls, callbacks: dict[str, Any], methods: dict[str, Any]) -> None:
        """Lay the records out, and compile."""
        fields, size = lay_out(cls, annotations_of(cls, CompiledHandler), HEAD.itemsize, bytes_too=True)
        row_fields, row_size = lay_out(cls.Connection, annotations_of(cls.Connection), ROW.itemsize, bytes_too=False)
        cls._layout = (fields, size, row_size)
        for name in fields:
            given = cls.__dict__.get(name, getattr(cls, name, REQUIRED))
            setattr(cls, name, given if isinstance(given, Field) else Field(name, given))
        if callbacks:
            _check_codec(cls, callbacks)
            me = place_type(cls.__name__, fields, methods)
            conn = place_type("Connection", row_fields, compiled_connection.METHODS)
            cls.unit = _make_unit(
                cls, callbacks, place_maker(me), place_maker(conn), facts(methods, fields, row_fields)
            )
            _compile(cls, {**callbacks, **methods})

    @functools.cached_property
    def _memory(self) -> Memory:
        fields, size, _ = self._layout
        memory = Memory(fields, size)
        for name in fields:
            default = getattr(type(self), name, REQUIRED)
            if default is not REQUIRED:
                memory.set(name, default)
        return memory

    def install(self, core: Core) -> None:
        """Have `core` call this handler for every batch. SetupError for one without callbacks."""
        if not hasattr(self, "unit"):
            raise SetupError(f"{type(self).__name__} has no callback: define one of {', '.join(CALLBACKS)}")
        connections, row_bytes = core.limits.max_connections, self._layout[2]
        self._rows = allocate(np.uint8, connections * row_bytes)
        head = self._head
        head["rows"], head["row_bytes"] = self._rows.ctypes.data, row_bytes
        self._residues: Residues | None = None
        if self.codec is not None:
            self._residues = Residues(self.codec.most_bytes, self.codec.columns, connections)
            head["pool"] = self._residues.address
        core.record.handler, core.record.handler_state = self.unit.address, self._memory.address

    def uninstall(self, core: Core) -> None:
        """Give the memory of connections back; the core is not turned any more."""
        core.record.handler = core.record.handler_state = 0
        unregister(self._rows.ctypes.data)
        if self._residues is not None:
            self._residues.close()

    @property
    def errors(self) -> int:
        """Callbacks that raised; each aborted its connection."""
        return int(self._head["errors"])

    @property
    def counters(self) -> dict[str, int]:
        """Writes that were refused, and what a codec's requests came to, if there is one."""
        requests = {} if self._residues is None else self._residues.counters
        return {"refused_writes": int(self._head["refused"])} | requests

    @property
    def _head(self) -> Any:
        return self._memory.words()[: HEAD.itemsize // 8].view(HEAD)[0]


def _check_codec(cls: type[CompiledHandler], callbacks: dict[str, Any]) -> None:
    """Requests are for `on_request`, bytes as they come for `on_data`."""
    wanted, other = ("on_data", "on_request") if cls.codec is None else ("on_request", "on_data")
    if other in callbacks:
        raise SetupError(
            f"{cls.__qualname__} has {'no' if cls.codec is None else 'a'} codec: define {wanted}, not {other}"
        )
    if cls.codec is not None and wanted not in callbacks:
        raise SetupError(f"{cls.__qualname__} has a codec: define on_request(self, conn, request)")


def _functions_of(cls: type) -> tuple[dict[str, Callable[..., Any]], dict[str, Callable[..., Any]]]:
    """The callbacks of a handler and its other methods, those of classes above it included."""
    found: dict[str, Any] = {}
    for each in reversed(cls.__mro__[: cls.__mro__.index(CompiledHandler)]):
        found.update(vars(each))
    functions = {
        name: getattr(value, "py_func", value)
        for name, value in found.items()
        if isinstance(getattr(value, "py_func", value), FunctionType)
        and name not in IN_PYTHON
        and not (name.startswith("__") and name.endswith("__"))
    }
    callbacks = {name: value for name, value in functions.items() if name.startswith("on_")}
    return callbacks, {name: value for name, value in functions.items() if name not in callbacks}


def _make_unit(cls: type[CompiledHandler], callbacks: dict[str, Any], me: Any, conn: Any, more_facts: str) -> BoundUnit:
    """The entry with this handler's functions in it."""
    codec = cls.codec
    names: dict[str, Any] = {"make_handler": me, "make_connection": conn}
    for name, function in {**_DEFAULTS, **callbacks}.items():
        names[name] = inner(function, inline=name == "on_data")
    if codec is not None:
        names["next_request"] = request_parser(codec)
        names["on_request"] = _with_columns(callbacks["on_request"])
        names["give"] = bound(compiled_entry.give_requests, **names)
    else:
        names["give"] = bound(compiled_entry.give_data, **names, inline=True)  # a call costs 1 to 2 ns an event
    for name in ("handle_writable", "handle_read", "handle_event", "handle_events"):
        names[name] = bound(getattr(compiled_entry, name), **names, inline=name == "handle_read")
    entry = compiled_entry.entry
    made = FunctionType(entry.__code__, {**entry.__globals__, **names}, entry.__name__)
    depends = facts(callbacks, codec.make_parse() if codec else None, codec.columns if codec else 0)
    return BoundUnit(f"handler-{cls.__name__}", made, f"{depends} {more_facts}")


def _with_columns(function: Any) -> Any:
    """`on_request` with all that a codec says, whether or not the handler wants it."""
    given = inner(function)
    if function.__code__.co_argcount == 4:
        return given

    def on_request(self, conn, request, columns):
        given(self, conn, request)

    return inner(on_request)


def _compile(cls: type[CompiledHandler], functions: dict[str, Any]) -> None:
    """Compile what isn't cached, so that mistakes are met here."""
    if JIT and not cls.unit.is_cached():
        try:
            cls.unit.address  # noqa: B018  # compiled by asking
        except (NumbaError, UnsupportedBytecodeError) as error:
            raise explain(cls.__qualname__, functions, error) from None
