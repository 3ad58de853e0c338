"""CPython's own test_asyncio on our loop, over a veth pair in a network namespace of its own. Root, and a Python with its tests.

    python tests/asyncio_suite/run.py            all of SUITES; exit status 1 if a test fails that EXPLAINED doesn't name
    python tests/asyncio_suite/run.py streams    one of them, or those whose test names contain a word: streams:echo

The tests' 127.0.0.1 becomes the stack's address for whoever listens by a loop or connects, and the kernel's end of the pair
for whoever binds a kernel socket. So servers and clients of the loops go over the stack, and the kernel is the other side.
A blocking connect of a test, which a kernel's backlog completes, has the stack take turns meanwhile.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import importlib.util
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import types
import unittest
import warnings
from typing import Any

from test.support import socket_helper

from mpserve.framework.aio.loop import Loop
from mpserve.framework.aio.policy import new_event_loop

STACK, KERNEL = "10.9.0.2", "10.9.0.1"
CLONE_NEWNET = 0x40000000
TEST_SECONDS = 20
SETTINGS: dict[str, Any] = {"ip": f"{STACK}/24", "limits": {"max_connections": 512}, "grace_seconds": 0.2}

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

_HERE = os.path.dirname(os.path.abspath(__file__))


class TookTooLong(Exception):
    """A test hangs."""


_loops: list[Any] = []


class SuiteLoop(Loop):
    """Whoever connects to a port where the stack doesn't listen means the kernel's."""

    def _meant(self, address: Any) -> Any:
        if isinstance(address, tuple) and address[0] == STACK and address[1] not in self.worker._ports:
            return (KERNEL, *address[1:])
        return address

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        await super().sock_connect(sock, self._meant(address))

    async def _connect_sock(self, exceptions: Any, addr_info: Any, local_addr_infos: Any = None) -> Any:
        return await super()._connect_sock(exceptions, (*addr_info[:4], self._meant(addr_info[4])), local_addr_infos)


def make_loop(*_: object) -> Any:
    """A loop of ours; an earlier one that a test left open gives up the device."""
    while _loops:
        _loops.pop().close()
    _loops.append(new_event_loop(**SETTINGS))
    _loops[-1].__class__ = SuiteLoop
    return _loops[-1]


def enter_namespace() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        sys.exit("needs root: makes a network namespace")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


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


_bind, _connect = socket.socket.bind, socket.socket.connect


def bind(sock: socket.socket, address: Any) -> None:
    if isinstance(address, tuple) and address[0] == STACK:
        address = (KERNEL, *address[1:])
    _bind(sock, address)


def connect(sock: socket.socket, address: Any) -> None:
    """A blocking connect to the stack on the loop's own thread turns the stack until it is there."""
    ours = isinstance(address, tuple) and address[0] == STACK and sock.type == socket.SOCK_STREAM
    if not ours or sock.gettimeout() == 0 or threading.current_thread() is not threading.main_thread() or not _loops:
        _connect(sock, address)
        return
    timeout = sock.gettimeout()
    sock.setblocking(False)
    sock.connect_ex(address)
    while not select.select([], [sock], [], 0)[1]:
        _loops[-1].worker.turn_within(0.01)
    sock.settimeout(timeout)
    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, os.strerror(error))


class Result(unittest.TextTestResult):
    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        signal.alarm(TEST_SECONDS)

    def stopTest(self, test: unittest.TestCase) -> None:
        signal.alarm(0)
        super().stopTest(test)
        while _loops:
            _loops.pop().close()
        gc.collect()


def too_long(*_: object) -> None:
    raise TookTooLong(f"longer than {TEST_SECONDS} s")


def cases(name: str) -> unittest.TestSuite:
    module = load(f"test_{name}")
    suite = unittest.TestSuite()
    for class_name, maker in SUITES[name]:
        case = getattr(module, class_name)
        case = type(class_name, (case,), {maker: make_loop} if maker else {})
        case.__module__ = f"test_{name}"
        suite.addTests(unittest.defaultTestLoader.loadTestsFromTestCase(case))
    return suite


class Policy(asyncio.DefaultEventLoopPolicy):
    """StreamTests, and asyncio.run in tests, take what the policy makes."""

    _loop_factory = staticmethod(make_loop)


def explained() -> dict[str, str]:
    path = os.path.join(_HERE, "explained.json")
    with open(path) as file:
        return dict(json.load(file))


def main(wanted: list[str]) -> int:
    enter_namespace()
    os.dup2(2, 1)
    socket.socket.bind, socket.socket.connect = bind, connect  # type: ignore[method-assign, assignment]
    signal.signal(signal.SIGALRM, too_long)
    warnings.simplefilter("ignore")
    make_loop().close()  # what takes its time the first time
    socket_helper.HOST = socket_helper.HOSTv4 = KERNEL
    for name in ("utils", "functional"):
        load(name)
    failed, ran = [], 0
    for name in SUITES:
        words = [want.partition(":")[2] for want in wanted if want.partition(":")[0] == name]
        if wanted and not words:
            continue
        asyncio.set_event_loop_policy(Policy())
        chosen = [t for t in _flat(cases(name)) if not words or any(word in t.id() for word in words)]
        runner = unittest.TextTestRunner(verbosity=2, resultclass=Result)  # type: ignore[arg-type]
        result = runner.run(unittest.TestSuite(chosen))
        asyncio.set_event_loop_policy(None)
        ran += result.testsRun
        failed += [test.id() for test, _ in result.failures + result.errors]
    known = explained()
    unexplained = sorted({test.split(" ")[0] for test in failed} - set(known))
    print(f"{ran} tests ran, {len(failed)} failed, {len(unexplained)} of them unexplained: {unexplained}")
    return 1 if unexplained else 0


def _flat(suite: Any) -> Any:
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from _flat(item)
        else:
            yield item


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
