"""Set-up: the Makefile, the package lists, CI, the container files and the papers of the project say what they must."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SCRIPTS = [".ci/run", ".ci/setup", "docker/test", "docker/private-engine", "docker/client"]


def run(argv: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    settings = os.environ | environment
    return subprocess.run(argv, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_valid_bash(script: str) -> None:
    done = run(["bash", "-n", script])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("script", [s for s in SCRIPTS if s != "docker/private-engine"])
def test_scripts_that_are_called_can_be_executed(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)


@pytest.mark.parametrize("goal", ["serve", "test", "lint", "bench", "fuzz", "clean", "help"])
def test_make_knows_its_goals(goal: str) -> None:
    done = run(["make", "--dry-run", goal])
    assert done.returncode == 0, done.stderr


def copy_of_the_set_up(folder: Path, version: str) -> Path:
    """A folder with .ci/setup alone, and a python3 that says it is `version` (a tuple as text)."""
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/setup", folder / ".ci/setup")
    python = folder / "python3"
    python.write_text(f'#!/bin/sh\ncase "$1" in -V) echo Python 3.9.2;; *) exit {version};; esac\n')
    python.chmod(0o755)
    return python


@pytest.fixture
def all_packages_installed(tmp_path: Path) -> str:
    """A PATH whose dpkg-query says that every package is there, so that no test installs anything."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "dpkg-query").write_text("#!/bin/sh\necho installed\n")
    (folder / "dpkg-query").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_an_unsupported_python_is_refused_in_one_line(tmp_path: Path, all_packages_installed: str) -> None:
    python = copy_of_the_set_up(tmp_path, "1")
    done = run([str(tmp_path / ".ci/setup"), "mpserve", str(python)], PATH=all_packages_installed)
    assert done.returncode == 2
    assert (
        done.stderr == "make: Python 3.9.2 is not supported (3.11 to 3.13 are); type: make PYTHON=/usr/bin/python3.11\n"
    )
    assert not (tmp_path / ".venv").exists()


def test_a_python_that_is_not_there_is_refused_in_one_line(tmp_path: Path, all_packages_installed: str) -> None:
    copy_of_the_set_up(tmp_path, "0")
    done = run([str(tmp_path / ".ci/setup"), "mpserve", "python0.0"], PATH=all_packages_installed)
    assert done.returncode == 2
    assert done.stderr == "make: there is no python0.0; type: make PYTHON=/usr/bin/python3\n"


def test_a_package_index_that_fails_is_named_in_the_message(tmp_path: Path, all_packages_installed: str) -> None:
    copy_of_the_set_up(tmp_path, "0")
    pip = tmp_path / ".venv/bin/python"
    pip.parent.mkdir(parents=True)
    pip.write_text("#!/bin/sh\nexit 1\n")
    pip.chmod(0o755)
    done = run([str(tmp_path / ".ci/setup"), "mpserve"], PATH=all_packages_installed)
    assert done.returncode == 2
    assert "pip could not install: --editable ." in done.stderr and "reachable?" in done.stderr


def test_missing_packages_without_root_and_sudo_are_listed(tmp_path: Path) -> None:
    copy_of_the_set_up(tmp_path, "0")
    folder = tmp_path / "bin"
    folder.mkdir()
    answers = {"dpkg-query": "exit 1", "id": "echo 1000"}
    for name, body in answers.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    for name in ("bash", "dirname", "grep", "env"):
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    done = run([str(tmp_path / ".ci/setup"), "mpserve"], PATH=str(folder))
    assert done.returncode == 2
    assert done.stderr.startswith(
        "make: packages are missing and there is no sudo; as root, type: apt-get install gcc libc6-dev "
    )


def test_package_names_carry_no_version() -> None:
    lists = re.findall(r"^  \[\w+\]=\"(.*)\"$", (ROOT / ".ci/setup").read_text(), re.MULTILINE)
    names = " ".join(lists).split()
    assert "libdpdk-dev" in names
    assert [name for name in names if re.search(r"librte.*\d$", name)] == [], (
        "Debian 12 and Ubuntu 24.04 number them differently"
    )


def test_the_python_that_make_accepts_is_the_one_the_package_declares() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"].startswith(">=3.11")
    assert "(3, 11) <= sys.version_info[:2] <= (3, 13)" in (ROOT / ".ci/setup").read_text()
    assert "Python 3.11 to 3.13" in README


def test_ci_runs_linters_container_test_and_tests_and_ends_with_the_tests() -> None:
    lines = (ROOT / ".ci/run").read_text().splitlines()
    at = [
        lines.index(line) for line in ("step lint make lint", "step docker docker/test", "make test || failed+=(test)")
    ]
    assert at == sorted(at)
    assert len(lines) - at[-1] == 2, "only the exit status stands after the tests"


def test_containers_name_their_capabilities() -> None:
    compose = (ROOT / "docker/compose.yaml").read_text()
    assert "cap_drop: [ALL]" in compose
    assert re.findall(r"cap_add: \[(.*)\]", compose) == ["NET_RAW, NET_ADMIN, IPC_LOCK"]
    assert not re.search(r"^\s*privileged:", compose, re.MULTILINE)


def test_the_containers_address_is_one_that_docker_gives_to_nobody() -> None:
    import ipaddress

    compose = (ROOT / "docker/compose.yaml").read_text()
    address = ipaddress.ip_address(re.findall(r'"--ip", "([\d.]+)/24"', compose)[0])
    subnet = ipaddress.ip_network(re.findall(r"subnet: (\S+)", compose)[0])
    given = ipaddress.ip_network(re.findall(r"ip_range: (\d\S+)", compose)[0])
    assert address in subnet and address not in given and f"http://{address}" in compose


def test_images_build_without_a_registrys_frontend() -> None:
    dockerfile = (ROOT / "docker/Dockerfile").read_text()
    assert "syntax=" not in dockerfile
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) == {"debian:bookworm-slim"}
    assert "network: host" in (ROOT / "docker/compose.yaml").read_text()


def test_the_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "END OF TERMS AND CONDITIONS" in text


def test_the_readme_says_the_two_commands_versions_and_every_device() -> None:
    from mpserve.dataplane.device import DRIVERS

    for words in ("make serve", "make test", "22.11", "23.11", "3.11 to 3.13", "Honest limits"):
        assert words in README
    assert [kind for kind in DRIVERS if f"| `{kind}" not in README] == []


def test_what_the_readme_links_to_is_there() -> None:
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_readmes_handler_passes_the_readmes_test(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    upper = types.ModuleType("upper")
    exec(blocks[0], upper.__dict__)
    monkeypatch.setitem(sys.modules, "upper", upper)
    namespace: dict = {"mpserve": upper.__dict__["mpserve"]}
    exec("\n".join(blocks[1:]), namespace)
    namespace["test_upper"]()
    assert len(blocks[0].splitlines()) <= 12, "a handler in ten lines"
