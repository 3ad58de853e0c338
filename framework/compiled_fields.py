"""The annotated fields of a compiled handler and of its connections: their types, where they lie, and Python's way to them."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any

import numpy as np

from mpserve.dataplane.errors import SetupError
from mpserve.dataplane.memory import register, unregister
from mpserve.framework.options import REQUIRED

_DTYPES: dict[Any, np.dtype] = {int: np.dtype("i8"), float: np.dtype("f8"), bool: np.dtype("?")}
Fields = Mapping[str, tuple[np.dtype | None, int]]  # name -> (dtype, offset); dtype None: address and length of bytes


def dtype_of(annotation: Any) -> np.dtype | None:
    """The dtype of a number's annotation, None for bytes and str. TypeError for anything else."""
    if annotation in (bytes, str):
        return None
    if annotation in _DTYPES:
        return _DTYPES[annotation]
    if isinstance(annotation, type) and issubclass(annotation, np.number | np.bool_):
        return np.dtype(annotation)
    raise TypeError(annotation)


def lay_out(owner: type, annotations: Mapping[str, Any], start: int, *, bytes_too: bool) -> tuple[Fields, int]:
    """Places behind `start` bytes, in order, aligned; and the size of the whole, a multiple of 8."""
    fields: dict[str, tuple[np.dtype | None, int]] = {}
    at = start
    for name, annotation in annotations.items():
        try:
            dtype = dtype_of(annotation)
        except TypeError:
            dtype = annotation
        if not (isinstance(dtype, np.dtype) or (dtype is None and bytes_too)):
            kinds = "int, float, bool, numpy's numbers" + (", bytes and str" if bytes_too else "")
            raise SetupError(
                f"{owner.__qualname__}.{name}: {annotation!r} is no type of a compiled field: there are {kinds}"
            )
        size, align = (16, 8) if dtype is None else (dtype.itemsize, dtype.alignment)
        at = -(-at // align) * align
        fields[name] = (dtype, at)
        at += size
    return fields, -(-at // 8) * 8


def annotations_of(owner: type, without: type | None = None) -> dict[str, Any]:
    """The annotated fields of a class and of those above it, class variables left out."""
    above = () if without is None else without.__mro__
    try:
        resolved = typing.get_type_hints(owner)
    except (NameError, TypeError) as error:
        raise SetupError(f"{owner.__qualname__}: an annotation can't be read: {error}") from None
    names = [n for c in reversed(owner.__mro__) if c not in above for n in c.__dict__.get("__annotations__", {})]
    return {name: resolved[name] for name in names if typing.get_origin(resolved[name]) is not typing.ClassVar}


class Field:
    """A field of a handler's record as an attribute of the Python object."""

    def __init__(self, name: str, default: Any) -> None:
        self.name, self.default = name, default

    def __get__(self, handler: Any, owner: type) -> Any:
        if handler is None:
            if self.default is REQUIRED:
                raise AttributeError(self.name)
            return self.default
        return handler._memory.get(self.name)

    def __set__(self, handler: Any, value: Any) -> None:
        handler._memory.set(self.name, value)


class Memory:
    """A handler's record: `size` bytes whose fields are read and written by name."""

    def __init__(self, fields: Fields, size: int) -> None:
        self._fields = fields
        self._words = np.zeros(-(-size // 8), np.int64)
        self._bytes: dict[str, tuple[Any, np.ndarray]] = {}
        self.address = register(self._words)

    def words(self) -> np.ndarray:
        """The whole record."""
        return self._words

    def _scalar(self, name: str) -> np.ndarray:
        dtype, offset = self._fields[name]
        assert dtype is not None
        return self._words.view(np.uint8)[offset : offset + dtype.itemsize].view(dtype)

    def get(self, name: str) -> Any:
        if self._fields[name][0] is None:
            return self._bytes[name][0] if name in self._bytes else b""
        return self._scalar(name)[0].item()

    def set(self, name: str, value: Any) -> None:
        dtype, offset = self._fields[name]
        if dtype is not None:
            self._scalar(name)[0] = value
            return
        raw = value.encode() if isinstance(value, str) else bytes(value)
        array = np.frombuffer(raw + b"\0", np.uint8)
        self._forget(name)
        self._bytes[name] = (value, array)
        self._words[offset // 8 : offset // 8 + 2] = register(array), len(raw)

    def _forget(self, name: str) -> None:
        if name in self._bytes:
            unregister(self._bytes.pop(name)[1].ctypes.data)

    def close(self) -> None:
        for name in list(self._bytes):
            self._forget(name)
        unregister(self.address)
