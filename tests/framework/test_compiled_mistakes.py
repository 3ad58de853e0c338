"""Mistakes in compiled handlers are met where the class is defined, with file and line; and when a handler is compiled again."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mpserve
from mpserve.dataplane.jit import JIT
from mpserve.framework.load import find_handler

BEGIN = "import mpserve\nLIMIT = 1\n\n\ndef plain(n):\n    return n + 1\n\n\nclass Bad(mpserve.CompiledHandler):\n"
compiling = pytest.mark.skipif(not JIT, reason="nothing is compiled")


def message_of(folder: Path, body: str) -> str:
    path = folder / "bad.py"
    path.write_text(BEGIN + body)
    with pytest.raises(mpserve.SetupError) as raised:
        find_handler(f"{path}:Bad")
    assert "\n" not in str(raised.value)
    return str(raised.value).replace(str(path), "bad.py")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("    def on_data(self, conn):\n        pass\n", r"bad.py, line 10: Bad.on_data takes 2 arguments.* with 3"),
        ("    def on_dta(self, conn, data):\n        pass\n", r"bad.py, line 10: .*did you mean on_data"),
        ("    async def on_data(self, conn, data):\n        pass\n", r"bad.py, line 10: .*async"),
        ("    def on_data(self, conn, data):\n        yield 1\n", r"bad.py, line 10: .*generator"),
        ("    def on_data(self, conn, data):\n\n        conn.write(LIMT)\n", r"bad.py, line 12: .*'LIMT'.*LIMIT"),
        ("    names: list = []\n", r"bad.py, line 9: Bad.names: .*list.* there are int"),
        ("    class Connection:\n        name: bytes\n", r"bad.py, line 9: .*Connection.name"),
        ("    codec = mpserve.Lines()\n    def on_data(self, conn, data):\n        pass\n", r"define on_request"),
        ("    def on_request(self, conn, request):\n        pass\n", r"no codec: define on_data"),
        ("    codec = mpserve.Lines()\n    def on_eof(self, conn):\n        pass\n", r"define on_request"),
    ],
)
def test_before_compiling(tmp_path: Path, body: str, said: str) -> None:
    assert re.search(said, message_of(tmp_path, body))


@compiling
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("    def on_data(self, conn, data):\n        conn.total += 1\n", r"bad.py, line 11: .*'total'"),
        ("    def on_data(self, conn, data):\n        self.total = 1\n", r"bad.py, line 11: .*total"),
        (
            "    def on_data(self, conn, data):\n        plain(1)\n",
            r"bad.py, line 11: plain is a plain.*mpserve.compiled",
        ),
        ('    def on_data(self, conn, data):\n        conn.write("text")\n', r"bad.py, line 11: .*bytes or data"),
        (
            "    def on_data(self, conn, data):\n        conn.reserve(len(data) / 2)\n",
            r"line 11: .*whole number.*float64",
        ),
        ("    def on_data(self, conn, data):\n        data.byte_at(0.5)\n", r"line 11: .*whole number.*float64"),
        (
            "    def on_data(self, conn, data):\n        with conn:\n            pass\n",
            r"bad.py, line 10: .*context-manager",
        ),
    ],
)
def test_by_compiling(tmp_path: Path, body: str, said: str) -> None:
    assert re.search(said, message_of(tmp_path, body).replace("Bad can't be compiled: ", ""))


GOOD = """
import mpserve
from constants import STEP, step

class Counting(mpserve.CompiledHandler):
    count: int = 0

    def on_data(self, conn, data):
        self.count += step()
"""
CONSTANTS = "import mpserve\nSTEP = 1\n\n@mpserve.compiled\ndef step():\n    return STEP\n"
LOAD = """
import sys, time
sys.path.insert(0, sys.argv[1])
from mpserve.framework import compiled_handler
class Cold(compiled_handler.CompiledHandler): pass
known, compiler = [], compiled_handler._compile
compiled_handler._compile = lambda cls, functions: (known.append(cls.unit.is_cached()), compiler(cls, functions))
from good import Counting
print(known[0], Counting.unit.folder.name)
"""


def load(folder: Path) -> tuple[bool, str]:
    """In a fresh process: whether the handler was cached, and under which name."""
    environment = dict(os.environ, MPSERVE_CACHE_DIR=str(folder / "cache"), PYTHONDONTWRITEBYTECODE="1")
    argv = [sys.executable, "-c", LOAD, str(folder)]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    known, name = done.stdout.split()
    return known == "True", name


@compiling
def test_a_handler_is_compiled_again_when_what_it_reaches_changes_and_only_then(tmp_path: Path) -> None:
    good, constants = tmp_path / "good.py", tmp_path / "constants.py"
    good.write_text(GOOD)
    constants.write_text(CONSTANTS)
    was_cached, name = load(tmp_path)
    assert not was_cached
    good.write_text(GOOD.replace("self.count +=", "# a comment\n        self.count +="))
    constants.write_text("# another\n" + CONSTANTS)
    assert load(tmp_path) == (True, name)
    constants.write_text(CONSTANTS.replace("STEP = 1", "STEP = 2"))
    was_cached, changed = load(tmp_path)
    assert not was_cached and changed != name
    good.write_text(GOOD.replace("count: int = 0", "count: int = 0\n    more: float = 0.0"))
    constants.write_text(CONSTANTS)
    was_cached, changed = load(tmp_path)
    assert not was_cached and changed != name
    folders = {path.name.rpartition("-")[0] for path in (tmp_path / "cache").iterdir()}
    assert folders == {"handler-Counting"}, "no unit of the stack was compiled"
