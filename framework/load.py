"""Finds a Handler class: FILE.py:Name, module:Name, the name of an entry point in `mpserve.apps`, or a class itself.

`target_of` is the way back: a text from which another process finds the same class.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import sys
import traceback
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mpserve.dataplane.errors import SetupError
from mpserve.framework.options import suggestion

if TYPE_CHECKING:
    from mpserve.framework.handler import Handler

ENTRY_POINTS = "mpserve.apps"
MISSPELT = 0.8  # as alike as names are (difflib) of which one was meant for the other
_FRAMEWORK = "mpserve.framework."  # Handler and its kinds are handlers of nothing
CALLBACKS = {  # name -> arguments, self included
    "on_start": 2,
    "on_stop": 1,
    "on_accept": 2,
    "on_connect": 2,
    "on_data": 3,
    "on_eof": 2,
    "on_writable": 2,
    "on_timeout": 2,
    "on_close": 3,
    "on_message": 3,
    "on_batch": 2,
}


def find_handler(target: str) -> type[Handler]:
    """The Handler class that `target` names. Raises SetupError: one line with what is wrong and what there is."""
    where, _, name = target.rpartition(":") if ":" in target else (target, "", "")
    if where.endswith(".py"):
        return _pick(_import_file(where, target), name, target, where)
    if ":" in target:
        return _pick(_import_module(where, target), name, target, where)
    return _from_entry_point(target)


def _import_file(path: str, target: str) -> ModuleType:
    """Import a file as `python FILE` would find it: its folder first on the path. Once a process."""
    full = os.path.realpath(path)
    if not os.path.isfile(full):
        raise SetupError(f"there is no file {path}: type mpserve run FILE.py:Name with a file that exists")
    for module in list(sys.modules.values()):
        if getattr(module, "__mpserve_file__", None) == full:
            return module
    stem = os.path.splitext(os.path.basename(full))[0]
    name = stem if importlib.util.find_spec(stem) is None else f"{stem}_handler"
    spec = importlib.util.spec_from_file_location(name, full)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    module.__dict__["__mpserve_file__"] = full
    _put_first_on_path(os.path.dirname(full))
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        raise _import_error(target, error) from error
    return module


def _import_module(name: str, target: str) -> ModuleType:
    _put_first_on_path(os.getcwd())
    try:
        return importlib.import_module(name)
    except BaseException as error:
        raise _import_error(target, error) from error


def _put_first_on_path(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _import_error(target: str, error: BaseException) -> BaseException:
    """What the user's module raised, as one line with the place in it."""
    if isinstance(error, KeyboardInterrupt | SetupError):
        return error
    if isinstance(error, SyntaxError):
        return SetupError(f"can't import {target}: {error.filename}, line {error.lineno}: {error.msg}")
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
    place = f"{frames[-1].filename}, line {frames[-1].lineno}: " if frames[1:] else ""
    words = str(error).splitlines() or [""]
    return SetupError(f"can't import {target}: {place}{type(error).__name__}: {words[0]}")


def _pick(module: ModuleType, name: str, target: str, where: str) -> type[Handler]:
    there = _handlers_in(module)
    listed = ", ".join(f"{where}:{handler}" for handler in there)
    if not name:
        if len(there) == 1:
            return _checked(next(iter(there.values())))
        raise SetupError(f"{target} has {len(there)} handlers: type one of {listed}" if there else _no_handler(target))
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None:
        near = suggestion(name, there)
        raise SetupError(f"{where} has no {name!r}{near}; " + (f"it has {listed}" if there else _no_handler(where)))
    if not _is_handler(found):
        raise SetupError(f"{target} is no mpserve.Handler; " + (f"there is {listed}" if there else _no_handler(where)))
    return _checked(found)


def _no_handler(where: str) -> str:
    return f"{where} has no Handler: define class NAME(mpserve.Handler) in it"


def check_plain(handler: type[Handler]) -> None:
    """Refuse callbacks that would never be called, or not so, or whose call would only make a coroutine or a generator.

    Raises SetupError.
    """
    _check_names(handler)
    for name, count in CALLBACKS.items():
        function = getattr(handler, name, None)
        _check_arguments(handler, name, function, count)
        if inspect.iscoroutinefunction(function):
            raise SetupError(f"{handler.__name__}.{name} is async: callbacks are plain functions, so type def")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise SetupError(f"{handler.__name__}.{name} is a generator: callbacks are plain functions, without yield")


def _check_names(handler: type[Handler]) -> None:
    """A callback whose name is misspelt; any other is the handler's own."""
    if handler.is_compiled:
        return  # `CompiledHandler` has its own callbacks, and has checked them
    for name in dir(handler):
        if name.startswith("on_") and name not in CALLBACKS and inspect.isfunction(getattr(handler, name)):
            near = difflib.get_close_matches(name, CALLBACKS, 1, MISSPELT)
            if near:
                listed = ", ".join(CALLBACKS)
                raise SetupError(
                    f"{handler.__name__}.{name} is no callback (did you mean {near[0]}?); there are {listed}"
                )


def _check_arguments(handler: type[Handler], name: str, function: Any, count: int) -> None:
    """A plain function that can't be called with what the callback gets."""
    if handler.is_compiled or not inspect.isfunction(function):
        return
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        taken = len(inspect.signature(function).parameters)
        raise SetupError(
            f"{handler.__name__}.{name} takes {taken} arguments, self included: it is called with {count}"
        ) from None


def _is_handler(found: Any) -> bool:
    from mpserve.framework.handler import Handler

    return isinstance(found, type) and issubclass(found, Handler) and not found.__module__.startswith(_FRAMEWORK)


def _handlers_in(module: ModuleType) -> dict[str, type[Handler]]:
    """The handlers that a module defines; where it defines none, those that it offers."""
    every = {name: found for name, found in vars(module).items() if _is_handler(found) and not name.startswith("_")}
    own = {name: found for name, found in every.items() if found.__module__ == module.__name__}
    return own or every


def _from_entry_point(name: str) -> type[Handler]:
    there = {point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}
    if name not in there:
        listed = ", ".join(sorted(there)) or "none"
        raise SetupError(
            f"nothing is called {name!r}{suggestion(name, there)}: type FILE.py:Name, module:Name or an installed "
            f"application ({listed})"
        )
    try:
        found = there[name].load()
    except BaseException as error:
        raise _import_error(name, error) from error
    if not _is_handler(found):
        raise SetupError(f"{name} is a command of its own: type mpserve {name}")
    return _checked(found)


def _checked(handler: type[Handler]) -> type[Handler]:
    """Refuse what this version would not call."""
    check_plain(handler)
    if inspect.iscoroutinefunction(getattr(handler, "handle", None)):
        from mpserve.framework.aio.streams import check_callbacks

        check_callbacks(handler)
    return handler


def target_of(handler: type[Handler] | str) -> str:
    """A text by which `find_handler` finds this class in another process. SetupError for one made in a function."""
    if isinstance(handler, str):
        return handler
    if not _is_handler(handler):
        raise SetupError(f"{handler!r} is no handler class: pass a subclass of mpserve.Handler, not an instance")
    if "<locals>" in handler.__qualname__:
        raise SetupError(f"{handler.__qualname__} is made inside a function: define it at the top of a module")
    module = sys.modules[handler.__module__]
    file = getattr(module, "__mpserve_file__", None) or (
        getattr(module, "__file__", None) if handler.__module__ == "__main__" else None
    )
    if file:
        return f"{os.path.realpath(file)}:{handler.__qualname__}"
    if handler.__module__ == "__main__":
        raise SetupError(
            f"{handler.__name__} was typed at a prompt: put it in a file, so that the worker can import it"
        )
    return f"{handler.__module__}:{handler.__qualname__}"
