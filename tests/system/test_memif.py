"""Two processes over memif: the compiled generator against the compiled echo handler and against Python handlers."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from mpserve.dataplane.layout import COUNTERS

REPOSITORY = Path(__file__).parents[2]
sys.path.append(str(REPOSITORY))  # for `import benchmarks`, which isn't installed

from benchmarks.memif_pair import hold_link  # noqa: E402

pytestmark = pytest.mark.dpdk
pytest.importorskip("pydpdk", reason="needs DPDK and the pydpdk extension", exc_type=ImportError)


def _argv(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]


@contextmanager
def server(kind: str, folder: Path) -> Iterator[str]:
    """Yields its Ethernet address; SIGTERM must end it in good order."""
    counters = folder / "counters"
    counters.write_bytes(bytes(COUNTERS.itemsize))
    argv = _argv("memif_servers", kind, folder / "socket", "--counters", counters)
    with subprocess.Popen(argv, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            word, _, mac = process.stdout.readline().strip().partition(" ")
            assert word == "ready"
            yield mac
        finally:
            process.terminate()
        assert process.wait(30) == 0
    assert not (folder / "socket").exists()


def generate(kind: str, folder: Path, connections: str, *more: str) -> list[dict[str, Any]]:
    """Both ends, every reply verified; a result for each number of connections. The generator leaves last."""
    with ExitStack() as held, server(kind, folder) as mac:
        argv = _argv("generator", folder / "socket", "--server-mac", mac, "--counters", folder / "counters")
        argv += ["--connections", connections, "--seconds", "0.2", "--warm-up", "0", "--verify", *more]
        return held.enter_context(hold_link(argv, len(connections.split(","))))()


@pytest.mark.parametrize("kind", ["compiled", "on_data", "on_batch"])
def test_every_reply_is_the_request(kind: str, tmp_path: Path) -> None:
    results = generate(kind, tmp_path, "1,40")
    assert [r["connections"] for r in results] == [1, 40]
    for result in results:
        assert result["requests"] > 0
        assert result["failures"] == result["resets"] == 0
        assert result["server"]["busy_cycles"] > 0
        assert result["server"]["drop_tcp_checksum"] == 0


def test_replies_of_a_whole_segment(tmp_path: Path) -> None:
    (result,) = generate("compiled", tmp_path, "8", "--bytes", "1460")
    assert result["requests"] > 0
    assert result["failures"] == 0


@pytest.mark.parametrize("kind", ["compiled", "on_data"])
def test_a_connection_for_each_request(kind: str, tmp_path: Path) -> None:
    (result,) = generate(kind, tmp_path, "20", "--one-shot")
    counters = result["server"]
    assert result["failures"] == result["resets"] == 0
    assert result["requests"] > 20
    assert abs(counters["connections_closed"] - result["requests"]) <= 40
    assert counters["connections_reset"] == counters["connections_aborted"] == 0


def test_raw_frames_come_back(tmp_path: Path) -> None:
    (result,) = generate("raw", tmp_path, "1", "--raw")
    assert result["requests"] > 0
    assert result["server"]["rx_frames"] > 0


def test_a_generator_without_a_server_says_so(tmp_path: Path) -> None:
    argv = _argv("generator", tmp_path / "socket", "--server-mac", "02:00:00:00:00:01")
    done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "nobody listens on" in done.stderr
    assert len(done.stderr.splitlines()) == 1
