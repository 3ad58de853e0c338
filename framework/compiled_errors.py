"""What is wrong with a compiled handler, in one line with its file and line: before compiling, and out of numba's errors."""

from __future__ import annotations

import builtins
import dis
import inspect
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from mpserve.dataplane.errors import SetupError
from mpserve.framework.options import suggestion

_PLACE = re.compile(r'File "([^"]+)", line (\d+)')
_SKIPPED = ("Failed in", "During:", "File ", "Enable logging", "This ", "There ", "- Of which", "Overload of")
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
_INMOST = re.compile(r"specific error:\s+TypingError: (?!Failed in)(.+)")
_FIELDS = re.compile(r"\(\w+:[^()]*@\d+\)|\(\)")  # of records: their layout says nothing to the user
_ALSO = re.compile(r"Cannot determine Numba type of <class 'function'>")


def place_of(function: Any) -> str:
    """FILE, line N."""
    code = getattr(function, "py_func", function).__code__
    return f"{code.co_filename}, line {code.co_firstlineno}"


def check_callback(owner: str, name: str, function: Any, allowed: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a callback that is not called, or not so. `allowed`: name -> how many arguments it may take."""
    where = f"{place_of(function)}: {owner}.{name}"
    if name not in allowed:
        listed = ", ".join(allowed)
        raise SetupError(f"{where} is no callback of a compiled handler{suggestion(name, allowed)}; there are {listed}")
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise SetupError(f"{where} is async or a generator: a compiled callback is a plain function")
    taken = function.__code__.co_argcount
    if taken not in allowed[name]:
        counts = " or ".join(map(str, allowed[name]))
        raise SetupError(f"{where} takes {taken} arguments, self included: it is called with {counts}")


def explain(owner: str, functions: Mapping[str, Callable[..., Any]], error: Exception) -> SetupError:
    """numba's error as one line: the innermost place in the user's files, and the reason."""
    text = _ESCAPES.sub("", str(error))
    files = {os.path.realpath(f.__code__.co_filename) for f in functions.values()}
    places = [(os.path.realpath(name), line) for name, line in _PLACE.findall(text)]
    # numba gives paths relative to the current folder, of callees first
    inside = [f"{name}, line {line}" for name, line in places if name in files]
    where = inside[0] if inside else unsupported_place(error) or place_of(next(iter(functions.values())))
    return SetupError(f"{where}: {owner} can't be compiled: {_reason(text)}")


def _reason(text: str) -> str:
    lines = [line.strip() for line in text.splitlines()]
    if _ALSO.search(text):
        name = re.search(r"Untyped global name '(\w+)'", text)
        return f"{name[1] if name else 'it'} is a plain Python function: decorate it with @mpserve.compiled"
    inmost = _INMOST.search(text)
    said = [line for line in lines if line and not line.startswith(_SKIPPED)]
    reason = inmost[1] if inmost else said[0] if said else "numba does not say why"
    called = next((line[4:] for line in said if line.startswith(">>> ")), "")
    if reason.startswith("No implementation of function") and called:
        reason = f"there is no {called}"
    return _FIELDS.sub("", reason).removesuffix(" Raised from None").rstrip(".")


def check_names(owner: str, functions: Mapping[str, Callable[..., Any]]) -> None:
    """Refuse a function that reads a global name which isn't there; numba would not tell the line."""
    for function in functions.values():
        known = {**vars(builtins), **function.__globals__}
        for step in dis.get_instructions(function):
            if step.opname == "LOAD_GLOBAL" and step.argval not in known:
                line = step.positions.lineno if step.positions else function.__code__.co_firstlineno
                near = suggestion(step.argval, function.__globals__)
                raise SetupError(
                    f"{function.__code__.co_filename}, line {line}: {owner}: there is no {step.argval!r}{near}"
                )


def definition_place() -> str:
    """FILE, line N of the class statement that is being executed."""
    frame = inspect.currentframe()
    while frame is not None and str(frame.f_globals.get("__name__", "")).startswith("mpserve.framework."):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}, line {frame.f_lineno}: " if frame is not None else ""


def unsupported_place(error: BaseException) -> str:
    """FILE, line N of the function that numba was reading when it met bytecode that it does not know."""
    trace = error.__traceback__
    found = ""
    while trace is not None:
        code = getattr(trace.tb_frame.f_locals.get("func_id"), "code", None)
        if code is not None:
            found = f"{code.co_filename}, line {code.co_firstlineno}"
        trace = trace.tb_next
    return found
