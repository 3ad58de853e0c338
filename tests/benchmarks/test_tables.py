"""The memory benchmark with small tables: what it counts is there, what it looks up is found."""

import sys
from pathlib import Path

import pytest

from mpserve.dataplane.layout import CONN, SENT, TCB, TIMER

sys.path.append(str(Path(__file__).parents[2]))  # for `import benchmarks`, which isn't installed

from benchmarks.tables import lookup  # noqa: E402
from benchmarks.tables.__main__ import lookups_table, opened, opened_table, sizes_table  # noqa: E402
from benchmarks.tables.sizes import table_sizes  # noqa: E402


def test_sizes_are_those_of_the_records() -> None:
    each = {size.name: size.each for size in table_sizes(4096)}
    records = {"tcbs": TCB, "conns": CONN, "timers": TIMER, "sents": SENT}
    assert {name: each[name] for name in records} == {name: dtype.itemsize for name, dtype in records.items()}
    assert each["flows"] == 16 and each["time_waits"] == each["syns"] == each["block_data"] == 0
    assert sizes_table(table_sizes(4096)).row_count > 5


@pytest.mark.parametrize("kind", ["stack", "worker"])
def test_idle_connections_are_open_and_use_no_blocks(kind: str) -> None:
    found = opened(kind, 1024)
    assert found["connections"] == 1024
    assert found["blocks_used"] == 0
    assert found["table_bytes"]["tcbs"] >= 1024 * TCB.itemsize
    assert found["table_bytes"]["conns"] >= 1024 * CONN.itemsize
    assert found["block_bytes"] < 1 << 20, "pages that nobody wrote to are not there"
    assert found["grown_bytes"] > 0
    assert opened_table([found]).row_count == 1


@pytest.mark.parametrize("way", lookup.WAYS)
def test_every_flow_is_found_and_no_other(way: str) -> None:
    table = lookup.FlowTable(1024)
    table.ask_for(there=True)
    assert table.look_up(way) == 1024
    table.ask_for(there=False)
    assert table.look_up(way) == 0
    table.close()


def test_a_sample_for_each_table_key_and_way() -> None:
    samples = list(lookup.measure([64, 128], rounds=2, least=1))
    assert len(samples) == 2 * 2 * 2 * len(lookup.WAYS)
    assert all(sample["ns"] > 0 for sample in samples)
    assert lookups_table(samples, hertz=1e9).row_count == 4
