"""The command line itself: help, the lists, installed applications, and which errors are whose."""

import importlib.metadata
import subprocess
import sys

import click
import pytest

from mpserve.cli import commands, devices
from mpserve.cli.server_options import Given, server_options
from mpserve.dataplane.device import DRIVERS
from mpserve.dataplane.errors import SetupError
from mpserve.framework.supervisor import WorkerFailed


def mpserve(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mpserve.cli", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_help_teaches_by_example() -> None:
    for arguments in ([], ["--help"], ["-h"]):
        done = mpserve(*arguments)
        assert done.returncode == 0
        assert "mpserve run echo.py:Echo" in done.stdout
        for name in commands.BUILT_IN:
            assert f"  {name} " in done.stdout


@pytest.mark.parametrize("name", commands.BUILT_IN)
def test_every_command_has_help_with_an_example(name: str) -> None:
    done = mpserve(name, "--help")
    assert done.returncode == 0
    assert "\n  mpserve " in done.stdout or name == "warm"


def test_help_is_light() -> None:
    program = (
        "import sys; from mpserve.cli import commands\n"
        "try: commands.run_command_line(['http', '--help'])\n"
        "except SystemExit: print([m for m in ('numpy', 'numba', 'pydpdk') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


def test_version() -> None:
    assert mpserve("--version").stdout.startswith("mpserve 0.")


def test_devices_lists_every_kind_and_what_it_can() -> None:
    done = mpserve("devices")
    assert done.returncode == 0
    for kind, driver in DRIVERS.items():
        assert kind in done.stdout
        for option in driver.options:
            assert option in done.stdout


def test_a_device_without_its_driver_is_said_to_be_unusable(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(spec: object) -> None:
        raise SetupError("DPDK's driver net_memif is not installed: apt-get install librte-net-memif23")

    monkeypatch.setattr(devices.device_checks, "check_installed", refuse)
    assert "apt-get install librte-net-memif23" in devices.why_not_here("memif")


@click.command()
@click.option("--volume", type=int)
@server_options
def shout(given: Given, volume: int) -> None:
    """Shout."""
    click.echo(f"{volume} {given.settings['listen']} {given.options} {given.config}")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        importlib.metadata.EntryPoint("shout", f"{__name__}:shout", "mpserve.apps"),
        importlib.metadata.EntryPoint("quiet", "mpserve.apps.echo:Echo", "mpserve.apps"),
        importlib.metadata.EntryPoint("broken", "no_such_package:App", "mpserve.apps"),
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or sys.modules["__main__"])
    monkeypatch.setattr(sys.modules[__name__], "shout", shout, raising=False)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        commands.run_command_line(arguments)
    return int(left.value.code or 0)


@pytest.mark.usefixtures("installed")
def test_an_installed_command_becomes_a_sub_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("shout", "--volume", "11", "--listen", ":1", "--listen", ":2", "--set", "a=b", "--config", "x") == 0
    assert capsys.readouterr().out == "11 (':1', ':2') {'a': 'b'} x\n"


@pytest.mark.usefixtures("installed")
def test_help_lists_installed_commands_and_survives_broken_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    said = capsys.readouterr()
    assert "shout      Shout." in said.out
    assert "quiet" not in said.out
    assert "broken can't be loaded" in said.err


@pytest.mark.usefixtures("installed")
def test_an_installed_handler_is_run_by_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("quiet") == 2
    assert capsys.readouterr().err == "mpserve: quiet is a handler: type mpserve run quiet\n"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (SetupError("no\nsuch  thing"), 2),
        (WorkerFailed("it died"), 1),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
    ],
)
def test_exit_status(monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(commands.mpserve, "main", fail)
    assert run("echo") == status
