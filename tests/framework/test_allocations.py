"""What a packet costs in Python objects: none on the compiled path, `bytes` and the callback's own before a Python handler.

The device here is one of plain functions, so what is counted is what the worker does: one step a turn, frames and all.
"""

import gc
import sys
import tracemalloc
from typing import Any

import pytest

import mpserve
from mpserve.dataplane.jit import JIT

pytestmark = pytest.mark.skipif(not JIT, reason="plain Python allocates whatever it does")
REQUESTS = 200


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
