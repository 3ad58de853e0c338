"""What a packet costs in Python objects: none on the compiled path, `bytes` and the callback's own before a Python handler.

The device here is one of plain functions, so what is counted is what the worker does: one step a turn, frames and all.
"""

import gc
import sys
import tracemalloc
from array import array
from typing import Any

import pytest

import mpserve
from mpserve.dataplane.jit import JIT

pytestmark = pytest.mark.skipif(not JIT, reason="plain Python allocates whatever it does")
REQUESTS = 200
ROUNDS = 25  # of so many requests
FEW_BLOCKS = 100  # of Python's allocator, which the test itself and the interpreter may have more of or fewer


class CompiledAnswer(mpserve.CompiledHandler):
    codec = mpserve.Lines(max=100)
    answered: int = 0

    def on_request(self, conn, request):
        self.answered += 1
        conn.write(b"ok\n")


class PythonAnswer(mpserve.Handler):
    codec = mpserve.Lines(max=100)

    def on_start(self, worker: mpserve.Worker) -> None:
        self.kept: list[bytes] = []

    def on_data(self, sock: mpserve.LwSocket, data: bytes) -> None:
        self.kept.append(data)
        sock.write(b"ok\n")


def frames_of(host: Any, client: Any, count: int) -> list[bytes]:
    """The frames of `count` requests, made beforehand."""
    made: list[bytes] = []
    deliver, host._wire.deliver = host._wire.deliver, made.append
    for n in range(count):
        client.send(b"request %05d\n" % n)
    host._wire.deliver = deliver
    return made


def bytes_of_steps(host: Any, frames: list[bytes]) -> int:
    """What Python allocates in stepping through these frames, at its peak."""
    for frame in frames:
        host._wire.deliver(frame)
    gc.collect()
    gc.disable()
    tracemalloc.start(1)
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        host.worker.step(sleep=False)
        host.worker.step(sleep=False)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
        gc.enable()


@pytest.mark.parametrize("count", [2, 200])
def test_a_compiled_handler_allocates_nothing_a_request(mpserve_host: Any, count: int) -> None:
    handler = CompiledAnswer()
    host = mpserve_host(handler)
    client = host.connect()
    client.send(b"warm up\n")
    host.settle()
    frames = frames_of(host, client, count)
    peak = bytes_of_steps(host, frames)
    assert handler.answered == count + 1
    assert peak < 2000, "bytes, whether for 2 requests or 200: what the step itself needs"


def test_a_python_handler_costs_bytes_and_the_callbacks_own_objects(mpserve_host: Any) -> None:
    handler = PythonAnswer()
    host = mpserve_host(handler)
    client = host.connect()
    client.send(b"warm up\n")
    host.settle()
    handler.kept.clear()
    for frame in frames_of(host, client, REQUESTS):
        host._wire.deliver(frame)
    handler.kept.extend(b"" for _ in range(REQUESTS))  # so that the list itself does not grow
    handler.kept.clear()
    gc.collect()
    before = sys.getallocatedblocks()
    host.worker.step(sleep=False)
    after = sys.getallocatedblocks()
    assert len(handler.kept) == REQUESTS
    assert after - before <= REQUESTS + 64, (
        "a `bytes` a request, which the handler keeps; and what the step itself needs"
    )


class Discarding(mpserve.Handler):
    """Keeps nothing of what it gets."""

    answered: int = 0

    def on_data(self, sock: mpserve.LwSocket, data: bytes) -> None:
        self.answered += data.count(b"\n")
        sock.write(b"ok\n")


class DiscardingLines(Discarding):
    codec = mpserve.Lines(max=100)

    def on_data(self, sock: mpserve.LwSocket, data: bytes) -> None:
        self.answered += 1
        sock.write(b"ok\n")


class Rounds:
    """Rounds of REQUESTS requests, of which only the steps of the worker are measured."""

    def __init__(self, host: Any) -> None:
        self.host, self.client = host, host.connect()
        for _ in range(3):  # lists find their size, the wire its mbufs
            self.run()

    def run(self) -> tuple[int, int]:
        """Blocks that are allocated when all is at rest again, and bytes that the steps held at their peak."""
        for frame in frames_of(self.host, self.client, REQUESTS):
            self.host._wire.deliver(frame)
        gc.collect()
        gc.disable()
        tracemalloc.start(1)
        try:
            held = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            self.host.worker.step(sleep=False)
            self.host.worker.step(sleep=False)
            peak = tracemalloc.get_traced_memory()[1] - held
        finally:
            tracemalloc.stop()
            gc.enable()
        self.host.settle()
        self.client.recv()
        gc.collect()
        return sys.getallocatedblocks(), peak


@pytest.mark.parametrize("kind", [CompiledAnswer, Discarding, DiscardingLines])
def test_thousands_of_requests_leave_nothing_behind(mpserve_host: Any, kind: Any) -> None:
    gc.freeze()  # what other tests have left needs no looking through, 50 times
    try:
        _check_rounds(mpserve_host, kind())
    finally:
        gc.unfreeze()


def _check_rounds(mpserve_host: Any, handler: Any) -> None:
    rounds = Rounds(mpserve_host(handler))
    before = handler.answered
    blocks, peaks = array("q", [0] * ROUNDS), array("q", [0] * ROUNDS)  # so that these need no more either
    for number in range(ROUNDS):
        blocks[number], peaks[number] = rounds.run()
    assert handler.answered == before + ROUNDS * REQUESTS
    assert blocks[-1] - blocks[0] <= FEW_BLOCKS, f"after {ROUNDS * REQUESTS} requests"
    first, last = (
        min(peaks[: ROUNDS // 2]),
        min(peaks[ROUNDS // 2 :]),
    )  # of many, for the interpreter has spikes of its own
    assert last - first < 2000, "bytes: the last rounds need what the first did"


def test_thousands_of_requests_cost_a_python_handler_a_bytes_each_and_nothing_else(mpserve_host: Any) -> None:
    handler = PythonAnswer()
    host = mpserve_host(handler)
    client = host.connect()
    host.settle()
    kept: list[bytes] = []
    handler.kept = kept
    kept.extend(b"" for _ in range(2 * ROUNDS * REQUESTS))  # so that the list itself does not grow
    del kept[0 : 2 * ROUNDS * REQUESTS - 1]
    before = len(kept)
    tracemalloc.start(1)
    try:
        for _ in range(ROUNDS):
            for frame in frames_of(host, client, REQUESTS):
                host._wire.deliver(frame)
            host.worker.step(sleep=False)
            host._carry()
        gc.collect()
        found = tracemalloc.take_snapshot().statistics("lineno")
    finally:
        tracemalloc.stop()
    assert len(kept) == before + ROUNDS * REQUESTS
    ours = {line.traceback[0]: line.count for line in found if "/framework/" in line.traceback[0].filename}
    (data, count), *rest = sorted(ours.items(), key=lambda item: -item[1])
    assert data.filename.endswith("worker.py") and count == ROUNDS * REQUESTS, "the slice that `on_data` gets"
    assert sum(each for where, each in rest if "/tests/" not in where.filename) <= FEW_BLOCKS
