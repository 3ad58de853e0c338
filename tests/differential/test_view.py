"""How segments are put into words, and views compared: no root, no stack."""

import pytest
from beside_linux import PAGE, listed, row
from raw_peer import SACK_OK, SCALE, mss
from view import Difference, Origins, View, describe, differences, octets

from mpserve.testing.segment import Segment

ORIGINS = Origins(seq=1000, ack=0xFFFF_FFF0, ts=70_000)


def seen(flags: str = "A", seq: int = 1, ack: int = 1, **fields: object) -> str:
    """A segment with these relative numbers, in words."""
    return describe(Segment(7, 8, 1000 + seq, (0xFFFF_FFF0 + ack) & 0xFFFF_FFFF, flags, **fields), ORIGINS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fields, words",
    [
        ({}, "A 1 ack 1"),
        ({"flags": "PA", "ack": 301, "payload": b"x" * 10}, "PA 1:11 ack 301"),
        ({"flags": "R", "seq": 5}, "R 5"),
        ({"flags": "RA", "seq": -1000}, "RA 0 ack 1"),
        ({"window": 0}, "A 1 ack 1 win 0"),
        ({"flags": "RA", "window": 0}, "RA 1 ack 1"),
        ({"flags": "UA", "urgent": 3}, "UA 1 ack 1 urgent 3"),
        ({"flags": "SA", "seq": 0, "options": mss(1460) + SCALE + SACK_OK}, "SA 0 ack 1 <mss 1460, sack ok, scale>"),
        ({"options": b"\x01\x01\x05\x0a\xff\xff\xff\xfa\x00\x00\x00\x04"}, "A 1 ack 1 <sack 10:20>"),
        ({"options": b"\x08\x0a" + bytes(4) + (70_005).to_bytes(4)}, "A 1 ack 1 <ts 5>"),
        ({"options": b"\xfd\x04\x12\x34"}, "A 1 ack 1 <kind 253>"),
    ],
)
def test_a_segment_in_words(fields: dict[str, object], words: str) -> None:
    assert seen(**fields) == words  # type: ignore[arg-type]


def view(*steps: tuple[str, list[str]]) -> View:
    made = View()
    for what, lines in steps:
        made.begin(what)
        for line in lines:
            made.saw(line)
    return made


def test_equal_views_have_no_difference() -> None:
    steps = [("S", ["SA"]), ("A", [])]
    assert differences(view(*steps), view(*steps)) == []


@pytest.mark.parametrize("lines", [[], ["A"], ["A, late"], ["R", "A"], ["A", "A"]])
def test_one_segment_more_less_later_or_in_another_order_is_a_difference(lines: list[str]) -> None:
    found = differences(view(("S", ["A", "R"]), ("F", [])), view(("S", lines), ("F", [])))
    assert found == [Difference("S", ("A", "R"), tuple(lines))]


def test_steps_of_the_same_words_are_told_apart() -> None:
    found = differences(view(("A", []), ("A", ["R"])), view(("A", []), ("A", [])))
    assert found == [Difference("A #2", ("R",), ())]


def test_a_script_that_went_another_way_is_a_difference() -> None:
    (found,) = differences(view(("A 1", [])), view(("A 2", []), ("R", [])))
    assert found.step == "the script's way"


def test_a_row_of_the_table_is_read_as_it_is_written() -> None:
    rows = [(name, difference) for name, found in listed().items() for difference, _ in found]
    page = {row(name, difference).rpartition("|")[0].rpartition("|")[0] for name, difference in rows}
    written = {line.rpartition("|")[0].rpartition("|")[0] for line in PAGE.read_text().splitlines()}
    assert page and page <= written


def test_the_stream_looks_different_at_every_place() -> None:
    assert octets(0, 600)[300:400] == octets(300, 100) != octets(301, 100)
