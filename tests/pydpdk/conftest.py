"""The EAL can be initialised once in a process, so every test marked `dpdk` here runs in a forked child of its own."""

import ctypes
import os
import signal
import traceback
import uuid

import pytest

SECONDS = 60
CLONE_NEWNET = 0x40000000


def run_in_child(function, arguments):
    """What the child has to report: "" if `function` returned, "skip: why", or its traceback."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        signal.alarm(SECONDS)
        os.write(writer, report(function, arguments).encode()[:60000])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, errors="replace") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    return said if status == 0 else f"{said}the child ended with status {status}, {signal_name(status)}"


def report(function, arguments):
    try:
        function(**arguments)
        end_eal()
    except pytest.skip.Exception as skip:
        return f"skip: {skip}"
    except BaseException:
        return traceback.format_exc()
    return ""


def end_eal():
    from pydpdk import eal

    eal.cleanup()


def signal_name(status):
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else "not by a signal"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    if pyfuncitem.get_closest_marker("dpdk") is None:
        return None
    pytest.importorskip("pydpdk", reason="pydpdk's extension isn't built", exc_type=ImportError)
    names = pyfuncitem._fixtureinfo.argnames
    said = run_in_child(pyfuncitem.obj, {name: pyfuncitem.funcargs[name] for name in names})
    if said.startswith("skip: "):
        pytest.skip(said.removeprefix("skip: "))
    if said:
        pytest.fail(said, pytrace=False)
    return True


@pytest.fixture
def prefix():
    return f"mpst{uuid.uuid4().hex[:8]}"


@pytest.fixture
def start(prefix):
    """start(vdev, ...) initialises the EAL without hugepages and without files."""

    def start_eal(*vdevs, **options):
        from pydpdk import eal

        eal.init(hugepages=False, in_memory=True, memory_mb=64, file_prefix=prefix, vdevs=vdevs, **options)

    return start_eal


@pytest.fixture
def own_network():
    """own_network() gives the test's process a network namespace, which ends with it; skips where that is forbidden."""

    def unshare():
        if os.geteuid() != 0:
            pytest.skip("needs root: makes a network namespace and a tap")
        if not os.access("/dev/net/tun", os.W_OK):
            pytest.skip("needs /dev/net/tun")
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
            pytest.skip(f"no network namespace of its own: {os.strerror(ctypes.get_errno())}")

    return unshare
