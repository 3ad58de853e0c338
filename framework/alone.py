"""A worker without a handler, in this process and without a supervisor, for a `Channel` that stands alone."""

from __future__ import annotations

import atexit
import contextlib
import os
from typing import Any

from mpserve.dataplane.errors import SetupError
from mpserve.framework.cores import allowed_cores, single_core
from mpserve.framework.handler import Handler
from mpserve.framework.worker import Worker


def open_worker(
    undo: contextlib.ExitStack, device: Any, ip: str | None, settings: dict[str, Any], standby: bool
) -> Worker:
    """Open a device by its text, as `--device` takes it, or serve an object that is one (a virtual wire).

    With `standby`, a second thread turns the stack while Python is away. What was made is unmade by `undo`. Raises SetupError
    for what can't be had, with nothing left behind.
    """
    from mpserve.framework.config import Config, make_config

    useless = {"listen", "publish", "grace_seconds", "verbose"} & settings.keys()
    if useless:
        raise SetupError(f"a channel has no setting {useless.pop()}: leave it out")
    given = {"ip": ip} if ip is None or "/" in ip else {"ip": f"{ip}/24"}
    if isinstance(device, str):
        given["device"] = device
    config: Config = make_config(settings | given)
    with contextlib.ExitStack() as stack:
        opened = _open(stack, config) if device is None or isinstance(device, str) else device
        core = single_core(config.cores, "a channel that stands alone")
        worker = Worker(
            Handler(),
            opened,
            ip=config.address,
            prefix_length=config.prefix_length,
            listen=[],
            gateway=config.gateway,
            routes=config.static_routes,
            core=min(allowed_cores()) if core is None else core,
            busy_poll=config.busy_poll,
            idle_spin_us=config.idle_spin_us,
            limits=config.make_limits(),
            record=config.record,
            impairment=config.impairment,
            slow_callback=0,  # there are no callbacks
        )
        stack.callback(worker.close)
        stack.callback(worker.machine.close_recorder)
        worker.channel.announce()
        if standby:
            _start_standby(worker)
            stack.callback(_stop_standby, worker)
        stack.callback(worker.drain)
        undo.push(stack.pop_all())
    return worker


def _start_standby(worker: Worker) -> None:
    worker.standby.start()
    atexit.register(worker.standby.stop)  # a channel may be forgotten, and then memory goes before the thread
    worker.channel.leave()


def _stop_standby(worker: Worker) -> None:
    worker.standby.stop()
    atexit.unregister(worker.standby.stop)


def _open(stack: contextlib.ExitStack, config: Any) -> Any:
    """Make the link and open its port."""
    from mpserve.dataplane.device import open_device, parse_device
    from mpserve.dataplane.layout import BLOCK_BYTES
    from mpserve.dataplane.links import make_link
    from mpserve.framework import leftovers, preflight

    spec = parse_device(config.device)
    if not spec.is_port:
        raise SetupError("a channel needs the stack, which --device kernel has not: take another device")
    preflight.check(config, spec)
    leftovers.remove_stale()
    stack.callback(leftovers.remove_own)
    link = make_link(
        spec,
        ip=config.address,
        prefix_length=config.prefix_length,
        take_over=config.take_over,
        memory_mb=preflight.memory_mb(config, spec),
    )
    stack.enter_context(link)
    device = open_device(
        link.spec,
        file_prefix=leftovers.own_name(),
        hugepages=config.hugepages,
        block_bytes=config.make_limits().blocks * BLOCK_BYTES,
    )
    stack.callback(device.close)
    core = single_core(config.cores, "a channel that stands alone")
    if core is not None:
        os.sched_setaffinity(0, {core})
    return device
