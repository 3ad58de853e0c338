"""The supervisor's children."""

import os
from pathlib import Path

import pytest

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
