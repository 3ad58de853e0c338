"""Kernel interfaces: what is made, what is refused, what is removed. Each test has a network namespace of its own."""

import os
import subprocess
import sys

import pytest

from mpserve.dataplane import bpf_probe, device_checks, kernel_link, links
from mpserve.dataplane.device import DeviceSpec, parse_device
from mpserve.dataplane.errors import DeviceError
from mpserve.dataplane.links import make_link

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("namespace")]


def ip(text: str) -> None:
    subprocess.run(["ip", *text.split()], check=True, capture_output=True)


def link_of(text: str, **more: object) -> links.Link:
    return make_link(parse_device(text), ip="10.9.0.2", prefix_length=24, **more)  # type: ignore[arg-type]


def test_a_veth_has_the_kernels_address_outside_and_finished_frames() -> None:
    with link_of("veth") as link:
        inner = link.spec.name
        assert link.address == "10.9.0.1/24"
        assert ("10.9.0.1", 24) in [(a, n) for i, a, n in device_checks._kernel_addresses() if i == link.interface]
        for name in (inner, link.interface):
            assert kernel_link.is_up(name)
            for offload in ("tx", "tso", "gso", "gro"):
                assert not kernel_link.offload_is_on(name, offload), (name, offload)
        assert kernel_link.owner_mark() in [found.get("ifalias") for found in kernel_link.links()]
        assert parse_device(str(link.spec)) == link.spec
    assert not kernel_link.exists(inner) and not kernel_link.exists(link.interface)


def test_a_veth_is_named_as_asked_and_made_with_queues() -> None:
    with link_of("veth:web,mtu=1400", queues=2) as link:
        assert link.interface == "web"
        assert kernel_link.mtu_of("web") == kernel_link.mtu_of(link.spec.name) == 1400
        assert kernel_link.rx_queues(link.spec.name) == 2


def test_the_kernel_gets_another_address_than_the_server() -> None:
    assert links.kernel_address("10.9.0.2", 24) == "10.9.0.1"
    assert links.kernel_address("10.9.0.1", 24) == "10.9.0.2"
    with pytest.raises(DeviceError, match="type --ip 10.9.0.2/24"):
        links.kernel_address("10.9.0.2", 32)


def test_veth_says_why_it_is_not_af_xdp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "why_no_af_xdp", lambda: "BPF programs can't be loaded: Operation not permitted")
    with link_of("veth") as link:
        assert link.spec.kind == "af_packet" and "BPF programs can't be loaded" in link.description
    with pytest.raises(DeviceError, match="leave driver=af_xdp out"):
        link_of("veth,driver=af_xdp")


def test_without_capabilities_bpf_is_forbidden() -> None:
    code = "from mpserve.dataplane.bpf_probe import why_no_af_xdp; print(why_no_af_xdp())"
    dropped = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", code]
    done = subprocess.run(dropped, capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.strip(), bpf_probe.why_no_af_xdp()


def test_a_tap_outlives_a_worker_and_ends_with_the_server() -> None:
    device_checks.check_tun(DeviceSpec("tap"))
    with link_of("tap") as link:
        assert link.spec.kind == "tap" and link.spec.name == link.interface
        assert kernel_link.is_up(link.interface)
    assert not kernel_link.exists(link.interface)


def test_no_tun_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise FileNotFoundError

    monkeypatch.setattr(device_checks.os, "open", refuse)
    with pytest.raises(DeviceError, match="modprobe tun"):
        device_checks.check_tun(DeviceSpec("tap"))


def test_a_name_or_a_subnet_in_use_is_refused_and_nothing_is_left() -> None:
    ip("link add web type veth peer other")
    before = kernel_link.names()
    with pytest.raises(DeviceError, match="choose another name"):
        link_of("veth:web")
    ip("address add 10.9.0.77/16 dev other")
    for device in ("veth", "tap"):
        with pytest.raises(DeviceError, match=r"other has 10.9.0.77/16; choose another subnet"):
            link_of(device)
    assert kernel_link.names() == before


def test_a_failure_half_way_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise DeviceError("ip could not set the interface up: no")

    before = kernel_link.names()
    monkeypatch.setattr(kernel_link, "ip_batch", fail)
    for device in ("veth", "tap"):
        with pytest.raises(DeviceError, match="could not"):
            link_of(device)
    assert kernel_link.names() == before


def test_an_unknown_interface_is_refused_with_those_there_are() -> None:
    with pytest.raises(DeviceError, match="no interface 'nope'; there are lo"):
        link_of("af_packet:nope")


def test_the_interface_of_the_default_route_is_refused() -> None:
    ip("link add web type veth peer other")
    ip("address add 192.0.2.1/24 dev web")
    ip("link set web up")
    with pytest.raises(DeviceError, match="has the kernel's address 192.0.2.1; add --take-over"):
        link_of("af_packet:web")
    ip("route add default via 192.0.2.9")
    for device in ("af_packet:web", "af_xdp:web"):
        with pytest.raises(DeviceError, match="carries the default route; add --take-over"):
            link_of(device)
    with link_of("af_packet:web", take_over=True) as link:
        assert link.spec.name == "web"


def test_the_interface_of_the_ssh_session_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ip("link add web type veth peer other")
    ip("address add 192.0.2.1/24 dev web")
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.7 40000 192.0.2.1 22")
    with pytest.raises(DeviceError, match="carries your ssh session"):
        link_of("af_xdp:web")


def test_an_address_that_the_kernel_holds_is_refused_for_a_packet_socket_always() -> None:
    ip("link add web type veth peer other")
    ip("address add 10.9.0.2/24 dev web")
    with pytest.raises(DeviceError, match="give the server an address of its own"):
        link_of("af_packet:web", take_over=True)


def test_a_borrowed_interface_is_given_back_as_it_was() -> None:
    ip("link add web type veth peer other")
    kernel_link.set_offloads("web", on=True, which="gro")
    assert kernel_link.offload_is_on("web", "gro")
    with link_of("af_packet:web"):
        assert kernel_link.is_up("web") and not kernel_link.offload_is_on("web", "gro")
    assert not kernel_link.is_up("web") and kernel_link.offload_is_on("web", "gro")


def test_queues_that_nobody_serves_are_refused() -> None:
    ip("link add web numrxqueues 4 numtxqueues 4 type veth peer name other numrxqueues 4 numtxqueues 4")
    with pytest.raises(DeviceError, match=r"4 receive queues and 1 would be served: type ethtool -L web"):
        link_of("af_xdp:web")
    with pytest.raises(DeviceError, match="serves 1 worker, not 2: name 1 of the cores with --cores"):
        link_of("pcap:x", queues=2)


def test_no_capability_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_checks, "has_capability", lambda number: False)
    for device in ("veth", "tap", "af_packet:lo", "af_xdp:lo"):
        with pytest.raises(DeviceError, match="needs root or CAP_NET_ADMIN .* run it with sudo"):
            link_of(device)


def test_too_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_checks, "_available_mb", lambda: 40)
    with pytest.raises(DeviceError, match="needs 80 MiB of memory a worker and 40 MiB are available"):
        link_of("veth", memory_mb=80)


def test_leftovers_of_a_killed_run_are_removed_and_those_of_a_living_one_stay() -> None:
    code = (
        "import os, signal; from mpserve.dataplane.links import make_link, DeviceSpec\n"
        "make_link(DeviceSpec('veth'), ip='10.9.0.2', prefix_length=24)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    dead = subprocess.Popen([sys.executable, "-c", code], cwd="/")
    dead.wait()
    left = [name for name in kernel_link.names() if name.startswith(f"mps{dead.pid}")]
    assert len(left) == 2
    with link_of("veth") as link:
        assert not any(kernel_link.exists(name) for name in left)
        assert links.remove_stale() == [] and kernel_link.exists(link.interface)


def test_somebody_elses_interface_is_never_stale() -> None:
    ip("link add web type veth peer other")
    ip("link set dev web alias mpserve-like")
    ip("link add mps-like type veth peer mpsother")
    assert links.remove_stale() == []


def test_an_owner_in_another_pid_namespace_counts_as_alive() -> None:
    pid = os.getpid()
    assert kernel_link.owner_is_dead(f"mpserve 4194304 1 {os.stat('/proc/self/ns/pid').st_ino}")
    assert not kernel_link.owner_is_dead("mpserve 4194304 1 1")
    assert not kernel_link.owner_is_dead(kernel_link.owner_mark())
    reused = kernel_link.owner_mark().split()
    assert reused[1] == str(pid)
    assert kernel_link.owner_is_dead(" ".join([*reused[:2], "1", reused[3]]))
