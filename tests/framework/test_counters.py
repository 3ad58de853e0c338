"""Rows of counters that several processes share: one row as it always was, several apart, and counting on."""

import numpy as np
import pytest
from groups import member, members

from mpserve.dataplane.layout import COUNTER_NAMES, COUNTERS
from mpserve.framework import counters
from mpserve.framework.counters import Published, add_up, read_published, read_segment, row_stride, segment_bytes


def test_a_segment_of_one_row_is_that_row() -> None:
    assert segment_bytes(COUNTERS.itemsize, 1) == COUNTERS.itemsize
    row = np.zeros(1, COUNTERS)
    row["turns"], row[COUNTER_NAMES[-1]] = 3, 4
    found = read_segment(row.tobytes(), COUNTER_NAMES, 1)
    assert (found[0]["turns"], found[0][COUNTER_NAMES[-1]], sum(found[0].values())) == (3, 4, 7)


def test_rows_share_no_cache_lines_and_are_found_again() -> None:
    stride = row_stride(COUNTERS.itemsize)
    assert stride % 128 == 0 and stride >= COUNTERS.itemsize
    memory = bytearray(segment_bytes(COUNTERS.itemsize, 3))
    for row in range(3):
        np.frombuffer(memory, COUNTERS, 1, row * stride)["rx_frames"] = row + 1
    assert [row["rx_frames"] for row in read_segment(memory, COUNTER_NAMES, 3)] == [1, 2, 3]
    assert add_up(read_segment(memory, COUNTER_NAMES, 3))["rx_frames"] == 6


def test_a_segment_that_no_worker_has_given_its_size_holds_zeros() -> None:
    assert read_segment(b"", COUNTER_NAMES, 2) == [dict.fromkeys(COUNTER_NAMES, 0)] * 2


@pytest.mark.parametrize("over_kernel", [False, True])
def test_a_successor_counts_on(over_kernel: bool) -> None:
    names = counters.published_names(over_kernel)
    with members(0, 1) as (group, workers):
        first = Published(workers[1], over_kernel)
        own = dict.fromkeys(names[len(counters.LIVE) :], 5)
        first.publish(own)
        first.publish(own)
        first.close()
        workers[1].close()
        workers[1] = member(group, 1)
        second = Published(workers[1], over_kernel)
        assert second.total({"handler_errors": 2, "other": 1}) == dict.fromkeys(counters.LIVE, 0) | {
            "handler_errors": 7,
            "other": 1,
        }
        second.publish({"handler_errors": 2})
        rows = read_published(group, names)
        assert set(rows[0].values()) == {0}
        assert rows[1] == dict.fromkeys(counters.LIVE, 0) | own | {"handler_errors": 7}
        second.close()


def test_the_sum_leaves_the_core_out() -> None:
    assert add_up([{"core": 1, "turns": 2}, {"core": 4, "turns": 3, "events": 1}]) == {"turns": 5, "events": 1}
