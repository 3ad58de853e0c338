"""The supervisor's children."""

import os
from pathlib import Path

import pytest

from mpserve.dataplane.errors import DeviceError
from mpserve.framework.children import Children

SLEEPER = r"""
import os, sys, time
try:
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
except PermissionError:
    os.write(int(sys.argv[1]), b'{"event": "may not"}\n')
os.write(int(sys.argv[1]), b'{"event": "asleep"}\n')
time.sleep(60)
"""


def test_one_in_the_background_is_taken_out_of_it_when_it_is_needed(tmp_path: Path) -> None:
    program = tmp_path / "sleeper.py"
    program.write_text(SLEEPER)
    children = Children((str(program),))
    try:
        child = children.spawn("spare")
        heard = children.next(30)
        assert heard is not None
        if heard[1]["event"] == "may not":
            pytest.skip("needs CAP_SYS_NICE")
        assert os.sched_getscheduler(child.pid) == os.SCHED_IDLE
        child.hurry()
        assert os.sched_getscheduler(child.pid) == os.SCHED_OTHER
    finally:
        children.close()
    child.hurry()  # it is dead: nothing happens


def test_what_is_watched_ends_the_wait_by_what_its_function_raises() -> None:
    children = Children(("never started",))
    read, write = os.pipe()
    heard: list[bytes] = []

    def hear() -> None:
        heard.append(os.read(read, 10))
        if heard[-1] == b"":
            raise DeviceError("gone")

    try:
        children.watch(read, hear)
        os.write(write, b"said")
        assert children.next(0.1) is None and heard == [b"said"]
        os.close(write)
        with pytest.raises(DeviceError, match="gone"):
            children.next(10)
        children.unwatch()
        assert children.next(0.1) is None and heard == [b"said", b""]
    finally:
        children.close()
        os.close(read)
