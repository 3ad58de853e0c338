"""What the compiled code of a user's function depends on, as text that is the same in every process.

numba freezes globals and calls what they name, so the facts are the bytecode of every function reached and the values
of every global read. Comments, blank lines and unrelated parts of a file change nothing.
"""

from __future__ import annotations

import enum
import hashlib
import types
from typing import Any

import numpy as np

_OURS = ("mpserve.dataplane.", "mpserve.framework.")  # their sources are part of every unit's digest
_PLAIN = (type(None), bool, int, float, complex, str, bytes)


def facts(*values: Any) -> str:
    """A digest of functions, constants and whatever they reach."""
    walk = _Walk()
    for value in values:
        walk.visit(value)
    return walk.sha.hexdigest()


class _Walk:
    def __init__(self) -> None:
        self.sha = hashlib.sha256()
        self._seen: set[int] = set()
        self._kept: list[Any] = []  # so that no id is used twice

    def _say(self, *words: Any) -> None:
        self.sha.update(repr(words).encode())

    def visit(self, value: Any) -> None:
        value = getattr(value, "py_func", value)  # numba's dispatchers
        if isinstance(value, _PLAIN):
            self._say(type(value).__name__, value)
        elif isinstance(value, np.generic | np.dtype | enum.Enum):
            self._say(type(value).__name__, str(value), repr(value))
        elif isinstance(value, np.ndarray):
            self._say(str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).hexdigest())
        elif id(value) not in self._seen:
            self._seen.add(id(value))
            self._kept.append(value)
            self._visit_compound(value)

    def _visit_compound(self, value: Any) -> None:
        if isinstance(value, tuple | list):
            self._say(type(value).__name__, len(value))
            for item in value:
                self.visit(item)
        elif isinstance(value, dict):
            self.visit([item for pair in value.items() for item in pair])
        elif isinstance(value, set | frozenset):
            self.visit(sorted(map(repr, value)))
        elif isinstance(value, types.FunctionType):
            self._visit_function(value)
        elif isinstance(value, type) and issubclass(value, enum.Enum):
            self.visit([(each.name, each.value) for each in value])
        else:
            named = value if isinstance(value, type | types.ModuleType) else type(value)
            self._say(getattr(named, "__module__", ""), getattr(named, "__qualname__", named.__name__))

    def _visit_function(self, function: types.FunctionType) -> None:
        self._say(function.__module__, function.__qualname__)
        if (function.__module__ or "").startswith(_OURS):
            return
        self.visit(function.__defaults__)
        self._visit_code(function.__code__, function.__globals__)
        for cell in function.__closure__ or ():
            self.visit(cell.cell_contents)

    def _visit_code(self, code: types.CodeType, names: dict[str, Any]) -> None:
        self._say(code.co_code, code.co_varnames, code.co_names)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._visit_code(constant, names)
            else:
                self.visit(constant)
        for name in code.co_names:
            if name in names:
                self.visit(names[name])
                if isinstance(names[name], types.ModuleType):
                    self._visit_attributes(names[name], code.co_names)

    def _visit_attributes(self, module: types.ModuleType, names: tuple[str, ...]) -> None:
        """What a function may read of a module: any of its names."""
        for name in names:
            if name in vars(module):
                self.visit(vars(module)[name])
