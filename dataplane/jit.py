"""The one way compiled code is made here: `compiled` for functions, `unit` for the entry points that are cached.

A unit is a C function of int64 that returns an int64, called by address, so that a change in one unit does not recompile the
others. numba's own cache does not see a changed callee in another file; here every unit's cache folder carries a digest
of all the sources that it reaches, of the versions and of the processor. With NUMBA_DISABLE_JIT=1 everything is plain
Python.
"""

import ast
import contextlib
import fcntl
import functools
import hashlib
import importlib
import importlib.util
import itertools
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from llvmlite import binding
from numba import types
from numba.core.bytecode import FunctionIdentity

from mpserve.dataplane.errors import SetupError

config: Any = numba.config  # its settings are made at run time
JIT = not config.DISABLE_JIT
CHECKS = bool(config.BOUNDSCHECK)
PACKAGE = "mpserve"
OPTIONS: dict[str, Any] = {"error_model": "numpy"}
UNIT_MODULES = (
    "mpserve.dataplane.ingress",
    "mpserve.dataplane.egress",
    "mpserve.dataplane.commands",
    "mpserve.dataplane.tcp.timers",
    "mpserve.dataplane.tcp.connect",
    "mpserve.dataplane.turn",
    "mpserve.dataplane.standby",
)

# numba counts what a process compiles from 1, and the count is in the names of the machine code. Two functions of one name that two
# processes have compiled and cached would meet in a third that loads both, and the linker take one for the other.
NAMING = 2  # another number than that of a cache whose names were given in another way
FunctionIdentity._unique_ids = itertools.count(int.from_bytes(os.urandom(6), "little"))


def compiled(function: Callable) -> Callable:
    """Compile `function` as part of the units that call it. Division by zero gives no exception (numpy's error model)."""
    return numba.njit(**OPTIONS)(function) if JIT else function


INNER_OPTIONS = {**OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def inner(function: Callable, inline: bool = False) -> Callable:
    """`compiled`, for what only compiled code calls: half the time to compile it. `inline` makes it part of its caller."""
    return numba.njit(**INNER_OPTIONS, forceinline=inline)(function) if JIT else function


def cache_root() -> Path:
    """Where compiled units are kept: $MPSERVE_CACHE_DIR, else mpserve/ in the user's cache folder."""
    given = os.environ.get("MPSERVE_CACHE_DIR")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mpserve"


def _module_source(module: str) -> Path | None:
    if not module.startswith(PACKAGE + "."):
        return None
    spec = importlib.util.find_spec(module)
    return Path(spec.origin) if spec is not None and spec.origin else None


def _imports(path: Path) -> set[str]:
    """The modules of this package that a source file names in its import statements."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(PACKAGE):
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name.startswith(PACKAGE))
    return found


@functools.cache
def _direct_sources(path: Path) -> frozenset[Path]:
    sources = set()
    for module in _imports(path):
        with contextlib.suppress(ModuleNotFoundError):
            source = _module_source(module)
            if source is not None:
                sources.add(source)
    return frozenset(sources)


def reached_sources(path: Path) -> list[Path]:
    """`path` and every source of this package that it reaches by imports, sorted; but not this one, which compiles them."""
    reached, waiting = set(), [path]
    while waiting:
        source = waiting.pop()
        if source not in reached and source != Path(__file__):
            reached.add(source)
            waiting.extend(_direct_sources(source))
    return sorted(reached)


@functools.cache
def _code_of(path: Path) -> bytes:
    """A source without what cannot change its code: comments, docstrings, layout."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body[0] = ast.Pass()
    return ast.dump(tree).encode()


def digest(path: Path) -> str:
    """Changes whenever code compiled from `path` could: sources, options, versions, processor, checks, mbuf layout."""
    from mpserve.dataplane.mbuf import LAYOUT

    sha = hashlib.sha256()
    versions = (platform.python_version(), numba.__version__, llvmlite.__version__, np.__version__)
    facts = (versions, OPTIONS, CHECKS, LAYOUT, NAMING)
    sha.update(repr((facts, binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten())).encode())
    for source in reached_sources(path):
        sha.update(source.name.encode() + b"\0" + _code_of(source))
    return sha.hexdigest()[:20]


@dataclass(eq=False)
class Unit:
    """A compiled entry point. `address` compiles it or loads it from the cache, once a process."""

    name: str
    function: Callable[..., int]

    def __call__(self, *arguments: int) -> int:
        """Run the unit: by its compiled address, or as plain Python where the JIT is off."""
        return self.call(*arguments)

    @functools.cached_property
    def call(self) -> Callable[..., int]:
        """The unit as a function: the quickest way to call it often."""
        if not JIT:
            return lambda *arguments: int(self.function(*arguments))
        return _FFI.cast(f"int64_t(*)({', '.join(['int64_t'] * self.arity)})", self.address)

    @property
    def arity(self) -> int:
        return self.function.__code__.co_argcount

    @functools.cached_property
    def folder(self) -> Path:
        return cache_root() / f"{self.name}-{digest(Path(self.function.__code__.co_filename))}"

    def is_cached(self) -> bool:
        return not JIT or any(self.folder.glob("*.nbc"))

    @functools.cached_property
    def address(self) -> int:
        """The C function's address. Under NUMBA_DISABLE_JIT, a number that `call_unit`'s Python form knows it by."""
        if not JIT:
            PYTHON_UNITS[id(self)] = self.function
            return id(self)
        self._c_function = self._build()
        return self._c_function.address

    def _build(self) -> Any:
        from numba.core.caching import FunctionCache, IndexDataCacheFile
        from numba.core.ccallback import CFunc

        fresh = not self.folder.exists()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SetupError(
                f"cannot keep compiled code in {self.folder}: {error.strerror}; set MPSERVE_CACHE_DIR to a writable folder"
            ) from error
        config.CACHE_DIR = str(self.folder)
        signature = ((types.int64,) * self.arity, types.int64)
        c_function = CFunc(self.function, signature, {}, {**OPTIONS, "nopython": True})
        cache = FunctionCache(self.function)
        cache._cache_path = str(self.folder)
        cache._cache_file = IndexDataCacheFile(str(self.folder), self.name, self.folder.name)
        c_function._cache = cache  # type: ignore[attr-defined]
        config.CACHE_DIR = ""
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a second process waits for the first one's result
            c_function.compile()
        if fresh:
            self._delete_old_folders()
        return c_function

    def _delete_old_folders(self) -> None:
        """Keep the newest twelve digests of a unit: several checkouts may share the cache."""
        folders = sorted(cache_root().glob(f"{self.name}-*"), key=lambda f: f.stat().st_mtime, reverse=True)
        for folder in folders[12:]:
            shutil.rmtree(folder, ignore_errors=True)


@dataclass(eq=False)
class BoundUnit(Unit):
    """A unit made when it is wanted, from a function of ours that calls functions given to it: a handler's, a codec's.

    `facts` are what else its code depends on than the sources that `function` reaches.
    """

    facts: str

    @functools.cached_property
    def folder(self) -> Path:
        ours = digest(Path(self.function.__code__.co_filename))
        given = hashlib.sha256(f"{ours} {self.facts}".encode()).hexdigest()[:20]
        return cache_root() / f"{self.name}-{given}"


UNITS: dict[str, Unit] = {}
PYTHON_UNITS: dict[int, Callable[..., int]] = {}


def unit(name: str) -> Callable[[Callable[..., int]], Unit]:
    """Make a unit of a function of int64 that returns one."""

    def make(function: Callable[..., int]) -> Unit:
        UNITS[name] = Unit(name, function)
        return UNITS[name]

    return make


def units() -> list[Unit]:
    """The stack's units, longest to compile first."""
    for module in UNIT_MODULES:
        importlib.import_module(module)
    return [unit for unit in UNITS.values() if unit.function.__module__ in UNIT_MODULES]


def warm(on_progress: Callable[[str, int, int], None] | None = None, jobs: int | None = None) -> float:
    """Compile the units that aren't cached, each in a process of its own, `jobs` (the cores) at a time; seconds taken.

    `on_progress(name, done, total)` is called as each unit starts (with the count done so far) and when all are done.
    Raises SetupError with the compiler's last line if a unit does not compile.
    """
    started = time.monotonic()
    missing = [u for u in units() if not u.is_cached()]
    say = on_progress or (lambda name, done, total: None)
    slots = threading.Semaphore(jobs or len(os.sched_getaffinity(0)))
    failures: list[str] = []
    done = 0

    def compile_one(name: str) -> None:
        nonlocal done
        with slots:
            say(name, done, len(missing))
            process = subprocess.run(
                [sys.executable, "-m", "mpserve.dataplane.jit", name], capture_output=True, text=True, check=False
            )
            if process.returncode:
                failures.append(f"{name}: {(process.stderr.strip() or 'no output').splitlines()[-1]}")
            done += 1

    threads = [threading.Thread(target=compile_one, args=(u.name,)) for u in missing]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise SetupError("compiling failed: " + "; ".join(failures))
    if missing:
        say("all", len(missing), len(missing))
    return time.monotonic() - started


def _make_ffi() -> Any:
    import cffi

    return cffi.FFI()


_FFI = _make_ffi()

if __name__ == "__main__":
    importlib.import_module("mpserve.dataplane.jit").units()
    importlib.import_module("mpserve.dataplane.jit").UNITS[sys.argv[1]].address  # noqa: B018
