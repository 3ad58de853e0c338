"""What the runners of others' tests share: a namespace with a veth pair, loops of ours on it, results with an alarm.

The tests' 127.0.0.1 becomes the stack's address for whoever listens by a loop or connects, and the kernel's end of the pair
for whoever binds a kernel socket. So servers and clients of the loops go over the stack, and the kernel is the other side.
A blocking connect of a test, which a kernel's backlog completes, has the stack take turns meanwhile.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import unittest
import warnings
from collections.abc import Iterator
from typing import Any

from mpserve.framework.aio.loop import Loop
from mpserve.framework.aio.policy import new_event_loop

STACK, KERNEL = "10.9.0.2", "10.9.0.1"
CLONE_NEWNET = 0x40000000
TEST_SECONDS = 20
SETTINGS: dict[str, Any] = {"ip": f"{STACK}/24", "limits": {"max_connections": 512}, "grace_seconds": 0.2}

_HERE = os.path.dirname(os.path.abspath(__file__))
_scratch = tempfile.TemporaryDirectory(prefix="mpserve-suite-")  # removed when the process ends


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


class Policy(asyncio.DefaultEventLoopPolicy):
    """For tests that take what the policy makes."""

    _loop_factory = staticmethod(make_loop)


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


def set_up() -> None:
    """Everything that holds for the whole run; the current folder, in which tests leave files, is a temporary one."""
    enter_namespace()
    os.dup2(2, 1)
    os.chdir(_scratch.name)
    socket.socket.bind, socket.socket.connect = bind, connect  # type: ignore[method-assign, assignment]
    signal.signal(signal.SIGALRM, too_long)
    warnings.simplefilter("ignore")
    make_loop().close()  # what takes its time the first time


def flat(suite: unittest.TestSuite) -> Iterator[Any]:
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from flat(item)
        else:
            yield item


def chosen(suite: unittest.TestSuite, words: list[str]) -> unittest.TestSuite:
    """The tests with one of these words in their names; without words, all."""
    return unittest.TestSuite(t for t in flat(suite) if not words or any(word in t.id() for word in words))


class Run:
    """The results of several suites, and what they come to. `explained` names a file of tests that fail, and why."""

    def __init__(self, explained: str) -> None:
        with open(os.path.join(_HERE, explained)) as file:
            self._explained: dict[str, str] = json.load(file)
        self._failed: list[str] = []
        self._ran = 0

    def add(self, suite: unittest.TestSuite) -> None:
        runner = unittest.TextTestRunner(verbosity=2, resultclass=Result)  # type: ignore[arg-type]
        result = runner.run(suite)
        self._ran += result.testsRun
        self._failed += [test.id().split(" ")[0] for test, _ in result.failures + result.errors]

    def end(self) -> int:
        """Say it; the exit status: 1 if a test fails that is not explained."""
        unexplained = sorted(set(self._failed) - set(self._explained))
        print(
            f"{self._ran} tests ran, {len(self._failed)} failed, {len(unexplained)} of them unexplained: {unexplained}"
        )
        return 1 if unexplained or not self._ran else 0
