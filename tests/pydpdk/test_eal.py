"""The EAL: started, refused, ended, and what it leaves behind."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
import threading

import pytest

pytestmark = pytest.mark.dpdk


def test_starts_without_hugepages_and_leaves_no_file(start, prefix):
    from pydpdk import eal, runtime

    assert eal.process_type() == "none"
    start()
    assert eal.is_initialised()
    assert eal.process_type() == "primary"
    assert not eal.has_hugepages()
    folder = runtime.folder()
    assert folder == f"{runtime.root()}/{prefix}"
    assert os.listdir(folder) == []
    eal.cleanup()
    eal.cleanup()
    assert not os.path.exists(folder)


def test_primary_removes_its_files(prefix):
    from pydpdk import eal, runtime

    eal.init(hugepages=False, memory_mb=16, file_prefix=prefix)
    folder = runtime.folder()
    assert "config" in os.listdir(folder)
    assert runtime.primary_is_alive(prefix)
    assert runtime.remove_leftovers(prefix) is False
    eal.cleanup()
    assert not os.path.exists(folder)
    assert not runtime.primary_is_alive(prefix)


def test_leftovers_of_a_killed_primary(prefix):
    from pydpdk import runtime

    program = (
        "import os, pydpdk\n"
        f"pydpdk.eal.init(hugepages=False, memory_mb=16, file_prefix={prefix!r})\n"
        f"os.kill(os.getpid(), {int(signal.SIGKILL)})\n"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == -signal.SIGKILL
    folder = f"{runtime.root()}/{prefix}"
    assert "config" in os.listdir(folder)
    assert runtime.remove_leftovers(prefix) is True
    assert not os.path.exists(folder)


def test_second_start_is_refused(start):
    from pydpdk import DpdkError, eal

    start()
    with pytest.raises(DpdkError) as refused:
        start()
    assert refused.value.errno == errno.EALREADY
    assert refused.value.function == "rte_eal_init"
    eal.cleanup()
    with pytest.raises(DpdkError):
        start()


def test_unknown_driver_is_refused_with_the_reason_of_dpdk(start):
    from pydpdk import DpdkError

    with pytest.raises(DpdkError, match="rte_eal_init: .*net_nosuch0") as refused:
        start("net_nosuch0")
    assert "EAL: " in refused.value.log


def test_refused_start_leaves_no_file(prefix):
    from pydpdk import DpdkError, eal, runtime

    with pytest.raises(DpdkError):
        eal.init(hugepages=False, memory_mb=16, file_prefix=prefix, vdevs=["net_nosuch0"])
    assert not os.path.exists(f"{runtime.root()}/{prefix}")


def test_only_file_prefixes_are_removed():
    from pydpdk import runtime

    for wrong in ("", "../x"):
        with pytest.raises(ValueError, match="no file prefix"):
            runtime.remove_files(wrong)


def test_second_primary_of_a_prefix_is_refused_and_touches_nothing(prefix):
    from pydpdk import eal, runtime

    eal.init(hugepages=False, memory_mb=16, file_prefix=prefix)
    program = f"import pydpdk; pydpdk.eal.init(hugepages=False, memory_mb=16, file_prefix={prefix!r})"
    second = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "Is another primary process running?" in second.stderr
    assert os.path.exists(f"{runtime.folder()}/config")


def test_starts_without_root(start, monkeypatch):
    from pydpdk import eal, ports, runtime

    if os.geteuid() == 0:
        os.setuid(65534)
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("RUNTIME_DIRECTORY", folder)
        start("net_null0")
        assert len(ports()) == 1
        assert runtime.folder().startswith(f"{folder}/dpdk/")
        eal.cleanup()
        assert os.listdir(runtime.root()) == []


def test_refused_argument_prints_nothing(start, capfd):
    from pydpdk import DpdkError, eal

    with pytest.raises(DpdkError, match="unrecognized option '--nosuch'"):
        eal.init("--nosuch", hugepages=False, in_memory=True)
    assert capfd.readouterr() == ("", "")


def test_quiet_start_keeps_the_log(start, capfd):
    from pydpdk import log

    start()
    assert capfd.readouterr() == ("", "")
    assert "EAL: Detected" in log.read()


def test_starts_in_a_daemon_without_stdio(start):
    from pydpdk import eal

    os.close(1)
    os.close(2)
    start()
    assert eal.is_initialised()


def test_affinity_is_kept(start):
    before = os.sched_getaffinity(0)
    start()
    assert os.sched_getaffinity(0) == before


def test_another_thread_becomes_an_lcore(start):
    from pydpdk import eal
    from pydpdk.extension import lib

    start()
    counts = []

    def register():
        eal.register_thread()
        counts.append(lib.rte_lcore_count())
        eal.unregister_thread()
        counts.append(lib.rte_lcore_count())

    thread = threading.Thread(target=register)
    thread.start()
    thread.join()
    assert counts == [2, 1]


def test_versions_and_clock(start):
    import pydpdk

    start()
    assert pydpdk.version().startswith("DPDK ")
    assert pydpdk.tsc_hz() > 100_000_000
    assert pydpdk.eal.socket_id() >= -1


def test_log_levels(start):
    from pydpdk import hotplug, log

    start()
    log.set_level("debug", "lib.eal")
    before = len(log.read())
    hotplug.add("vdev", "net_null0")
    assert len(log.read()) > before
    with pytest.raises(ValueError):
        log.set_level("loud")
