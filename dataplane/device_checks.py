"""What is refused before anything is made: no privilege, no file, an interface or address in use. Each is one line.

Raised as DeviceError by the supervisor, before a worker starts and before the kernel is changed.
"""

from __future__ import annotations

import glob
import ipaddress
import os

from mpserve.dataplane import kernel_link
from mpserve.dataplane.device import DeviceSpec
from mpserve.dataplane.errors import DeviceError

CAP_NET_ADMIN, CAP_NET_RAW = 12, 13


def has_capability(number: int) -> bool:
    with open("/proc/self/status") as file:
        effective = next(line.split()[1] for line in file if line.startswith("CapEff"))
    return bool(int(effective, 16) >> number & 1)


def check_privilege(spec: DeviceSpec) -> None:
    """An interface of the kernel needs CAP_NET_ADMIN, a packet socket CAP_NET_RAW: root, or a namespace of our own."""
    if not spec.driver.needs_root:
        return
    if spec.driver.interface and not (has_capability(CAP_NET_ADMIN) and has_capability(CAP_NET_RAW)):
        raise DeviceError(
            f"--device {spec} needs root or CAP_NET_ADMIN and CAP_NET_RAW: run it with sudo, "
            "or leave root out altogether with --publish 127.0.0.1:8080"
        )
    if spec.kind == "pci" and os.geteuid() != 0 and not os.path.exists("/dev/vfio/vfio"):
        raise DeviceError(f"--device {spec} needs root: run it with sudo")


def check_tun(spec: DeviceSpec) -> None:
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except FileNotFoundError:
        raise DeviceError(
            f"--device {spec} needs /dev/net/tun: type modprobe tun (in a container: --device /dev/net/tun), "
            "or take --device veth"
        ) from None
    except OSError as error:
        raise DeviceError(
            f"--device {spec} can't open /dev/net/tun ({error.strerror}): run it as root or take --device veth"
        ) from None


def check_interface_exists(spec: DeviceSpec) -> None:
    if not kernel_link.exists(spec.name):
        raise DeviceError(f"--device {spec}: no interface {spec.name!r}; there are {', '.join(kernel_link.names())}")


def check_name_is_free(spec: DeviceSpec, *names: str) -> None:
    for name in names:
        if kernel_link.exists(name):
            raise DeviceError(
                f"--device {spec}: an interface {name!r} exists already: choose another name, or leave it out"
            )


def check_subnet_is_free(ip: str, prefix_length: int) -> None:
    """A made interface gets an address in the server's subnet, so the kernel may hold none there yet."""
    network = ipaddress.ip_network(f"{ip}/{prefix_length}", strict=False)
    for name, address, length in _kernel_addresses():
        held = ipaddress.ip_network(f"{address}/{length}", strict=False)
        if held.overlaps(network):
            raise DeviceError(
                f"--ip {ip}/{prefix_length} is in use: {name} has {address}/{length}; "
                "choose another subnet, such as --ip 10.77.0.2/24"
            )


def check_address_is_free(ip: str) -> None:
    """Two stacks on one address would answer each other's segments with resets."""
    for name, address, length in _kernel_addresses():
        if address == ip:
            raise DeviceError(
                f"--ip {ip} is in use: the kernel holds {address}/{length} on {name} and would answer too; "
                "give the server an address of its own"
            )


def check_may_take(spec: DeviceSpec) -> None:
    """Refuse an interface that the machine itself lives on; `--take-over` skips this."""
    reason = _why_not_take(spec.name)
    if reason:
        raise DeviceError(f"--device {spec}: {spec.name} {reason}; add --take-over to use it all the same")


def _why_not_take(name: str) -> str:
    if any(route.get("dev") == name for route in kernel_link.ip_json("route", "show", "default")):
        return "carries the default route"
    held = {address for interface, address, _ in _kernel_addresses() if interface == name}
    session = os.environ.get("SSH_CONNECTION", "").split()
    if len(session) == 4 and session[2] in held:
        return "carries your ssh session"
    if held:
        return f"has the kernel's address {sorted(held)[0]}"
    return ""


def _kernel_addresses() -> list[tuple[str, str, int]]:
    """(interface, IPv4 address, prefix length) of every address the kernel holds."""
    return [
        (link["ifname"], address["local"], address["prefixlen"])
        for link in kernel_link.ip_json("-4", "address", "show")
        for address in link.get("addr_info", [])
        if "local" in address
    ]


def check_memory(spec: DeviceSpec, needed_mb: int, workers: int = 1) -> None:
    """`needed_mb`: what the pools of one worker take."""
    available_mb = _available_mb()
    if available_mb < needed_mb * workers:
        several = f", of which there are {workers}," if workers > 1 else ""
        instead = ", or type fewer --cores" if available_mb >= needed_mb and workers > 1 else ""
        raise DeviceError(
            f"--device {spec} needs {needed_mb} MiB of memory a worker{several} and {available_mb} MiB are available: "
            f"free some{instead}"
        )


def check_shared_hugepages(spec: DeviceSpec, needed_mb: int) -> None:
    """Processes share DPDK's memory through files in a mounted hugetlbfs."""
    with open("/proc/mounts") as file:
        mounted = any(line.split()[2] == "hugetlbfs" for line in file)
    if not mounted:
        raise DeviceError(
            f"--device {spec} with several workers needs hugepages that they can share: "
            "type mkdir -p /dev/hugepages && mount -t hugetlbfs none /dev/hugepages"
        )
    free_mb, page_mb = free_hugepages_mb()
    if free_mb < needed_mb:
        raise DeviceError(
            f"--device {spec} with several workers needs {needed_mb} MiB of hugepages and {free_mb} MiB are free: "
            f"type sysctl vm.nr_hugepages={_reserved_hugepages() + -(-(needed_mb - free_mb) // max(page_mb, 1))}"
        )


def free_hugepages_mb() -> tuple[int, int]:
    """MiB free in hugepages of the default size, and MiB of one."""
    with open("/proc/meminfo") as file:
        fields = {line.split(":")[0]: int(line.split()[1]) for line in file}
    size = fields.get("Hugepagesize", 0) // 1024
    return fields.get("HugePages_Free", 0) * size, size


def _reserved_hugepages() -> int:
    with open("/proc/sys/vm/nr_hugepages") as file:
        return int(file.read())


def _available_mb() -> int:
    """Of the machine, or of this process's limits (ulimit -v) where those are tighter."""
    import resource

    with open("/proc/meminfo") as file:
        fields = {line.split(":")[0]: int(line.split()[1]) for line in file}
    available = fields.get("MemAvailable", fields["MemFree"]) // 1024
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return available if soft == resource.RLIM_INFINITY else min(available, soft // (1 << 20))


def pmd_folders() -> list[str]:
    """Where DPDK keeps its drivers, as packages and `ninja install` place them."""
    return glob.glob("/usr/lib/*/dpdk/pmds-*") + glob.glob("/usr/local/lib/*/dpdk/pmds-*")


def check_driver_installed(pmd: str) -> None:
    """Raises DeviceError naming the Debian package if DPDK is installed without this driver."""
    folders = pmd_folders()
    if not pmd or not folders:
        return
    if any(glob.glob(os.path.join(folder, f"librte_{pmd}.so*")) for folder in folders):
        return
    abi = folders[0].rpartition("pmds-")[2].split(".")[0]
    package = "librte-" + pmd.replace("_", "-") + ("-" if pmd[-1].isdigit() else "") + abi
    raise DeviceError(f"DPDK's driver {pmd} is not installed: apt-get install {package}")


def check_installed(spec: DeviceSpec) -> None:
    """The driver's package is there."""
    pmd = spec.name.partition(",")[0].rstrip("0123456789") if spec.kind == "vdev" else spec.driver.pmd
    check_driver_installed(pmd)


def check_queues(spec: DeviceSpec, queues: int) -> None:
    most = spec.driver.max_queues
    if queues > most:
        raise DeviceError(
            f"--device {spec} serves {most} worker{'s' * (most > 1)}, not {queues}: "
            f"name {most} of the cores with --cores, or take --device veth"
        )


def check_queue_count(spec: DeviceSpec, queues: int) -> None:
    """A flow on a queue that no worker owns would go to the kernel, which resets it."""
    there = kernel_link.rx_queues(spec.name)
    if there != queues:
        raise DeviceError(
            f"--device {spec}: {spec.name} has {there} receive queues and {queues} would be served: "
            f"type ethtool -L {spec.name} combined {queues} (a veth: rx {queues} tx {queues}), "
            f"or name {there} of the cores with --cores"
        )
