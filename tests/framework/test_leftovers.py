"""What a crashed server leaves outside its processes is found by its name and removed; the living keep theirs."""

import os
import subprocess
import sys
from pathlib import Path

from mpserve.framework import leftovers


def test_the_counters_of_a_dead_process_are_stale_and_those_of_a_living_one_are_not() -> None:
    program = "from mpserve.framework import leftovers; print(leftovers.make_counters())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    dead = done.stdout.strip()
    own = leftovers.make_counters()
    try:
        assert os.path.exists(dead)
        removed = leftovers.remove_stale()
        assert os.path.basename(dead).removesuffix("-counters") in removed
        assert not os.path.exists(dead)
        assert os.path.exists(own)
    finally:
        leftovers.remove_own()
    assert not os.path.exists(own)


def test_runtime_folders_of_dpdk_go_too(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    stale = tmp_path / "dpdk" / "mpserve-999999999-1-{}".format(os.stat("/proc/self/ns/pid").st_ino)
    other = tmp_path / "dpdk" / "rte"
    workers = [tmp_path / "dpdk" / leftovers.worker_name(index) for index in (0, 1, 10)]
    for folder in (stale, other, *workers):
        folder.mkdir(parents=True)
        (folder / "config").touch()
    assert stale.name in leftovers.remove_stale()
    assert (stale.exists(), other.exists()) == (False, True)
    assert [folder.exists() for folder in workers] == [True, True, True]
    leftovers.remove_worker_files(1)
    assert [folder.exists() for folder in workers] == [True, False, True]
    leftovers.remove_own()
    assert (other.exists(), *(folder.exists() for folder in workers)) == (True, False, False, False)
