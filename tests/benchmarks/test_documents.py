"""The tables that `make bench` writes into documents: which, where, and what they say. Nothing is measured."""

import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # for `import benchmarks`, which isn't installed

from benchmarks.documents import markers  # noqa: E402
from benchmarks.documents.__main__ import document, text_of, write  # noqa: E402
from benchmarks.documents.series import ALL  # noqa: E402

ABOUT = {"processor": "a quick one", "busy_before": "0%"}


def sample(server: str, load: str, **more: Any) -> dict[str, Any]:
    latencies = {"p50_us": 10.0, "p99_us": 50.0, "p99.9_us": 90.0, "p99.99_us": 99.0}
    counted = {
        "rate": 1e5,
        "cycles": 700.0,
        "generator_busy": 0.5,
        "failures": 0,
        "refused": 0,
        "closes_first": "nobody",
    }
    return {"server": server, "load": load, "round": 0} | latencies | counted | more


FOUND = {
    series.title: [sample(server.name, load.name) for server in series.servers for load in series.loads]
    for series in ALL
}


def test_refreshing_replaces_only_what_stands_between_the_markers():
    text = f"above\n{markers.BEGIN}\nold\n{markers.END}\nbelow\n"
    assert markers.refresh(text, "new") == f"above\n{markers.BEGIN}\nnew\n{markers.END}\nbelow\n"
    with pytest.raises(ValueError, match="bench:begin"):
        markers.refresh("no markers", "new")


@pytest.mark.parametrize("name", ["README.md", "docs/benchmarks.md"])
def test_the_documents_have_the_markers(name: str):
    assert markers.refresh((ROOT / name).read_text(), "table").count("table\n<!-- bench:end -->") == 1


def test_the_short_form_has_fewer_loads_and_each_table_all_servers():
    http = ALL[0]
    full, short = text_of(http, FOUND[http.title], False), text_of(http, FOUND[http.title], True)
    assert "256 connections" in full and "256 connections" not in short
    assert short.count("| mpserve http |") == len(http.short)


def test_a_document_says_how_it_was_measured_and_what_failed():
    said = document(ABOUT | {"busy_before": "30%"}, FOUND, 3, 2.0, False)
    assert "Medians (lowest-highest) of 3 x 2 s; processor a quick one." in said and "not a quiet machine" in said
    broken = FOUND | {ALL[0].title: [sample("http", "64 connections", failures=7)]}
    assert "http, round 1, 64 connections: 7 failures" in document(ABOUT, broken, 1, 1.0, False)


def test_figures_of_all_series_are_kept(tmp_path: Path):
    write(tmp_path / "figures.json", ABOUT, FOUND)
    text = (tmp_path / "figures.json").read_text()
    assert all(series.title in text for series in ALL)
