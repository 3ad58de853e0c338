"""Compiled units: what their cache is keyed on, and that a cached unit is not compiled again.

The units here belong to a copy of a package, in a process of its own, so that the digests are the copy's.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mpserve.dataplane import jit
from mpserve.dataplane.jit import JIT, UNIT_MODULES, reached_sources, units

ROOT = Path(jit.__file__).parent
CALLER = '''
from mpserve.dataplane.jit import unit
from mpserve.dataplane.callee import callee

@unit("tested")
def tested(a, b):
    """Docstring."""
    return callee(a) + b
'''
CALLEE = '''
from mpserve.dataplane.jit import compiled

@compiled
def callee(a):
    """Docstring."""
    return a + 1  # comment
'''
RUN = """
import sys
sys.path.insert(0, sys.argv[1])
from mpserve.dataplane.caller import tested
was_cached = tested.is_cached()
print(tested(40, 1), was_cached, tested.folder.name)
"""


@pytest.fixture
def package(tmp_path):
    """A package `mpserve.dataplane` of five modules: the real jit, memory, errors and mbuf, and a unit with a callee."""
    folder = tmp_path / "mpserve" / "dataplane"
    folder.mkdir(parents=True)
    (tmp_path / "mpserve" / "__init__.py").touch()
    (folder / "__init__.py").touch()
    for name in ("jit.py", "memory.py", "errors.py", "mbuf.py"):
        (folder / name).write_text((ROOT / name).read_text())
    (folder / "caller.py").write_text(CALLER)
    (folder / "callee.py").write_text(CALLEE)
    return tmp_path


def run(package: Path) -> tuple[int, bool, str]:
    """In a fresh process: the unit's result, whether it was cached, the name of its cache folder."""
    environment = dict(os.environ, MPSERVE_CACHE_DIR=str(package / "cache"), PYTHONDONTWRITEBYTECODE="1")
    environment.pop("NUMBA_DISABLE_JIT", None)
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(package)], capture_output=True, text=True, env=environment, cwd=package
    )
    assert done.returncode == 0, done.stderr
    result, cached, folder = done.stdout.split()
    return int(result), cached == "True", folder


def edit(package: Path, old: str, new: str) -> None:
    path = package / "mpserve" / "dataplane" / "callee.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_a_unit_is_compiled_once(package):
    first, second = run(package), run(package)
    assert first[:2] == (42, False)
    assert second == (42, True, first[2])


def test_an_edited_callee_in_another_file_is_noticed(package):
    before = run(package)
    edit(package, "a + 1", "a + 2")
    after = run(package)
    assert (before[0], after[0]) == (42, 43)
    assert before[2] != after[2] and not after[1]


def test_comments_and_docstrings_do_not_recompile(package):
    before = run(package)
    edit(package, "# comment", "# another")
    edit(package, "Docstring", "What it does")
    assert run(package) == (42, True, before[2])


def test_bounds_checks_have_a_cache_of_their_own(package, monkeypatch):
    before = run(package)
    monkeypatch.setenv("NUMBA_BOUNDSCHECK", "0" if jit.CHECKS else "1")
    assert run(package)[2] != before[2]


def test_an_unwritable_cache_is_one_line(package):
    (package / "cache").touch()
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(package)],
        capture_output=True,
        text=True,
        cwd=package,
        env=dict(
            {k: v for k, v in os.environ.items() if k != "NUMBA_DISABLE_JIT"}, MPSERVE_CACHE_DIR=str(package / "cache")
        ),
    )
    assert "set MPSERVE_CACHE_DIR to a writable folder" in done.stderr.splitlines()[-1]


def test_every_unit_reaches_the_layout_and_only_what_it_imports():
    for name in UNIT_MODULES:
        path = Path(sys.modules[name].__file__ or "") if name in sys.modules else ROOT / f"{name.split('.')[-1]}.py"
        reached = {source.name for source in reached_sources(path)}
        assert {"layout.py", "memory.py"} <= reached
    timers = {source.name for source in reached_sources(ROOT / "tcp" / "timers.py")}
    assert "ingress.py" not in timers and "checks.py" not in timers, "an edit of ingress would recompile the timers"


def test_units_are_named_after_their_modules():
    assert {unit.function.__module__ for unit in units()} == set(UNIT_MODULES)
    assert all(unit.is_cached() for unit in units()) or JIT


def test_no_two_processes_name_their_code_alike() -> None:
    """What they cache is linked together by whoever loads both."""
    program = """
from mpserve.dataplane import jit
def function(): pass
print(jit.FunctionIdentity.from_function(function).unique_name)
"""
    names = {subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout for _ in range(3)}
    assert len(names) == 3
