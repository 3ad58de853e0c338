"""Everything a user can get wrong: one line that says what to do, exit status 2, nothing left behind.

Each runs the real command in namespaces of its own, made by `unshare`, where the world is as the test wants it.
"""

import glob
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MPSERVE = f"{sys.executable} -m mpserve.cli"
CORES = ",".join(map(str, sorted(os.sched_getaffinity(0))[:2]))
IN_NAMESPACE = "unshare --net --mount -- sh -ec"


def can_unshare() -> bool:
    return (
        shutil.which("unshare") is not None
        and not subprocess.run(
            [*IN_NAMESPACE.split(), "mount -t tmpfs none /mnt"], capture_output=True, check=False
        ).returncode
    )


needs_namespaces = pytest.mark.skipif(not can_unshare(), reason="needs root: network and mount namespaces by unshare")


def run(script: str, folder: Path) -> subprocess.Popen[str]:
    """`script` ends in `exec mpserve ...`, so that its pid is the command's."""
    pipe = subprocess.PIPE
    environment = os.environ | {"PYTHONSAFEPATH": "1"}
    return subprocess.Popen(
        ["sh", "-ec", script], cwd=folder, stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True
    )


def refused(script: str, folder: Path) -> str:
    """The one line on stderr, after checking everything else."""
    process = run(script, folder)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert err.startswith("mpserve: ")
    assert session_of(process.pid) == []
    assert glob.glob(f"/dev/shm/mpserve-{process.pid}-*") == []
    assert glob.glob(f"/var/run/dpdk/mpserve-{process.pid}-*") == []
    assert glob.glob(f"/sys/class/net/mps{process.pid}*") == []
    return err


def session_of(session: int) -> list[int]:
    """The processes of a session that are still there."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(name))
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "good.py").write_text("import mpserve\nclass Echo(mpserve.Handler):\n    greeting: str = 'hello'\n")
    (tmp_path / "none.py").write_text("x = 1\n")
    (tmp_path / "bad.py").write_text("import mpserve\n\n1 / 0\n")
    (tmp_path / "mpserve.toml").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("run bad.py:Echo", "line 3: ZeroDivisionError: division by zero"),
        ("run none.py:Echo", "define class NAME(mpserve.Handler) in it"),
        ("run none.py", "define class NAME(mpserve.Handler) in it"),
        ("run gone.py:Echo", "there is no file gone.py"),
        ("run good.py:Ecko", "has no 'Ecko' (did you mean Echo?)"),
        ("run nothing", "type FILE.py:Name, module:Name or an installed application"),
        ("run", "Missing argument 'TARGET'"),
        ("run good.py:Echo --set greting=hi", "no option 'greting' (did you mean greeting?); its options are greeting"),
        ("run good.py:Echo --set greeting", "type --set NAME=VALUE"),
        ("http --root gone", "gone"),
        ("memcached -m 0", "memory"),
        ("echo --device vteh", "no device is called 'vteh'"),
        ("echo --device tap:a/b", "is no interface name"),
        ("echo --device memif:x,mtu=9000", "memif has no option 'mtu'; it takes"),
        ("echo --device ring --take-over", "--take-over is for an interface that exists"),
        ("echo --device ring --publish 127.0.0.1:1", "--publish reaches the server through the kernel's end"),
        ("echo --device ring --listen :70000", "port from 1 to 65535"),
        ("echo --device ring --limit conections=7", "no setting is called 'conections' (did you mean"),
        ("echo --device ring --max-connections 0", "out of range"),
        ("echo --device ring --cores 4000", "core 4000 isn't there, or is outside the affinity mask"),
        ("echo --device ring --cores two", "--cores two: type numbers and ranges, such as --cores"),
        ("echo --cpu 0", "No such option '--cpu'"),
        ("echo --device ring --config gone.toml", "--config gone.toml: No such file"),
        ("echo --device ring --limit blocks=4194304 --limit sndbuf_bytes=x", "sndbuf_bytes=x is not int"),
        ("echo --device ring --hugepages some", "'some' is not one of"),
        ("ehco", "no command is called 'ehco' (did you mean echo?)"),
        ("echo --lisen :7", "No such option '--lisen'"),
    ],
)
def test_wrong_words(folder: Path, arguments: str, words: str) -> None:
    assert words in refused(f"exec {MPSERVE} {arguments}", folder)


def test_settings_in_the_file_are_checked_too(folder: Path) -> None:
    (folder / "mpserve.toml").write_text("[server]\ndevise = 'tap'\n")
    assert "no setting is called 'devise' (did you mean device?)" in refused(f"exec {MPSERVE} echo", folder)
    (folder / "mpserve.toml").write_text("[handler]\nvolume = 11\n")
    assert "Echo has no option 'volume'; it takes no options" in refused(f"exec {MPSERVE} echo", folder)


def test_not_enough_memory(folder: Path) -> None:
    line = refused(f"ulimit -v 4000000; exec {MPSERVE} echo --device ring --limit blocks=4194304", folder)
    assert "MiB of memory a worker and" in line


def test_no_dpdk(folder: Path) -> None:
    (folder / "pydpdk").mkdir()
    (folder / "pydpdk" / "__init__.py").write_text("raise ImportError('pydpdk was installed without DPDK')\n")
    line = refused(f"PYTHONPATH={folder}:$PYTHONPATH exec {MPSERVE} echo --device ring", folder)
    assert "pydpdk was installed without it: apt-get install libdpdk-dev" in line


def in_namespace(script: str) -> str:
    """`script` in network and mount namespaces of its own; `exec` keeps the pid."""
    quoted = script.replace("'", "'\\''")
    return f"exec {IN_NAMESPACE} '{quoted}'"


WORLDS = [
    (
        "no root",
        f"exec setpriv --bounding-set=-net_admin,-net_raw {MPSERVE} http",
        ["needs root or CAP_NET_ADMIN", "run it with sudo", "--publish 127.0.0.1:8080"],
    ),
    (
        "no /dev/net/tun",
        f"mkdir -p /dev/net; mount -t tmpfs none /dev/net; exec {MPSERVE} echo --device tap",
        ["needs /dev/net/tun", "modprobe tun"],
    ),
    ("unknown interface", f"exec {MPSERVE} echo --device af_packet:nosuch0", ["no interface 'nosuch0'; there are lo"]),
    (
        "address in use",
        f"ip link set lo up; ip address add 10.9.0.7/24 dev lo; exec {MPSERVE} http",
        ["--ip 10.9.0.2/24 is in use: lo has 10.9.0.7/24", "choose another subnet"],
    ),
    (
        "address of the kernel",
        "ip link add mpstq type veth peer mpstr; ip address add 10.9.0.2/24 dev mpstq; ip link set mpstq up; "
        f"exec {MPSERVE} http --device af_packet:mpstr",
        ["--ip 10.9.0.2 is in use", "give the server an address of its own"],
    ),
    (
        "name in use",
        f"ip link add mpstq type veth peer mpstr; exec {MPSERVE} http --device veth:mpstq",
        ["an interface 'mpstq' exists already", "choose another name"],
    ),
    (
        "default route",
        "ip link add mpstq type veth peer mpstr; ip address add 10.77.0.1/24 dev mpstq; ip link set mpstr up; "
        f"ip link set mpstq up; ip route add default via 10.77.0.2; exec {MPSERVE} http --device af_packet:mpstq",
        ["carries the default route", "--take-over"],
    ),
    (
        "a subnet of one",
        f"exec {MPSERVE} http --ip 10.9.0.2/32",
        ["leaves no address for the kernel's end", "type --ip 10.9.0.2/24"],
    ),
    (
        "missing driver",
        "for folder in /usr/lib/*/dpdk/pmds-*; do mount -t tmpfs none $folder; done; "
        f"exec {MPSERVE} echo --device memif:/tmp/mpst.sock",
        ["net_memif is not installed: apt-get install librte-net-memif"],
    ),
    (
        "no hugepages",
        "mount -t tmpfs none /sys/kernel/mm; " + f"exec {MPSERVE} echo --device ring --hugepages on",
        ["--hugepages on: none are free", "nr_hugepages"],
    ),
    (
        "no hugetlbfs for workers that share a device",
        f"umount -a -t hugetlbfs || true; exec {MPSERVE} echo --device ring --cores {CORES}",
        ["--device ring with several workers needs hugepages that they can share", "mount -t hugetlbfs"],
    ),
    (
        "too few hugepages for workers that share a device",
        f"mount -t hugetlbfs none /mnt; exec {MPSERVE} echo --device ring --limit blocks=4194304 --cores {CORES}",
        ["--device ring with several workers needs", "MiB of hugepages and", "type sysctl vm.nr_hugepages="],
    ),
    (
        "workers that share a device without hugepages",
        f"exec {MPSERVE} echo --device memif:/tmp/mpst.sock --hugepages off --cores {CORES}",
        ["--hugepages off: --device memif:/tmp/mpst.sock is shared by 2 workers", "--cores"],
    ),
    (
        "route on a pair of our own",
        f"exec {MPSERVE} echo --route 10.8.0.0/16,10.9.0.1",
        ["--route is of no use on --device veth", "leave it out"],
    ),
    (
        "gateway on a pair of our own",
        f"exec {MPSERVE} echo --gateway 10.9.0.1",
        ["--gateway is of no use on --device veth", "leave it out"],
    ),
]


@needs_namespaces
@pytest.mark.root
@pytest.mark.parametrize(("script", "words"), [world[1:] for world in WORLDS], ids=[world[0] for world in WORLDS])
def test_the_machine_lacks_something(folder: Path, script: str, words: list[str]) -> None:
    line = refused(in_namespace(script), folder)
    for word in words:
        assert word in line
