"""The page about several cores from made-up samples: each plot is there as SVG, each table with its rows; nothing is measured."""

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mpserve.cli.bench import bench
from mpserve.dataplane.errors import SetupError

pytest.importorskip("pydpdk", reason="needs DPDK and the pydpdk extension", exc_type=ImportError)
pytest.importorskip("matplotlib", reason="plots are drawn with matplotlib")

from mpserve.cli.bench.cores import accepts, cycles, experiments  # noqa: E402
from mpserve.cli.bench.cores import command as cores_command  # noqa: E402
from mpserve.cli.bench.paper import command, cores, page  # noqa: E402

RIG = {"requests": 1000, "seconds": 0.2, "steered_out": 0, "rx_frames": 1000, "tsc_hz": 2_000_000_000}
COST = {cycles.ALONE: 500.0, cycles.JOINED: 510.0}
CYCLES = [
    {"round": number, "plan": plan, "connections": 64, "cycles": COST.get(plan, 600.0) + number} | RIG
    for number in range(3)
    for plan in cycles.PLANS
]
ACCEPT = [
    {"round": number, "kind": kind, "cycles": 1500.0 + number} | RIG for number in range(2) for kind in accepts.KINDS
]
DELIVER = [
    {"round": 0, "deliver": on, "core": core, "connections_opened": 500, "rx_frames": 1000, "away": away, "got": away}
    for on, away in ((True, 0), (False, 500))
    for core in (0, 1)
]
WORKERS = [{"core": core, "connections_accepted": 50} for core in (0, 1)]
REBALANCE = [
    {"round": number, "rebalance": on, "rate": 3000.0, "replies_per_second": 2500.0, "p50_ms": 2.0, "p99_ms": 10.0}
    | {"failed": 0, "unanswered": 0, "workers": WORKERS, "cpus_busy": [0.9, 0.8], "busy": 0.2}
    for number, on in ((-1, None), (0, False), (0, True))
]
IDEAS = [{"server": "compiled", "closes_first": "nobody", "cycles": 400.0, "tsc_hz": 2e9, "load": "64 connections"}]
ALL: dict[str, Any] = {"cycles": CYCLES, "accept": ACCEPT, "deliver": DELIVER, "rebalance": REBALANCE, "ideas": IDEAS}


def page_of(**samples: Any) -> str:
    return page.page({"kernel": "6"}, cores.sections(samples), [])


def bodies(text: str) -> dict[str, str]:
    """The page's sections by title."""
    parts = text.split("<h2>")[1:]
    return {part.partition("</h2>")[0]: part for part in parts}


def rows_in(section: str) -> list[int]:
    """How many rows each table has, without its head."""
    return [table.count("<tr>") - 1 for table in re.findall(r"<table>.*?</table>", section, re.DOTALL)]


def test_each_section_has_its_plots_and_its_tables() -> None:
    found = bodies(page_of(**ALL))
    assert list(found) == [cores.IDEAS_TITLE, cores.SPEED_UP_TITLE, cores.SKEWED_TITLE]
    ideas, speed_up, skewed = found.values()
    assert [section.count("<svg") for section in found.values()] == [3, 1, 1]
    assert rows_in(ideas) == [len(accepts.KINDS), 4]
    assert rows_in(speed_up) == [2 + cores.MOST_CORES, len(cycles.PLANS)]
    assert rows_in(skewed) == [3]
    assert "2 cores, in turn, shared, lwsocket" in ideas and "receive flow deliver</text>" in ideas.lower()
    assert "without --rebalance" in skewed and "p99 of latency, milliseconds" in skewed


def test_the_model_grows_by_what_two_cores_cost_in_the_same_run() -> None:
    speed_up = bodies(page_of(cycles=CYCLES, ideas=IDEAS))[cores.SPEED_UP_TITLE]
    cells = re.findall(r"<tr><td>(\d+)</td><td>(.*?)</td><td>(.*?)</td></tr>", speed_up)
    assert cells[0] == ("1", "measured: one core, over memif", "5")
    assert cells[1][:2] == ("2", "two cores, measured one after the other on one core") and cells[1][2] == "9.8"
    growth = 511 / 501 - 1  # of the middle round
    assert float(cells[-1][2]) == pytest.approx(16 * 5 / (1 + 15 * growth), rel=0.01) and cells[-1][1] == "model"
    assert "measured one after the other on one core" in speed_up and "changed by +2.0 (+2.0 to +2.0) %" in speed_up


def test_without_what_a_second_core_costs_there_is_no_model_and_the_page_says_so() -> None:
    speed_up = bodies(page_of(ideas=IDEAS))[cores.SPEED_UP_TITLE]
    assert "There is no model of more cores" in speed_up and "model:" not in speed_up
    assert rows_in(speed_up) == [1] and speed_up.count("<svg") == 1


def test_a_cost_that_fell_makes_no_model_that_outdoes_the_cores() -> None:
    fell = [sample | {"cycles": 400.0} if sample["plan"] == cycles.JOINED else sample for sample in CYCLES]
    speed_up = bodies(page_of(cycles=fell))[cores.SPEED_UP_TITLE]
    assert "<td>16</td><td>model</td><td>63.9</td>" in speed_up  # 16 times 2e9 / 501


def test_what_is_there_of_two_experiments_is_shown_and_what_is_not_is_said() -> None:
    (ideas,) = bodies(page_of(deliver=DELIVER)).values()
    assert ideas.count("<svg") == 1 and "Not measured in this run: accept." in ideas and "deliver." not in ideas
    assert bodies(page_of()) == {}


def test_each_experiment_can_be_chosen_and_counts_its_steps() -> None:
    assert set(experiments.EXPERIMENTS) < set(command.names())
    assert command.steps(["rebalance"], 3) == 1 + 2 * 2  # no more than two rounds, and one worker's most before
    assert command.steps(["accept"], 2) == 6 * len(accepts.KINDS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cores", "--only", "speed"], "--only speed: there are cycles, accept, deliver, rebalance"),
        (["cores", "--seconds", "0"], "--seconds 0: has to be more than 0"),
        (["paper", "--only", "speed"], "--only speed: there are sizes, "),
    ],
)
def test_wrong_words(arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(bench, arguments)
    assert isinstance(done.exception, SetupError) and words in str(done.exception)


def test_a_file_keeps_what_does_not_run_again_and_another_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "cores.json"
    cores_command.write(file, {"deliver": {"samples": DELIVER}})
    assert cores_command.read(file) == {"deliver": {"samples": DELIVER}} and list(tmp_path.iterdir()) == [file]
    assert cores_command.read(None) == cores_command.read(tmp_path / "none") == {}
    with pytest.raises(SetupError, match="there is no folder"):
        cores_command.read(tmp_path / "none" / "cores.json")
    for text in ("nonsense", "[1]", '{"machine": {}}'):
        file.write_text(text)
        with pytest.raises(SetupError, match="not a file of this command"):
            cores_command.read(file)
        assert file.read_text() == text


def test_what_failed_is_a_note_and_the_rest_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(rounds: int, seconds: float) -> Any:
        yield from DELIVER[:1]
        raise SetupError("no veth")

    import dataclasses

    failing = dataclasses.replace(experiments.EXPERIMENTS["deliver"], measure=measure)
    monkeypatch.setitem(experiments.EXPERIMENTS, "deliver", failing)
    data = command.Data(tmp_path / "data.json", {"busy_before": "0%"})
    said: list[str] = []
    command._measure_cores("deliver", 3, data, said.append)
    assert data.samples["deliver"] == DELIVER[:1] and data.failed == {"deliver": "no veth"} and len(said) == 1
    command.write_page(tmp_path / "index.html", [], data)
    assert "where frames of outgoing connections arrive: no veth" in (tmp_path / "index.html").read_text()
