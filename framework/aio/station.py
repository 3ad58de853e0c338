"""`Station`: the device that this process's event loops run on, opened once, closed when the process ends.

DPDK can be started once a process, so a process has one device; one loop at a time uses it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections.abc import Mapping
from typing import Any

from mpserve.dataplane.device import parse_device
from mpserve.dataplane.errors import SetupError
from mpserve.framework import leftovers, log, preflight
from mpserve.framework.config import Config, make_config, read_file
from mpserve.framework.cores import single_core

ENVIRONMENT = "MPSERVE_"  # MPSERVE_DEVICE, MPSERVE_IP, MPSERVE_BUSY_POLL ...
FROM_ENVIRONMENT = "device ip gateway busy_poll idle_spin_us cores hugepages impair record take_over verbose".split()


def settings_of_environment() -> dict[str, Any]:
    """What MPSERVE_NAME variables say, by name."""
    found = {name: os.environ.get(ENVIRONMENT + name.upper()) for name in FROM_ENVIRONMENT}
    return {name: text for name, text in found.items() if text}


def make_loop_config(settings: Mapping[str, Any], file: str | None = None) -> Config:
    """`settings` over the environment, over the [server] table of `file` or ./mpserve.toml, over defaults."""
    in_file, _ = read_file(file or os.environ.get("MPSERVE_CONFIG"))
    # Where to listen is the program's own business; a published address has no single port to go to.
    in_file = {key: value for key, value in in_file.items() if key not in ("listen", "publish")}
    given = {name: value for name, value in settings.items() if value is not None and value != ()}
    for name in ("listen", "publish"):
        if name in given:
            raise SetupError(f"{name} is not for an event loop: the program itself says where it listens")
    return make_config(settings_of_environment() | given, in_file)


class Station:
    """A device, its link and what else lives outside the process. Made by `open_station`."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.busy = False  # a loop uses it
        self.description = ""
        self._undo = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            self._open(undo)
            self._undo = undo.pop_all()
        atexit.register(self.close)

    def _open(self, undo: contextlib.ExitStack) -> None:
        from mpserve.dataplane.device import open_device
        from mpserve.dataplane.layout import BLOCK_BYTES
        from mpserve.dataplane.links import make_link

        config = self.config
        spec = parse_device(config.device)
        if not spec.is_port:
            raise SetupError(
                "an event loop of mpserve needs the stack, which --device kernel has not: take asyncio's own loop"
            )
        preflight.check(config, spec)
        core = single_core(config.cores, "an event loop")
        if core is not None:
            os.sched_setaffinity(0, {core})
        leftovers.remove_stale()
        compile_stack()
        undo.callback(leftovers.remove_own)
        link = undo.enter_context(
            make_link(
                spec,
                ip=config.address,
                prefix_length=config.prefix_length,
                take_over=config.take_over,
                memory_mb=preflight.memory_mb(config, spec),
            )
        )
        self.counters = leftovers.make_counters()
        self.device = open_device(
            link.spec,
            file_prefix=leftovers.own_name(),
            hugepages=config.hugepages,
            block_bytes=config.make_limits().blocks * BLOCK_BYTES,
        )
        undo.callback(self.device.close)
        kernel = f"; the kernel's end is {link.interface} at {link.address}" if link.address else ""
        self.description = f"{link.description or self.device.description}, {config.ip}{kernel}"

    def close(self) -> None:
        """Close the device, remove the link. Twice is once."""
        atexit.unregister(self.close)
        self._undo.close()


def compile_stack() -> None:
    """Compile what isn't compiled yet, with a bar on stderr."""
    from mpserve.dataplane import jit
    from mpserve.framework.compiling import Progress

    missing = [unit.name for unit in jit.units() if not unit.is_cached()]
    if missing:
        with Progress(len(missing)) as progress:
            jit.warm(lambda name, done, total: progress.show(name, done))


_lock = threading.Lock()
_station: Station | None = None


def take_station(config: Config) -> Station:
    """The process's station, for one loop; `give_back` ends that. Raises SetupError while another loop has it."""
    global _station
    with _lock:
        if _station is None:
            log.logger("mpserve.asyncio").setLevel("INFO")
            _station = Station(config)
        elif _station.busy:
            raise SetupError(
                "another event loop of this process has the device: one loop at a time; "
                "make others with asyncio.SelectorEventLoop(), or run them in processes of their own"
            )
        elif _station.config != config:
            raise SetupError(
                "this process has opened a device with other settings: one device a process; "
                "start another process for the other"
            )
        _station.busy = True
        return _station


def give_back(station: Station) -> None:
    with _lock:
        station.busy = False
