"""Values of compiled handlers and codecs that numba doesn't know: a range of bytes, a row of columns, a record with methods.

Each is a class of plain Python for NUMBA_DISABLE_JIT=1 and a numba type of one or two int64; what they do is written once.
"""

# numba's decorators make something else of a function than a type checker can see.
# mypy: disable-error-code="call-arg, arg-type, call-overload, override, return-value"

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Mapping
from typing import Any

import llvmlite.ir as ir
import numba
import numpy as np
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import (
    intrinsic,
    lower_getattr_generic,
    lower_setattr_generic,
    make_attribute_wrapper,
    models,
    overload,
    overload_method,
    register_model,
)

from mpserve.dataplane.jit import INNER_OPTIONS, JIT
from mpserve.dataplane.memory import native64, register, set_native64

_I64 = ir.IntType(64)


def method(kind: type, name: str, function: Callable[..., Any]) -> None:
    """Make `function(self, ...)` a method of the numba type `kind`."""

    def typer(*arguments: Any, **_: Any) -> Callable[..., Any]:
        return function

    typer.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    overload_method(kind, name, jit_options=INNER_OPTIONS)(typer)


# ---------------------------------------------------------------- whole numbers


@intrinsic
def _whole_compiled(context: Any, number: Any) -> Any:
    kind = types.unliteral(number)
    if not isinstance(kind, types.Integer | types.Boolean):
        raise numba.errors.TypingError(f"a whole number is wanted here, not {kind}")
    return types.int64(kind), lambda context, builder, signature, given: context.cast(
        builder, given[0], kind, types.int64
    )


def _whole_python(number: Any) -> np.int64:
    value = operator.index(number)
    return np.int64(value if -(1 << 63) <= value < 1 << 63 else -1)


# An integer of any type as int64; what is too large for one becomes negative. A float is refused: if it is out of range, compiled
# code may make anything of it.
whole: Callable[..., Any] = _whole_compiled if JIT else _whole_python

# ---------------------------------------------------------------- ranges of bytes


class View:
    """`length` bytes at an address: data that came, a request, room for a reply. Its methods stand in `views.py`."""

    __slots__ = ("address", "length")

    def __init__(self, address: int, length: int) -> None:
        self.address, self.length = np.int64(address), np.int64(length)

    def __len__(self) -> int:
        return int(self.length)


class ViewType(types.Type):
    """numba's type of a View."""

    def __init__(self) -> None:
        super().__init__("View")


VIEW = ViewType()


@register_model(ViewType)
class _ViewModel(models.StructModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, [("address", types.int64), ("length", types.int64)])


make_attribute_wrapper(ViewType, "address", "address")
make_attribute_wrapper(ViewType, "length", "length")


@overload(len, jit_options=INNER_OPTIONS)
def _view_length(view):
    return (lambda view: view.length) if isinstance(view, ViewType) else None


@overload(bool, jit_options=INNER_OPTIONS)
def _view_truth(view):
    return (lambda view: view.length > 0) if isinstance(view, ViewType) else None


@intrinsic
def _make_view(context: Any, address: Any, length: Any) -> Any:
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        made = cgutils.create_struct_proxy(VIEW)(context, builder)
        made.address, made.length = arguments
        return made._getvalue()

    return VIEW(types.int64, types.int64), lower


@intrinsic
def _view_of_compiled(context: Any, data: Any) -> Any:
    """The View of `bytes`, and of a View itself."""
    if data == VIEW:
        return VIEW(VIEW), lambda context, builder, signature, arguments: arguments[0]
    if not isinstance(data, types.Bytes):
        raise numba.errors.TypingError(f"bytes or data are wanted here, not {data}")

    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(data)(context, builder, arguments[0])
        made = cgutils.create_struct_proxy(VIEW)(context, builder)
        made.address, made.length = builder.ptrtoint(array.data, _I64), array.nitems
        return made._getvalue()

    return VIEW(data), lower


_CONSTANTS: dict[bytes, np.ndarray] = {}


def _view_of_python(data: Any) -> View:
    if isinstance(data, View):
        return data
    array = _CONSTANTS.setdefault(data, np.frombuffer(data + b"\0", np.uint8))
    return View(register(array), len(data))


make_view: Callable[..., Any] = _make_view if JIT else View
view_of: Callable[..., Any] = _view_of_compiled if JIT else _view_of_python

# ---------------------------------------------------------------- rows of columns


class Columns:
    """What a codec says of a request: `count` int64 words, by index. Beyond them it reads 0 and takes nothing."""

    __slots__ = ("address", "count")

    def __init__(self, address: int, count: int) -> None:
        self.address, self.count = np.int64(address), np.int64(count)

    def __getitem__(self, index: int) -> int:
        at = whole(index)
        return int(native64(self.address + 8 * at)) if 0 <= at < self.count else 0

    def __setitem__(self, index: int, value: int) -> None:
        at = whole(index)
        if 0 <= at < self.count:
            set_native64(self.address + 8 * at, value)


class ColumnsType(types.Type):
    """numba's type of Columns."""

    def __init__(self) -> None:
        super().__init__("Columns")


COLUMNS = ColumnsType()


@register_model(ColumnsType)
class _ColumnsModel(models.StructModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, [("address", types.int64), ("count", types.int64)])


make_attribute_wrapper(ColumnsType, "address", "address")
make_attribute_wrapper(ColumnsType, "count", "count")


@overload(operator.getitem, jit_options=INNER_OPTIONS)
def _column(columns, index):
    if not isinstance(columns, ColumnsType):
        return None

    def load(columns, index):
        at = whole(index)
        return native64(columns.address + 8 * at) if 0 <= at < columns.count else 0

    return load


@overload(operator.setitem, jit_options=INNER_OPTIONS)
def _set_column(columns, index, value):
    if not isinstance(columns, ColumnsType):
        return None

    def store(columns, index, value):
        at = whole(index)
        if 0 <= at < columns.count:
            set_native64(columns.address + 8 * at, value)

    return store


@intrinsic
def _make_columns(context: Any, address: Any, count: Any) -> Any:
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        made = cgutils.create_struct_proxy(COLUMNS)(context, builder)
        made.address, made.count = arguments
        return made._getvalue()

    return COLUMNS(types.int64, types.int64), lower


make_columns: Callable[..., Any] = _make_columns if JIT else Columns

# ---------------------------------------------------------------- records with methods


class Place:
    """A record at an address as plain-Python code sees it: fields and methods as attributes."""

    __slots__ = ("_kind", "address")

    def __init__(self, kind: PlaceType, address: int) -> None:
        object.__setattr__(self, "_kind", kind)
        object.__setattr__(self, "address", np.int64(address))

    def __getattr__(self, name: str) -> Any:
        kind: PlaceType = self._kind
        if name in kind.methods:
            return kind.methods[name].__get__(self)
        if name not in kind.fields:
            raise AttributeError(f"{kind.name} has no field {name!r}")
        dtype, offset = kind.fields[name]
        if dtype is None:
            return View(native64(self.address + offset), native64(self.address + offset + 8))
        return _scalar(self.address + offset, dtype)[0]

    def __setattr__(self, name: str, value: Any) -> None:
        dtype, offset = self._kind.fields.get(name, (None, 0))
        if dtype is None:
            raise AttributeError(f"{self._kind.name} has no field {name!r} to be set")
        _scalar(self.address + offset, dtype)[0] = value


def _scalar(address: int, dtype: np.dtype) -> np.ndarray:
    """The field as an array of one, inside memory that is known."""
    import ctypes

    from mpserve.dataplane.memory import region

    region(int(address), dtype.itemsize)
    return np.frombuffer((ctypes.c_uint8 * dtype.itemsize).from_address(int(address)), dtype)


class PlaceType(types.Type):
    """numba's type of the address of a record. `fields` are name -> (dtype, offset); dtype None stands for a View.

    Make one by `place_type`: each has a class of its own, for numba keeps methods by class.
    """

    methods: Mapping[str, Callable[..., Any]] = {}

    def __init__(self, name: str, fields: Mapping[str, tuple[np.dtype | None, int]]) -> None:
        self.fields = dict(fields)
        layout = ", ".join(f"{field}:{dtype}@{offset}" for field, (dtype, offset) in self.fields.items())
        super().__init__(f"{name}({layout})")


class _PlaceModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _I64)


def _field_type(kind: PlaceType, name: str) -> Any:
    if name == "address":
        return types.int64
    if name not in kind.fields:
        return None
    dtype = kind.fields[name][0]
    return VIEW if dtype is None else numba.from_dtype(dtype)


@infer_getattr
class _PlaceAttributes(AttributeTemplate):
    key = PlaceType

    def generic_resolve(self, kind: Any, name: str) -> Any:
        return _field_type(kind, name)


def _pointer(builder: Any, address: Any, offset: int, pointee: Any) -> Any:
    return builder.inttoptr(builder.add(address, ir.Constant(_I64, offset)), pointee.as_pointer())


@lower_getattr_generic(PlaceType)
def _get_field(context: Any, builder: Any, kind: Any, address: Any, name: str) -> Any:
    if name == "address":
        return address
    dtype, offset = kind.fields[name]
    if dtype is None:
        made = cgutils.create_struct_proxy(VIEW)(context, builder)
        made.address = builder.load(_pointer(builder, address, offset, _I64))
        made.length = builder.load(_pointer(builder, address, offset + 8, _I64))
        return made._getvalue()
    field = numba.from_dtype(dtype)
    return context.unpack_value(builder, field, _pointer(builder, address, offset, context.get_data_type(field)))


@lower_setattr_generic(PlaceType)
def _set_field(context: Any, builder: Any, signature: Any, arguments: Any, name: str) -> None:
    kind = signature.args[0]
    dtype, offset = kind.fields[name]
    field = numba.from_dtype(dtype)
    pointer = _pointer(builder, arguments[0], offset, context.get_data_type(field))
    context.pack_value(builder, field, arguments[1], pointer)


def place_type(
    name: str, fields: Mapping[str, tuple[np.dtype | None, int]], methods: Mapping[str, Callable[..., Any]]
) -> PlaceType:
    """A type of record of its own, with methods `function(record, ...)`."""
    kind = type(f"{name}Type", (PlaceType,), {"methods": dict(methods)})
    if JIT:
        register_model(kind)(_PlaceModel)
        for each, function in methods.items():
            method(kind, each, function)
    return kind(name, fields)


def place_maker(kind: PlaceType) -> Callable[[int], Any]:
    """A function address -> record of this type."""
    if not JIT:
        return lambda address: Place(kind, address)

    @intrinsic
    def make(context: Any, address: Any) -> Any:
        return kind(types.int64), lambda context, builder, signature, arguments: arguments[0]

    return make
