"""What can be refused before anything is compiled, made or opened: a privilege, a driver, an option a device lacks."""

from __future__ import annotations

import glob
import importlib.util
import resource

from mpserve.dataplane import device_checks, links, rootless
from mpserve.dataplane.device import DeviceSpec
from mpserve.dataplane.device_arguments import memory_mb as device_memory_mb
from mpserve.dataplane.errors import SetupError
from mpserve.dataplane.limits import BLOCK_BYTES
from mpserve.framework.config import Config
from mpserve.framework.kernel_settings import check_ports_are_free

CONNECTION_BYTES = 640  # hot and cold record, timer, flow table and queues
OWN_DESCRIPTORS = 200  # what a worker has open besides its connections


def check(config: Config, spec: DeviceSpec, workers: int = 1) -> None:
    """Raises SetupError for what `spec` can't honour or this machine lacks. Makes nothing."""
    if not spec.is_port:
        if workers > 1:
            check_ports_are_free(config.listeners)
        return  # nothing of what follows is needed; the settings were checked by themselves
    _check_options(config, spec)
    _check_comparisons(config, workers)
    check_binding()
    _check_hugepages(config)
    if workers > 1 and spec.driver.several == "shared":
        _check_shared(config, spec, workers)
    device_checks.check_memory(spec, memory_mb(config, spec), workers)
    if config.publish and rootless.is_needed(spec):
        return  # to be checked again in the namespace
    device_checks.check_privilege(spec)
    device_checks.check_installed(spec)
    if spec.driver.interface == "given":
        device_checks.check_interface_exists(spec)
        if not config.take_over:
            device_checks.check_may_take(spec)
            device_checks.check_address_is_free(config.address)
    elif spec.driver.interface == "made":
        _check_made(config, spec)


def check_binding() -> None:
    """pydpdk's extension is there. Looks without loading it: DPDK has no place in the supervisor."""
    found = importlib.util.find_spec("pydpdk")
    folders = list(found.submodule_search_locations or []) if found is not None else []
    if not any(glob.glob(f"{glob.escape(folder)}/_dpdk*.so") for folder in folders):
        raise SetupError(
            "serving needs DPDK and pydpdk was installed without it: apt-get install libdpdk-dev pkg-config gcc, "
            "then install mpserve again (make venv, or pip install --force-reinstall --no-deps)"
        )


def _check_made(config: Config, spec: DeviceSpec) -> None:
    links.remove_stale()  # a crashed run's interface may still hold the address
    if spec.kind == "tap":
        device_checks.check_tun(spec)
    links.kernel_address(config.address, config.prefix_length)
    device_checks.check_subnet_is_free(config.address, config.prefix_length)
    if spec.name:
        device_checks.check_name_is_free(spec, spec.name)


def _check_options(config: Config, spec: DeviceSpec) -> None:
    """Options that this kind of device can't honour."""
    if config.take_over and spec.driver.interface != "given":
        raise SetupError(
            f"--take-over is for an interface that exists, and --device {spec} is none: leave it out, "
            "or take --device af_packet:IFACE"
        )
    if config.publish and spec.driver.interface != "made":
        raise SetupError(f"--publish reaches the server through the kernel's end of a veth or tap, and {spec} has none")
    useless = "--gateway" if config.gateway else "--route" if config.routes else ""
    if useless and spec.driver.interface == "made":
        raise SetupError(
            f"{useless} is of no use on --device {spec}, where the only neighbour is this machine: leave it out"
        )


def _check_comparisons(config: Config, workers: int) -> None:
    """What has a meaning between several workers alone; descriptors enough for one a connection."""
    limits = config.make_limits()
    for given, what in ((config.rebalance, "--rebalance"), (limits.accept == "shared", "--limit accept=shared")):
        if given and workers < 2:
            raise SetupError(f"{what} is for several workers, and there is one: type --cores with more than one core")
    partial = next((text for text in config.listen if "@" in text), None)
    if limits.accept == "shared" and partial is not None:
        raise SetupError(f"--limit accept=shared has all cores accept: type --listen {partial.partition('@')[0]}")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limits.handles == "fd" and most < limits.max_connections + OWN_DESCRIPTORS:
        raise SetupError(
            f"--limit handles=fd takes a descriptor a connection, and this process may have {most}: type "
            f"ulimit -n {limits.max_connections + OWN_DESCRIPTORS}, or --max-connections {max(most - OWN_DESCRIPTORS, 1)}"
        )


def _check_hugepages(config: Config) -> None:
    if config.hugepages != "on":
        return
    free = 0
    for path in glob.glob("/sys/kernel/mm/hugepages/*/free_hugepages"):
        with open(path) as file:
            free += int(file.read())
    if not free:
        raise SetupError(
            "--hugepages on: none are free; as root type: echo 512 > "
            "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages (or leave --hugepages out)"
        )


def _check_shared(config: Config, spec: DeviceSpec, workers: int) -> None:
    """Workers that share a device have DPDK's memory in common."""
    if config.hugepages == "off":
        raise SetupError(
            f"--hugepages off: --device {spec} is shared by {workers} workers, and they share hugepages: leave it out, "
            "or type one core with --cores"
        )
    block_bytes = config.make_limits().blocks * BLOCK_BYTES
    device_checks.check_shared_hugepages(spec, device_memory_mb(spec, block_bytes, workers))


def memory_mb(config: Config, spec: DeviceSpec) -> int:
    """MiB that one worker takes: its tables and blocks, DPDK's pools, and the interpreter with its compiler."""
    limits = config.make_limits()
    tables = limits.max_connections * CONNECTION_BYTES + limits.blocks * BLOCK_BYTES + limits.time_wait * 96
    return tables // (1 << 20) + device_memory_mb(spec) + 160
