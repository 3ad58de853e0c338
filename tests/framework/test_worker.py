"""The worker between stack and handler, in virtual time: callbacks, exceptions, timers, calls from threads."""

import logging
import os
import subprocess
import sys
import threading

import pytest

import mpserve
from mpserve.dataplane.events import Reason
from mpserve.dataplane.limits import Limits
from mpserve.framework import device_watch
from mpserve.framework.worker import Worker
from mpserve.testing.wire import Wire

pytestmark = pytest.mark.on_kernel_sockets


class Log(mpserve.Handler):
    """Notes every callback by name."""

    def __init__(self):
        self.seen = []
        self.worker = None

    def on_start(self, worker):
        self.worker = worker
        self.seen.append("start")

    def on_stop(self):
        self.seen.append("stop")

    def on_accept(self, sock):
        self.seen.append("accept")

    def on_data(self, sock, data):
        self.seen.append(data)

    def on_eof(self, sock):
        self.seen.append("eof")
        sock.close()

    def on_close(self, sock, reason):
        self.seen.append(reason)


def test_callbacks_come_in_order(mpserve_host):
    handler = Log()
    host = mpserve_host(handler)
    client = host.connect()
    client.send(b"one")
    host.settle()
    client.send(b"two")
    client.close()
    host.settle()
    assert handler.seen == ["start", "accept", b"one", b"two", "eof", Reason.FINISHED]
    assert client.closed


def test_a_reset_closes_with_its_reason(mpserve_host):
    handler = Log()
    host = mpserve_host(handler)
    client = host.connect()
    client.reset()
    host.settle()
    assert handler.seen == ["start", "accept", Reason.RESET]


class Fragile(mpserve.Handler):
    """Raises where it is told to."""

    def on_accept(self, sock):
        sock.cookie = "fine"

    def on_data(self, sock, data):
        if data == b"raise":
            raise RuntimeError("told to")
        sock.write(data)

    def on_eof(self, sock):
        raise RuntimeError("at eof")


@pytest.mark.parametrize("where", ["data", "eof"])
def test_an_exception_aborts_its_connection_only(mpserve_host, caplog, where):
    host = mpserve_host(Fragile(), log=logging.getLogger("fragile"))
    bad, good = host.connect(), host.connect()
    if where == "data":
        bad.send(b"raise")
    else:
        bad.close()
    good.send(b"still here")
    with caplog.at_level(logging.ERROR):
        host.settle()
    assert bad.was_reset
    assert good.recv() == b"still here" and not good.was_reset
    assert host.stats["handler_errors"] == 1
    assert "RuntimeError" in caplog.text and "Traceback" in caplog.text


def test_events_after_an_exception_in_the_same_batch_are_delivered(mpserve_host):
    host = mpserve_host(Fragile())
    clients = [host.connect() for _ in range(6)]
    for number, client in enumerate(clients):
        client.send(b"raise" if number % 2 else b"ok")
    host.settle()
    assert [c.recv() for c in clients] == [b"ok", b"", b"ok", b"", b"ok", b""]
    assert [c.was_reset for c in clients] == [False, True] * 3


class Batches(mpserve.Handler):
    """Takes reads by the batch."""

    def __init__(self):
        self.batches = []

    def on_batch(self, items):
        self.batches.append(len(items))
        for sock, data in items:
            if data == b"raise":
                raise RuntimeError("told to")
            sock.write(data.upper())


def test_on_batch_takes_the_reads_of_a_turn_at_once(mpserve_host):
    handler = Batches()
    host = mpserve_host(handler)
    clients = [host.connect() for _ in range(10)]
    for client in clients:
        client.send(b"abc")
    host.settle()
    assert [c.recv() for c in clients] == [b"ABC"] * 10
    assert handler.batches == [10]


def test_an_exception_in_on_batch_aborts_that_batch(mpserve_host):
    host = mpserve_host(Batches())
    first, second, later = host.connect(), host.connect(), host.connect()
    first.send(b"raise")
    second.send(b"x")
    host.settle()
    later.send(b"y")
    host.settle()
    assert first.was_reset and second.was_reset and later.recv() == b"Y"


def test_both_on_data_and_on_batch_are_refused():
    class Both(mpserve.Handler):
        def on_data(self, sock, data): ...
        def on_batch(self, items): ...

    with pytest.raises(mpserve.SetupError, match="both on_data and on_batch"):
        Worker(Both(), Wire(mbufs=64), ip="10.9.0.2", listen=[("", 7)], limits=Limits(max_connections=4, blocks=16))


def test_timers_fire_in_virtual_time_and_can_be_cancelled(mpserve_host):
    handler = Log()
    host = mpserve_host(handler)
    fired = []
    start = host.now
    handler.worker.call_later(0.5, lambda: fired.append(("late", 0.5 <= host.now - start < 0.6)))
    handler.worker.call_later(0.1, fired.append, "early")
    handler.worker.call_later(0.2, fired.append, "never").cancel()
    host.advance(0.3)
    assert fired == ["early"]
    host.advance(0.3)
    assert fired == ["early", ("late", True)]


def test_calls_from_threads_are_made_on_the_worker(mpserve_host):
    handler = Log()
    host = mpserve_host(handler)
    here, seen = threading.get_ident(), []
    thread = threading.Thread(
        target=handler.worker.call_soon_threadsafe, args=(lambda: seen.append(threading.get_ident()),)
    )
    thread.start()
    thread.join()
    host.settle()
    assert seen == [here]


def test_run_in_thread_completes_its_future_on_the_worker(mpserve_host):
    handler = Log()
    host = mpserve_host(handler)
    here = threading.get_ident()
    callbacks, ran = [], []
    future = handler.worker.run_in_thread(lambda: ran.append(threading.get_ident()) or 42)
    future.add_done_callback(lambda f: callbacks.append((f.result(), threading.get_ident())))
    failing = handler.worker.run_in_thread(lambda: 1 / 0)
    for _ in range(1000):
        host.settle()
        if future.done() and failing.done():
            break
        threading.Event().wait(0.005)
    assert callbacks == [(42, here)] and ran != [here]
    assert isinstance(failing.exception(), ZeroDivisionError)


def test_set_timeout_calls_on_timeout_and_data_puts_it_off(mpserve_host):
    class Timed(mpserve.Handler):
        timeouts = 0

        def on_accept(self, sock):
            sock.set_timeout(1.0)

        def on_timeout(self, sock):
            self.timeouts += 1
            sock.close()

    handler = Timed()
    host = mpserve_host(handler)
    client = host.connect()
    host.advance(0.7)
    client.send(b"x")
    host.advance(0.7)
    assert handler.timeouts == 0 and not client.eof
    host.advance(0.5)
    assert handler.timeouts == 1 and client.eof


def test_an_exception_in_on_start_comes_out():
    class Broken(mpserve.Handler):
        def on_start(self, worker):
            raise ValueError("no")

    worker = Worker(
        Broken(), Wire(mbufs=64), ip="10.9.0.2", listen=[("", 7)], limits=Limits(max_connections=4, blocks=16)
    )
    with pytest.raises(ValueError, match="no"):
        worker.run()
    worker.close()


def test_testing_needs_neither_dpdk_nor_root():
    program = """
import builtins, sys
real = builtins.__import__
def refuse(name, *rest, **more):
    if name.split(".")[0] == "pydpdk": raise ImportError("not here")
    return real(name, *rest, **more)
builtins.__import__ = refuse
import mpserve, mpserve.testing
class Echo(mpserve.Handler):
    def on_data(self, sock, data): sock.write(data)
host = mpserve.testing.Host(Echo())
client = host.connect()
client.send(b"x")
host.advance(1.0)
assert client.recv() == b"x"
assert not any(m.split(".")[0] == "pydpdk" for m in sys.modules)
print("echoed")
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert run.stdout == "echoed\n", run.stderr


def test_a_worker_announces_its_address():
    wire = Wire(mbufs=64)
    worker = Worker(
        Log(), wire, ip="10.9.0.2", listen=[("", 7)], limits=Limits(max_connections=4, blocks=16), idle_spin_us=0
    )
    worker.channel.announce()
    worker.step(sleep=False)
    (frame,) = wire.collect()
    assert frame[:6] == b"\xff" * 6 and frame[12:14] == b"\x08\x06"
    assert frame[28:32] == frame[38:42] == bytes([10, 9, 0, 2])
    worker.close()


def test_a_device_in_error_ends_the_worker(monkeypatch):
    monkeypatch.setattr(device_watch, "DEVICE_ERRORS", 3)
    monkeypatch.setattr(device_watch, "NAP_SECONDS", 0.0001)
    reader, writer = os.pipe()
    wire = Wire(mbufs=64)
    wire.wait_fds, wire.spec = [reader], "wire"
    wire.description = ""
    os.close(writer)  # from here on poll reports a hang-up
    worker = Worker(
        Log(), wire, ip="10.9.0.2", listen=[("", 7)], limits=Limits(max_connections=4, blocks=16), idle_spin_us=0
    )
    with pytest.raises(mpserve.DeviceError, match="the interface of wire is gone"):
        worker.run()
    worker.close()
    os.close(reader)


class Messages(mpserve.Handler):
    """Posts what it gets to every worker, and answers with what is posted."""

    def on_start(self, worker):
        self.worker, self.sock, self.inside = worker, None, False

    def on_data(self, sock, data):
        self.sock, self.inside = sock, True
        self.worker.post(mpserve.ALL, bytearray(data))
        self.worker.post(self.worker.core, b"!")
        self.inside = False

    def on_message(self, source, data):
        assert not self.inside
        self.sock.write(b"%d:%b " % (source, data))


def test_posted_bytes_arrive_in_order_after_the_callback(mpserve_host):
    host = mpserve_host(Messages())
    client = host.connect()
    client.send(b"hello")
    host.settle()
    assert client.recv() == b"0:hello 0:! "


def test_a_post_to_a_core_without_a_worker_is_refused(mpserve_host):
    host = mpserve_host(Messages())
    with pytest.raises(ValueError, match="no worker runs on core 7"):
        host.worker.post(7, b"")
