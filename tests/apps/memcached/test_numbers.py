"""Numbers as C reads them."""

import pytest

from mpserve.apps.memcached.numbers import signed32, unsigned32, unsigned64


@pytest.mark.parametrize(
    "text, value",
    [
        (b"0", 0),
        (b"18446744073709551615", (1 << 64) - 1),
        (b"18446744073709551616", None),
        (b"-1", None),
        (b"-0", 0),
        (b"-18446744073709551615", 1),
        (b"+5", 5),
        (b"010", 10),
        (b"0x10", None),
        (b"", None),
        (b"5x", None),
        (b"5 x", 5),
        (b" \t5", 5),
        (b"5\r", 5),
        (b"9" * 5000, None),
    ],
)
def test_unsigned64(text: bytes, value: int | None) -> None:
    assert unsigned64(text) == value


def test_longs_are_cut_to_32_bits() -> None:
    assert unsigned32(b"4294967296") == 0
    assert unsigned32(b"4294967295") == 4294967295
    assert signed32(b"4294967295") == -1
    assert signed32(b"2147483648") == -2147483648
    assert signed32(b"-9223372036854775808") == 0
    assert signed32(b"9223372036854775808") is None
    assert signed32(b"1e3") is None
