"""`--cores`: its grammar, its default, and what is refused, with what to type."""

from typing import Any

import pytest

from mpserve.dataplane.device import parse_device
from mpserve.dataplane.errors import SetupError
from mpserve.framework import cores
from mpserve.framework.config import make_config
from mpserve.framework.cores import accepting_cores, choose_cores, name_cores, parse_cores, shorten, single_core
from mpserve.framework.handler import Handler


class One(Handler):
    default_workers = 1


@pytest.fixture(autouse=True)
def mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """An affinity mask of 0 and 2 to 5."""
    monkeypatch.setattr(cores, "allowed_cores", lambda: [0, 2, 3, 4, 5])


@pytest.mark.parametrize(
    ("text", "wanted"), [("0", [0]), ("0,2-5", [0, 2, 3, 4, 5]), (" 5 , 2-3", [5, 2, 3]), ("4-4", [4])]
)
def test_the_grammar(text: str, wanted: list[int]) -> None:
    assert parse_cores(text) == wanted
    assert parse_cores(shorten(wanted)) == wanted


def test_names() -> None:
    assert [name_cores(found) for found in ([3], [0, 1, 2], [5, 0, 1], [1, 3])] == [
        "core 3",
        "cores 0-2",
        "cores 5,0-1",
        "cores 1,3",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "type numbers and ranges, such as --cores 0,2-5"),
        ("two", "type numbers and ranges"),
        ("0,,2", "type numbers and ranges"),
        ("-1", "type numbers and ranges"),
        ("5-2", "type numbers and ranges"),
        (
            "1",
            "core 1 isn't there, or is outside the affinity mask; this process may run on 0,2-5 alone: type --cores 0,2-5",
        ),
        ("0-3", "--cores 0-3: core 1 isn't there"),
        ("0-999999", "core 1 isn't there"),
        ("2,3,2", "names core 2 twice: type --cores 2-3"),
        ("2-4,3", "names core 3 twice: type --cores 2-4"),
    ],
)
def test_what_is_refused(text: str, words: str) -> None:
    with pytest.raises(SetupError) as refused:
        parse_cores(text)
    assert words in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(("value", "text"), [(3, "3"), ("0,2-5", "0,2-5"), ([0, 2], "0,2"), (range(2, 4), "2,3")])
def test_in_programs_and_files(value: Any, text: str) -> None:
    assert make_config({"cores": value}).cores == text
    assert make_config({}, {"cores": value}).cores == text


@pytest.mark.parametrize("value", [True, 1.5, [1.5], {"0": 1}])
def test_what_is_none_in_programs_and_files(value: Any) -> None:
    with pytest.raises(SetupError, match="give numbers and ranges, such as cores = '0,2-5'"):
        make_config({"cores": value})


def test_the_default_is_the_affinity_mask_where_the_device_can_serve_it() -> None:
    kernel, ring = parse_device("kernel"), parse_device("ring")
    assert choose_cores(None, kernel, Handler) == [0, 2, 3, 4, 5]
    assert choose_cores(None, parse_device("veth"), Handler) == [0, 2, 3, 4, 5]
    assert choose_cores(None, ring, Handler) == [0]
    assert choose_cores(None, kernel, One) == [0]


def test_what_is_given_is_honoured_or_refused() -> None:
    kernel, pcap, veth = map(parse_device, ("kernel", "pcap:in", "veth"))
    assert choose_cores("5,0", kernel, One) == [5, 0]
    assert choose_cores("4", pcap, Handler) == [4]
    assert choose_cores("0,2", veth, Handler) == [0, 2]
    with pytest.raises(SetupError) as refused:
        choose_cores("2-4", pcap, Handler)
    assert "--device pcap:in has 1 queue, so it serves as many workers, not 3: type --cores 2, or" in str(refused.value)


def test_several_need_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert choose_cores(None, parse_device("kernel"), Handler) == [0]
    with pytest.raises(SetupError, match="several workers need Linux: type --cores 2"):
        choose_cores("2,3", parse_device("kernel"), Handler)


def test_what_runs_on_one_core_takes_one() -> None:
    assert single_core(None, "an event loop") is None
    assert single_core("3", "an event loop") == 3
    with pytest.raises(SetupError, match="--cores 2-3: an event loop runs on one core: type --cores 2"):
        single_core("2-3", "an event loop")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (":7@3", "--listen :7@3: no worker runs on core 3: type --listen :7@0-1, or change --cores"),
        (":7@", "--listen :7@: cores stand behind the @: type --listen :7@0-1, or change --cores"),
        (":7@x", "--listen :7@x: cores stand behind the @: type --listen :7@0-1, or change --cores"),
    ],
)
def test_a_listener_on_cores_without_workers_is_refused(text: str, says: str) -> None:
    with pytest.raises(SetupError) as refused:
        accepting_cores(text, [0, 1])
    assert str(refused.value) == says


def test_a_listener_on_some_of_the_cores() -> None:
    assert accepting_cores(":7", [4, 2]) == [4, 2]
    assert list(accepting_cores("10.9.0.2:7@2-3,5", [2, 3, 4, 5])) == [2, 3, 5]
