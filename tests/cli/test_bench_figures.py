"""From samples to figures and tables, and what `mpserve bench` refuses; nothing is measured here."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mpserve.apps.load.plan import Plan
from mpserve.cli.bench import figures, protocols, servers, tables
from mpserve.cli.bench.commands import bench
from mpserve.cli.bench.cycles import CoreTime, core_times
from mpserve.cli.bench.rounds import Load
from mpserve.dataplane.errors import SetupError

LOAD = Load("64 connections", Plan(protocol="http"))


def sample(server: str, number: int, rate: float, **more: Any) -> dict[str, Any]:
    latencies = {"p50_us": 10.0, "p99_us": 50.0, "p99.9_us": 90.0}
    counted = {"cycles": 700.0, "generator_busy": 0.5, "failures": 0, "refused": 0, "closes_first": "nobody"}
    return {"server": server, "load": LOAD.name, "round": number, "rate": rate} | latencies | counted | more


SAMPLES = [sample("http", n, rate) for n, rate in enumerate((100.0, 300.0, 200.0))]
SAMPLES += [sample("nginx", n, rate, generator_busy=0.9) for n, rate in enumerate((50.0, 110.0, 100.0))]


def test_a_figure_is_the_median_with_its_range_and_names_what_it_is_compared_with():
    found = figures.by_name(figures.figures_of(SAMPLES, "nginx"))
    rate = found["http, 64 connections, rate"]
    assert (rate.median, rate.min, rate.max, rate.rounds) == (200, 100, 300, [100, 300, 200])
    assert (rate.against, rate.ratio, rate.cycles) == ("nginx, 64 connections, rate", 2.0, 700)
    assert found["nginx, 64 connections, rate"].ratio is None
    assert found["http, 64 connections, p50_us"].unit == "us"


def test_what_failed_is_said_and_no_figure(tmp_path):
    ended = {"server": "uvloop", "load": "", "round": 0, "failed": "it exited"}
    broken = [*SAMPLES, ended, sample("http", 3, 1.0, failures=2)]
    exited, missing = figures.failures(broken)
    assert exited == "uvloop, round 1: it exited"
    assert missing == "http, round 4, 64 connections: 2 failures, 0 connections refused"
    assert not any(figure.name.startswith("uvloop") for figure in figures.figures_of(broken))


def test_the_file_is_what_the_page_says(tmp_path: Path):
    file = tmp_path / "out.json"
    figures.write(file, {"kernel": "6"}, SAMPLES, "nginx")
    read = json.loads(file.read_text())
    assert read["machine"] == {"kernel": "6"} and len(read["samples"]) == 6
    wanted = {"name", "unit", "rounds", "median", "min", "max", "cycles", "generator_busy", "against", "ratio"}
    assert all(set(figure) == wanted for figure in read["figures"])
    assert list(tmp_path.iterdir()) == [file]


def test_rows_come_load_by_load_and_a_generator_at_its_limit_is_marked():
    compared = [servers.find("http"), servers.find("nginx"), servers.find("uvloop")]
    rows = tables.rows_of(figures.figures_of(SAMPLES, "nginx"), compared, [LOAD])
    assert [row[0] for row in rows] == ["mpserve http", "nginx"]
    assert rows[0][2:4] == ["700", "0.2 (0.1-0.3)"] and rows[0][-2:] == ["50%", "2"]
    assert rows[1][-2:] == ["90% its limit", "-"]
    assert tables.markdown(rows).count("\n") == 3


def test_busy_time_is_all_but_idle_and_stolen():
    found = core_times("cpu  1 1 1 1 1 1 1 1 0 0\ncpu0 10 1 20 500 7 3 4 9 0 0\ncpu1 0 0 0 5 0 0 0 0 0 0\nintr 5\n")
    assert found == {0: CoreTime(busy=38, softirq=4, stolen=9), 1: CoreTime(0, 0, 0)}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["echo", "--servers", "nginx", "--wire", "memif"], "nginx has kernel sockets, and no kernel is there"),
        (["http", "--servers", "apache"], "no server is called 'apache'"),
        (["echo", "--connections", "many"], "'many': type whole numbers"),
        (["echo", "--message", "100000"], "message = 100000 is out of range"),
        (["echo", "--rounds", "0"], "0 is not in the range"),
    ],
)
def test_wrong_words(arguments: list[str], words: str):
    done = CliRunner().invoke(bench, arguments)
    assert done.exit_code != 0
    assert words in (str(done.exception) if isinstance(done.exception, SetupError) else done.output)


def test_a_server_that_is_not_installed_is_left_out_by_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert servers.find("nginx").obstacle == "nginx is not installed: type apt-get install nginx-core"
    assert servers.find("http").obstacle == ""


def test_the_bare_protocol_answers_each_request_and_honours_close() -> None:
    class Transport:
        written, closed = b"", False

        def write(self, data: bytes) -> None:
            self.written += data

        def close(self) -> None:
            self.closed = True

    transport: Any = Transport()
    handler = protocols.FixedReply()
    handler.connection_made(transport)
    handler.data_received(b"GET / HTTP/1.1\r\n\r\n" * 2)
    assert transport.written == protocols.REPLY * 2 and not transport.closed
    handler.data_received(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert transport.written.endswith(protocols.LAST_REPLY) and transport.closed
    assert protocols.REPLY.partition(b"\r\n\r\n")[2] == protocols.BODY and len(protocols.BODY) == 64
