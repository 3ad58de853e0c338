"""Which lines of DPDK's log become the reason of an error."""

import pytest

log = pytest.importorskip("pydpdk.log", reason="pydpdk's extension isn't built", exc_type=ImportError)


def test_reason_takes_the_grave_lines_once():
    said = "EAL: Detected CPU lcores: 2\nEAL: Cannot get hugepage information.\nEAL: Cannot get hugepage information.\n"
    assert log.reason(said) == "Cannot get hugepage information."


def test_reason_falls_back_to_the_last_lines():
    assert log.reason("EAL: one\nEAL: two\n") == "one; two"


def test_no_lines_no_reason():
    assert log.reason("") == ""
