"""Typed settings from text: `--set name=value` and TOML values become what an annotation asks for, or are refused.

Used twice: for a handler's options (its annotated class attributes) and for the server's own settings.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Union

from mpserve.dataplane.errors import SetupError

REQUIRED: Any = object()
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True)
class Option:
    """One option: its annotation and default (REQUIRED if there is none)."""

    name: str
    annotation: Any
    default: Any = REQUIRED

    def __str__(self) -> str:
        text = f"{self.name}: {describe(self.annotation)}"
        return text if self.default is REQUIRED else f"{text} = {self.default!r}"


def describe(annotation: Any) -> str:
    """An annotation as a user reads it: `int`, `"a" or "b"`, `str or none`."""
    if annotation is type(None):
        return "none"
    if typing.get_origin(annotation) is Literal:
        return " or ".join(repr(choice) for choice in typing.get_args(annotation))
    if _is_union(annotation):
        return " or ".join(describe(arm) for arm in typing.get_args(annotation))
    return getattr(annotation, "__name__", str(annotation))


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (Union, types.UnionType)


def convert(name: str, value: Any, annotation: Any) -> Any:
    """`value`, text or an already typed one, as `annotation`. Raises SetupError naming what was asked for."""
    try:
        return _convert(value, annotation)
    except (ValueError, TypeError):
        raise SetupError(f"{name}={value} is not {describe(annotation)}") from None


def _convert(value: Any, annotation: Any) -> Any:
    if annotation is Any:
        return value
    if _is_union(annotation):
        return _convert_union(value, typing.get_args(annotation))
    if typing.get_origin(annotation) is Literal:
        return next(c for c in _choices(annotation) if c == value or str(c) == value)
    if annotation is bool:
        return _convert_bool(value)
    if annotation is type(None):
        return _convert_none(value)
    if annotation is bytes:
        return value if isinstance(value, bytes) else _text(value).encode("utf-8", "surrogateescape")
    if annotation is Path:
        return value if isinstance(value, Path) else Path(_text(value)).expanduser()
    if annotation is str:
        return _text(value)
    if annotation in (int, float):
        return _convert_number(value, annotation)
    raise TypeError(annotation)


def _choices(annotation: Any) -> Iterable[Any]:
    """The arms of a Literal, and a ValueError for whoever looks past the last."""
    yield from typing.get_args(annotation)
    raise ValueError


def _convert_union(value: Any, arms: tuple[Any, ...]) -> Any:
    """The first arm that takes the value; text that could be anything goes last, so `int | str` reads 7 as a number."""
    for arm in sorted(arms, key=lambda arm: (arm in (str, bytes, Path, Any), arm is not type(None))):
        try:
            return _convert(value, arm)
        except (ValueError, TypeError):
            continue
    raise ValueError


def _convert_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = _text(value).lower()
    if word not in _TRUE + _FALSE:
        raise ValueError
    return word in _TRUE


def _convert_none(value: Any) -> None:
    if value is not None and _text(value).lower() not in ("none", ""):
        raise ValueError


def _convert_number(value: Any, kind: type) -> Any:
    if isinstance(value, bool) or (kind is int and isinstance(value, float)):
        raise ValueError
    return (
        kind(value, 0)
        if kind is int and isinstance(value, str) and value[:1] == "0" and len(value) > 1
        else kind(value)
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def plain(value: Any) -> Any:
    """`value` as JSON can carry it; `convert` with the same annotation gives it back."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return value


def handler_options(handler: type) -> dict[str, Option]:
    """A handler's options: public annotated attributes of its class and of the classes between it and Handler."""
    found: dict[str, Option] = {}
    for name, annotation in _annotations(handler).items():
        if not name.startswith("_") and typing.get_origin(annotation) is not ClassVar and annotation is not ClassVar:
            found[name] = Option(name, annotation, getattr(handler, name, REQUIRED))
    return found


def _annotations(handler: type) -> dict[str, Any]:
    from mpserve.framework.handler import Handler

    classes = [c for c in handler.__mro__ if c not in Handler.__mro__]
    try:
        resolved = typing.get_type_hints(handler)
    except (NameError, TypeError) as error:
        raise SetupError(f"{handler.__name__}: an annotation can't be read: {error}") from None
    return {name: resolved[name] for c in reversed(classes) for name in c.__dict__.get("__annotations__", {})}


def parse_options(handler: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Convert what was given for a handler's options. Raises SetupError with the list of options there are."""
    known = handler_options(handler)
    for name in given:
        if name not in known:
            listed = "; ".join(str(option) for option in known.values())
            there = f"its options are {listed}" if known else "it takes no options"
            raise SetupError(f"{handler.__name__} has no option {name!r}{suggestion(name, known)}; {there}")
    missing = [name for name, option in known.items() if option.default is REQUIRED and name not in given]
    if missing:
        raise SetupError(f"{handler.__name__} needs {known[missing[0]]}: add --set {missing[0]}=VALUE")
    return {name: convert(name, value, known[name].annotation) for name, value in given.items()}


def parse_assignments(words: Iterable[str], flag: str = "--set") -> dict[str, str]:
    """`name=value` words as a dict; dashes in a name read as underscores. Raises SetupError for a word without `=`."""
    pairs = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise SetupError(f"{flag} {word}: type {flag} NAME=VALUE")
        pairs[name.replace("-", "_")] = value
    return pairs


def suggestion(name: str, known: Iterable[str]) -> str:
    """` (did you mean X?)` for the nearest of the known names, or nothing."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f" (did you mean {near[0]}?)" if near else ""
