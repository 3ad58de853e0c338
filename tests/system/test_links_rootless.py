"""Without root: a namespace of our own, a device in it, a relay out of it; or one line that says why not."""

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from mpserve.dataplane import rootless
from mpserve.dataplane.device import parse_device
from mpserve.dataplane.errors import SetupError

NOBODY = 65534
ROOT = Path(__file__).parents[2]
AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]

# Outside: listen and enter. Inside: open the device, relay to a kernel socket that answers with the device's line.
PROGRAM = """
import socket, sys
from mpserve.dataplane import rootless
from mpserve.dataplane.device import open_device, parse_device
from mpserve.dataplane.links import make_link
from mpserve.framework import publish

if rootless.is_needed(parse_device(sys.argv[1])):
    listener = publish.listen("127.0.0.1:0")
    print(listener.getsockname()[1], flush=True)
    rootless.enter(listener)
with socket.create_server(("127.0.0.1", 0)) as server, rootless.inherited_listener() as listener:
    relay = publish.start(listener, *server.getsockname())
    connection, _ = server.accept()
    with make_link(parse_device(sys.argv[1]), ip="10.9.0.2", prefix_length=24) as link:
        device = open_device(link.spec)
        connection.sendall(f"ready {link.interface} {device.mac.hex(':')}".encode())
        device.close()
    connection.close()
    relay.terminate()
    relay.wait()
"""


def command() -> list[str]:
    """A Python of this version that an ordinary user may run, as that user."""
    if os.geteuid() != 0:
        return [sys.executable]
    if not shutil.which("setpriv"):
        pytest.skip("needs setpriv, to run without root")
    candidates = [sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"]
    for candidate in candidates:
        if subprocess.run([*AS_NOBODY, "test", "-x", candidate], check=False).returncode == 0:
            return [*AS_NOBODY, candidate]
    pytest.skip(f"needs a Python that nobody may run: one of {' '.join(candidates)}")


def environment(home: Path) -> dict[str, str]:
    paths = f"{ROOT}/.venv/packages:{sysconfig.get_path('purelib')}"
    return {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.mark.parametrize("device", ["veth", "tap"])
def test_a_device_without_root_and_a_relay_to_it(tmp_path: Path, device: str) -> None:
    pytest.importorskip("pydpdk", reason="needs DPDK and the pydpdk extension", exc_type=ImportError)
    words = command()
    program = [*words, "-c", PROGRAM, device]
    allowed = [*words, "-c", "from mpserve.dataplane.rootless import check_allowed; check_allowed()"]
    tried = subprocess.run(allowed, capture_output=True, text=True, env=environment(tmp_path), cwd="/")
    if tried.returncode:
        pytest.skip(f"needs user namespaces: {tried.stderr.splitlines()[-1]}")
    process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True, env=environment(tmp_path), cwd="/")
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline())
        with socket.create_connection(("127.0.0.1", port), timeout=20) as near:
            said = b"".join(iter(lambda: near.recv(1000), b"")).decode().split()
        assert said[0] == "ready" and said[1].startswith("mps")
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_where_it_is_forbidden_the_message_names_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rootless, "UNSHARE", ["false"])
    for path, (forbids, allows) in rootless._SYSCTLS.items():
        answers = {"/proc/sys/" + path: forbids}
        monkeypatch.setattr(rootless, "_read", lambda asked, answers=answers: answers.get(asked, ""))
        with pytest.raises(SetupError, match=f"sudo sysctl -w {path.replace('/', '.')}={allows}"):
            rootless.check_allowed()
    monkeypatch.setattr(rootless, "_read", lambda asked: "")
    with pytest.raises(SetupError, match="run it with sudo"):
        rootless.check_allowed()


def test_a_failure_without_a_word_is_still_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rootless, "UNSHARE", ["mpst-no-such-command"])
    with pytest.raises(SetupError, match="apt-get install util-linux"):
        rootless.check_allowed()


def test_only_what_a_namespace_can_give_leads_into_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rootless, "has_capability", lambda number: False)
    assert rootless.is_needed(parse_device("veth")) and rootless.is_needed(parse_device("tap"))
    assert not rootless.is_needed(parse_device("af_packet:eth0")) and not rootless.is_needed(parse_device("ring"))
    monkeypatch.setenv(rootless.LISTENER_VARIABLE, "3")
    assert rootless.inside() and not rootless.is_needed(parse_device("veth"))
    monkeypatch.delenv(rootless.LISTENER_VARIABLE)
    monkeypatch.setattr(rootless, "has_capability", lambda number: True)
    assert not rootless.is_needed(parse_device("veth"))


def test_the_runtime_folder_is_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert rootless.runtime_directory() == str(tmp_path)
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(rootless.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = Path(rootless.runtime_directory())
    assert folder.parent == tmp_path and folder.stat().st_mode & 0o777 == 0o700
