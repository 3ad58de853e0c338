"""CPython's own test_asyncio on our loop, over a veth pair in a network namespace of its own. Root, and a Python with its tests.

    python tests/asyncio_suite/run.py            all of SUITES; exit status 1 if a test fails that explained.json doesn't name
    python tests/asyncio_suite/run.py streams    one of them, or those whose test names contain a word: streams:echo

`harness.py` says what becomes of addresses.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import types
import unittest

from harness import KERNEL, STACK, Policy, Run, chosen, make_loop, set_up
from test.support import socket_helper

SUITES = {  # module: classes, and how they make loops
    "streams": [("StreamTests", "")],
    "server": [("SelectorStartServerTests", "new_loop")],
    "buffered_proto": [("BufferedProtocolSelectorTests", "new_loop")],
    "sendfile": [("EPollEventLoopTests", "create_event_loop")],
    "sock_lowlevel": [("EPollEventLoopTests", "create_event_loop")],
    "sslproto": [("SelectorStartTLSTests", "new_loop")],
    "ssl": [("TestSSL", "new_loop")],
    "events": [("EPollEventLoopTests", "create_event_loop")],
}


def load(name: str) -> types.ModuleType:
    """A module of test.test_asyncio with the addresses changed, under its own name."""
    spec = importlib.util.find_spec(f"test.test_asyncio.{name}")
    if spec is None or spec.origin is None:
        sys.exit(f"this Python ({sys.executable}) comes without test.test_asyncio")
    with open(spec.origin) as file:
        source = file.read().replace("127.0.0.1", STACK)
    module = types.ModuleType(spec.name)
    module.__file__, module.__package__, module.__spec__ = spec.origin, "test.test_asyncio", spec
    sys.modules[spec.name] = module
    exec(compile(source, spec.origin, "exec"), module.__dict__)
    parent = sys.modules["test.test_asyncio"]
    setattr(parent, name, module)
    return module


def cases(name: str) -> unittest.TestSuite:
    module = load(f"test_{name}")
    suite = unittest.TestSuite()
    for class_name, maker in SUITES[name]:
        case = getattr(module, class_name)
        case = type(class_name, (case,), {maker: make_loop} if maker else {})
        case.__module__ = f"test_{name}"
        suite.addTests(unittest.defaultTestLoader.loadTestsFromTestCase(case))
    return suite


def main(wanted: list[str]) -> int:
    set_up()
    socket_helper.HOST = socket_helper.HOSTv4 = KERNEL
    for name in ("utils", "functional"):
        load(name)
    run = Run("explained.json")
    for name in SUITES:
        words = [want.partition(":")[2] for want in wanted if want.partition(":")[0] == name]
        if wanted and not words:
            continue
        asyncio.set_event_loop_policy(Policy())
        run.add(chosen(cases(name), [] if "" in words else words))
        asyncio.set_event_loop_policy(None)
    return run.end()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
