"""uvloop's own tests on our loop in place of uvloop's, over a veth pair in a network namespace of its own. Root and a pip index.

    python tests/asyncio_suite/run_uvloop.py         all of SUITES; exit status 1 if a test fails that explained_uvloop.json
                                                     doesn't name
    python tests/asyncio_suite/run_uvloop.py tcp     one of them, or those whose test names contain a word: tcp:server

The tests come from the source distribution of UVLOOP, which pip downloads, with what they need, into the virtual
environment; nothing of uvloop is built. `harness.py` says what becomes of addresses.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tarfile
import types
import unittest
from pathlib import Path
from typing import Any

from harness import STACK, Policy, Run, SuiteLoop, chosen, make_loop, set_up

UVLOOP = "0.21.0"
NEEDED = ["pyOpenSSL==24.3.0"]
AS_ASYNCIO, AS_UVLOOP = "asyncio", "uvloop"  # what a test is told when it asks: we promise what asyncio does
SUITES = {  # module: classes. Those of uvloop have all tests that those of asyncio have, and their own
    "tcp": {"Test_UV_TCP": AS_ASYNCIO, "Test_UV_TCPSSL": AS_UVLOOP},  # asyncio is spared most tests of TLS
    "sockets": {"TestUVSockets": AS_ASYNCIO},
    "unix": {"Test_UV_Unix": AS_ASYNCIO, "Test_UV_UnixSSL": AS_UVLOOP},
    "base": {"TestBaseUV": AS_ASYNCIO},
    "pipes": {"Test_UV_Pipes": AS_ASYNCIO},
}


def download() -> Path:
    """The folder of the unpacked distribution, downloaded if it isn't there."""
    folder = Path(sys.prefix) / "uvloop-tests"
    source = folder / f"uvloop-{UVLOOP}"
    if not source.exists():
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        here = ["--no-deps", "--no-binary", "uvloop", "--dest", str(folder), f"uvloop=={UVLOOP}"]
        subprocess.run([*pip, "download", *here], check=True)
        subprocess.run([*pip, "install", "--target", str(folder / "needed"), *NEEDED], check=True)
        with tarfile.open(folder / f"uvloop-{UVLOOP}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
    sys.path.append(str(folder / "needed"))
    return source


def load(name: str, path: Path) -> types.ModuleType:
    """A module of the distribution with the addresses changed."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    exec(compile(path.read_text().replace("127.0.0.1", STACK), str(path), "exec"), module.__dict__)
    return module


def stand_in(source: Path) -> None:
    """A `uvloop` whose loops are ours; what the tests share is the distribution's."""
    made: Any = types.ModuleType("uvloop")
    made.new_event_loop, made.EventLoopPolicy, made.Loop = make_loop, Policy, SuiteLoop
    made.__path__ = []
    sys.modules["uvloop"] = made
    made._testbase = load("uvloop._testbase", source / "uvloop" / "_testbase.py")


def cases(name: str, source: Path) -> unittest.TestSuite:
    module = load(f"test_{name}", source / "tests" / f"test_{name}.py")
    suite = unittest.TestSuite()
    for each, kind in SUITES[name].items():
        case = type(
            each,
            (getattr(module, each),),
            {"implementation": kind, "is_asyncio_loop": lambda self: self.implementation == AS_ASYNCIO},
        )
        case.__module__ = module.__name__
        suite.addTests(unittest.defaultTestLoader.loadTestsFromTestCase(case))
    return suite


def main(wanted: list[str]) -> int:
    source = download()
    set_up()
    stand_in(source)
    run = Run("explained_uvloop.json")
    for name in SUITES:
        words = [want.partition(":")[2] for want in wanted if want.partition(":")[0] == name]
        if not wanted or words:
            run.add(chosen(cases(name, source), [] if "" in words else words))
    return run.end()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
