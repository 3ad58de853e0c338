"""The grammar of devices, the table of drivers, what DPDK is told, and what is refused: no root, no DPDK."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mpserve.dataplane import device, device_arguments, device_checks, device_port
from mpserve.dataplane.device import DRIVERS, DeviceSpec, parse_device
from mpserve.dataplane.errors import DeviceError, SetupError


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("veth", DeviceSpec("veth")),
        ("veth:web", DeviceSpec("veth", "web")),
        ("veth,driver=af_packet", DeviceSpec("veth", "", {"driver": "af_packet"})),
        ("tap:web,mtu=1400", DeviceSpec("tap", "web", {"mtu": "1400"})),
        ("tap,mac=02:00:00:00:00:07", DeviceSpec("tap", "", {"mac": "02:00:00:00:00:07"})),
        ("af_packet:eth0", DeviceSpec("af_packet", "eth0")),
        ("af_xdp:eth0,busy_budget=0", DeviceSpec("af_xdp", "eth0", {"busy_budget": "0"})),
        ("memif:/tmp/x.sock,role=client", DeviceSpec("memif", "/tmp/x.sock", {"role": "client"})),
        ("pcap:in.pcap,out.pcap", DeviceSpec("pcap", "in.pcap", {"out": "out.pcap"})),
        ("pcap:in,mac=02:00:00:00:00:07", DeviceSpec("pcap", "in", {"mac": "02:00:00:00:00:07"})),
        ("ring", DeviceSpec("ring")),
        ("pci:0000:03:00.0", DeviceSpec("pci", "0000:03:00.0")),
        ("vdev:net_null0,size=64", DeviceSpec("vdev", "net_null0,size=64")),
    ],
)
def test_parse(text: str, spec: DeviceSpec) -> None:
    assert parse_device(text) == spec
    assert parse_device(str(spec)) == spec


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"no device is called ''; there are veth\[:NAME\]"),
        ("eth0", "no device is called 'eth0'"),
        ("af_packet", "type af_packet:IFACE"),
        ("memif:", "type memif:SOCKET"),
        ("ring:x", "ring takes no name"),
        ("tap:a-name-of-seventeen", "no interface name"),
        ("af_xdp:eth/0", "no interface name"),
        ("tap,colour=red", "tap has no option 'colour'; it takes mac, mtu"),
        ("ring,a=b", "ring has no option 'a'; it takes none"),
        ("tap,mtu=", "type mtu=VALUE"),
        ("tap,mtu=9000", "type mtu=576 to 1500"),
        ("tap,mac=1", "type mac=xx:xx:xx:xx:xx:xx"),
        ("tap,mac=01:00:5e:00:00:01", "type mac=.*of one station"),
        ("memif:/x,role=boss", r"type role=server\|client"),
        ("pci:eth0", "pci:0000:03:00.0"),
        ("pcap:a,b,c", "type pcap:IN or pcap:IN,OUT"),
        ("pcap:mac=02:00:00:00:00:07", "type pcap:IN or pcap:IN,OUT"),
        ("pcap:a,mac=7", "type mac=xx:xx:xx:xx:xx:xx"),
        ("vdev:", "type vdev:DRIVER0"),
    ],
)
def test_what_does_not_parse_says_what_to_type(text: str, says: str) -> None:
    with pytest.raises(DeviceError, match=says) as caught:
        parse_device(text)
    assert "\n" not in str(caught.value) and isinstance(caught.value, SetupError)


def test_every_kind_is_in_the_grammar_and_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "devices.md").read_text()
    for kind, driver in DRIVERS.items():
        assert kind in device.GRAMMAR and f"`{kind}" in page
        assert all(f"`{option}=" in page for option in driver.options), kind


def test_a_missing_driver_names_debians_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "pmds-23.0"
    folder.mkdir()
    (folder / "librte_net_ring.so.23").touch()
    monkeypatch.setattr(device_checks, "pmd_folders", lambda: [str(folder)])
    device_checks.check_driver_installed("net_ring")
    with pytest.raises(DeviceError, match="apt-get install librte-net-af-xdp23$"):
        device_checks.check_driver_installed("net_af_xdp")
    with pytest.raises(DeviceError, match="apt-get install librte-net-vmxnet3-23$"):
        device_checks.check_driver_installed("net_vmxnet3")
    with pytest.raises(DeviceError, match="apt-get install librte-net-null23$"):
        device_checks.check_installed(DeviceSpec("vdev", "net_null0,size=64"))


def test_dpdk_elsewhere_is_not_second_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_checks, "pmd_folders", lambda: [])
    device_checks.check_driver_installed("net_af_xdp")


def arguments(text: str, *, hugepages: bool = False) -> list[str]:
    spec = parse_device(text)
    return device_arguments.eal_arguments(spec, queue=1, lcores="0@(3)", file_prefix="p", hugepages=hugepages)


def test_no_pci_bus_is_scanned_but_for_pci() -> None:
    assert "--no-pci" in arguments("ring") and "--no-telemetry" in arguments("ring")
    told = arguments("pci:03:00.0,devargs=a=1;b=2")
    assert "--no-pci" not in told and told[-2:] == ["-a", "03:00.0,a=1,b=2"]


def test_memory_is_huge_or_not() -> None:
    assert {"--no-huge", "--no-shconf"} <= set(arguments("ring"))
    assert "--in-memory" in arguments("ring", hugepages=True) and "--no-huge" not in arguments("ring", hugepages=True)


def test_a_shared_port_has_files_and_who_attaches_hears_of_its_device_from_it() -> None:
    spec, nic = parse_device("memif:/s"), parse_device("pci:03:00.0,devargs=a=1")
    holds = device_arguments.shared_arguments(spec, lcores="0@(3)", file_prefix="p", memory=100)
    assert {"--proc-type=primary", "--no-pci"} <= set(holds) and "net_memif0" in holds[-1]
    attaches = device_arguments.attaching_arguments(spec, lcores="1@(3)", file_prefix="p")
    assert {"--proc-type=secondary", "--lcores=1@(3)", "--no-pci"} <= set(attaches) and "--vdev" not in attaches
    assert not {"--in-memory", "--no-huge", "--no-shconf"} & {*holds, *attaches}
    for told in (
        device_arguments.shared_arguments(nic, lcores="0@(3)", file_prefix="p", memory=100),
        device_arguments.attaching_arguments(nic, lcores="1@(3)", file_prefix="p"),
    ):
        assert told[-2:] == ["-a", "03:00.0,a=1"]  # both probe it


def test_a_shared_port_holds_the_pools_and_blocks_of_all() -> None:
    spec = parse_device("memif:/s")
    one, three = (device_arguments.memory_mb(spec, 10 << 20, queues) - 32 for queues in (1, 3))
    assert three in (3 * one, 3 * one + 1, 3 * one + 2)


def test_every_kind_says_what_several_workers_do_with_it() -> None:
    assert {driver.several for driver in DRIVERS.values()} == set(device.SEVERAL)
    assert all(driver.max_queues > 1 for driver in DRIVERS.values() if driver.several != "one")
    with pytest.raises(DeviceError, match="--device pcap:x serves 1 worker, not 2: name 1 of the cores with --cores"):
        device_checks.check_queues(parse_device("pcap:x"), 2)


@pytest.mark.parametrize(
    ("text", "vdev"),
    [
        ("af_packet:e,offloads=off", "net_af_packet0,iface=e,framesz=2048,blocksz=65536,framecnt=2048,qdisc_bypass=1"),
        ("af_packet:e,frames=33", "net_af_packet0,iface=e,framesz=65408,blocksz=2093056,framecnt=64,qdisc_bypass=1"),
        ("memif:/s", "net_memif0,role=server,socket=/s,socket-abstract=no,id=0,rsize=10,bsize=2048"),
        ("pcap:i", "net_pcap0,rx_pcap=i,tx_pcap=/dev/null"),
        ("ring", "net_ring0"),
        ("vdev:net_null0,size=64", "net_null0,size=64"),
    ],
)
def test_vdev(text: str, vdev: str) -> None:
    assert device_arguments.vdev(parse_device(text), 1) == vdev


@pytest.mark.parametrize(
    ("text", "hardware", "options"),
    [
        ("af_xdp:e,force_copy=1", True, ",force_copy=1"),
        ("af_xdp:e,force_copy=1", False, ",force_copy=1,busy_budget=0"),
        ("af_xdp:e,busy_budget=8", False, ",busy_budget=8"),
    ],
)
def test_a_virtual_interface_is_not_busy_polled(
    text: str, hardware: bool, options: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_arguments.kernel_link, "is_hardware", lambda name: hardware)
    assert device_arguments.vdev(parse_device(text), 1) == "net_af_xdp0,iface=e,start_queue=1,queue_count=1" + options


def test_only_frames_above_the_mtu_cost_large_mbufs() -> None:
    assert device_arguments.pools(parse_device("af_packet:e")).large > 0
    assert device_arguments.pools(parse_device("af_packet:e,offloads=off")).large == 0


def test_a_taps_addresses_are_the_same_at_every_opening() -> None:
    kernel = device_arguments.kernel_mac("web")
    assert kernel == device_arguments.kernel_mac("web") != device_arguments.kernel_mac("web2")
    own = device_arguments.own_mac(DeviceSpec("tap", "web"), kernel)
    assert own != kernel and own[0] & 3 == 2  # local, not multicast
    chosen = DeviceSpec("tap", "web", {"mac": "02:00:00:00:00:07"})
    assert device_arguments.own_mac(chosen, kernel) == bytes.fromhex("020000000007")


def test_memif_server_removes_a_dead_socket_and_refuses_a_living_one(tmp_path: Path) -> None:
    path = tmp_path / "wire"
    spec = DeviceSpec("memif", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(DeviceError, match="another process listens on .*role=client"):
            device_arguments.prepare_memif_socket(spec)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()  # nobody connected to find that out
    device_arguments.prepare_memif_socket(spec)
    assert not path.exists()


def test_memif_refuses_what_is_no_socket_and_a_client_without_server(tmp_path: Path) -> None:
    path = tmp_path / "wire"
    with pytest.raises(DeviceError, match="nobody listens"):
        device_arguments.prepare_memif_socket(DeviceSpec("memif", str(path), {"role": "client"}))
    path.write_text("mine")
    with pytest.raises(DeviceError, match="is no socket"):
        device_arguments.prepare_memif_socket(DeviceSpec("memif", str(path)))
    assert path.read_text() == "mine"
    with pytest.raises(DeviceError, match="no folder .*mkdir -p"):
        device_arguments.prepare_memif_socket(DeviceSpec("memif", str(tmp_path / "a" / "wire")))


def test_hugepages_on_without_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_port, "free_hugepages_mb", lambda: (2, 2))
    with pytest.raises(DeviceError, match=r"--hugepages on: 50 MiB are needed and 2 MiB are free: type sysctl"):
        device_port.use_hugepages(50, "on")
    assert not device_port.use_hugepages(50, "auto")
    monkeypatch.setattr(device_port, "free_hugepages_mb", lambda: (1024, 2))
    assert device_port.use_hugepages(50, "auto")
    assert not device_port.use_hugepages(50, "off")


@pytest.mark.parametrize("text", ["veth", "tap", "af_packet:mpstnone", "pcap:/mpst/none"])
def test_what_is_not_made_is_not_opened(text: str) -> None:
    with pytest.raises(DeviceError, match="isn't made yet|no interface 'mpstnone'|can't read /mpst/none"):
        device_port._check_made(parse_device(text))
        device_port.prepare(parse_device(text))


def test_no_dpdk_is_one_line(tmp_path: Path) -> None:
    """A pydpdk whose extension isn't built."""
    (tmp_path / "pydpdk.py").write_text("raise ImportError('pydpdk is not built: type make venv')")
    code = (
        "from mpserve.dataplane.device import parse_device, open_device\n"
        "from mpserve.dataplane.errors import DeviceError\n"
        "try: open_device(parse_device('ring'))\n"
        "except DeviceError as error: print(error)"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", env=environment)
    assert done.stdout == "--device ring needs DPDK: pydpdk is not built: type make venv\n", done.stderr
