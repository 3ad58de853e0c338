"""A worker attaches to a port that another process has opened for several (`shared_port`): as a DPDK secondary, on the queue
pair that is its own, with the mempool that is its own.

Whatever two processes lock in DPDK's memory stays locked for ever if one is killed meanwhile, so that they share nothing but
the description of the port.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from mpserve.dataplane import device_arguments, flow_hash
from mpserve.dataplane.device import Device, DeviceSpec
from mpserve.dataplane.device_checks import check_driver_installed, check_queues
from mpserve.dataplane.device_port import describe, init_eal, one_line, quiet_stderr
from mpserve.dataplane.errors import DeviceError

KEY_BYTES = len(flow_hash.KEY)


def pool_name(queue: int) -> str:
    return f"mpserve{queue}"


def blocks_name(queue: int) -> str:
    return f"mpserve_blocks{queue}"


SPREADING = "mpserve_spreading"  # the zone with key and table of the hash that chooses the queue, where it is known


def attach(spec: DeviceSpec, queue: int, queues: int, file_prefix: str, block_bytes: int) -> Device:
    """See `mpserve.dataplane.device.open_device`."""
    check_driver_installed(spec.driver.pmd)
    check_queues(spec, queues)
    with contextlib.ExitStack() as undo, quiet_stderr():
        init_eal(
            spec,
            lambda lcores: device_arguments.attaching_arguments(spec, lcores=lcores, file_prefix=file_prefix),
            lcore=queue + 1,  # the primary's is 0
        )
        from pydpdk import eal

        undo.callback(eal.abandon)  # to close is the primary's
        eal.forgo_services()
        try:
            device = _find(spec, queue, block_bytes)
        except OSError as error:
            raise DeviceError(f"--device {spec}: can't attach to {file_prefix}: {one_line(error)}") from error
        device._on_close.append(undo.pop_all().close)
    return device


def _find(spec: DeviceSpec, queue: int, block_bytes: int) -> Device:
    from pydpdk import Mempool, Memzone, ports

    found = ports()
    if not found:
        raise DeviceError(f"--device {spec}: DPDK's driver does not let a second process attach to it: type --cores 0")
    device = describe(spec, found[0], Mempool.lookup(pool_name(queue)), [])
    device.queue = queue
    if spec.kind == "memif":
        device._look_after = lambda: _follow_link(found[0])
    if block_bytes:
        zone = Memzone.lookup(blocks_name(queue))
        if zone.size < block_bytes:
            raise DeviceError(f"--device {spec}: the shared port has {zone.size} bytes for blocks, not {block_bytes}")
        device.blocks = zone.buffer()
    with contextlib.suppress(OSError):
        spreading = bytes(Memzone.lookup(SPREADING).buffer())
        device.rss_key, device.rss_table = spreading[:KEY_BYTES], spreading[KEY_BYTES:][: flow_hash.ENTRIES]
        device.redirect = lambda entries: _redirect(found[0], entries)
    return device


def _follow_link(port: Any) -> None:
    """net_memif maps the peer's memory in this process, or lets it go, when it is asked about the link."""
    port.link()


def _redirect(port: Any, entries: Mapping[int, int]) -> None:
    """Give entries of the redirection table, and those that repeat them in a longer one, another queue."""
    size = port.info().reta_size
    period = min(size, flow_hash.ENTRIES)
    port.update_reta({at: queue for entry, queue in entries.items() for at in range(entry % period, size, period)})
