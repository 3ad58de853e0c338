"""Making loops: `new_event_loop`, `loop_factory` for runners and uvicorn, and the policy behind `mpserve python`."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

from mpserve.framework import log
from mpserve.framework.aio.loop import Loop
from mpserve.framework.aio.station import give_back, make_loop_config, take_station
from mpserve.framework.aio.worker import Connections, LoopWorker


def new_event_loop(*, config: str | None = None, **settings: Any) -> Loop:
    """An event loop on a device of its own: `new_event_loop(device="veth", ip="10.9.0.2/24")`.

    `settings` are those of the command line with underscores (device, ip, gateway, routes, busy_poll, max_connections,
    ...); what isn't given comes from MPSERVE_DEVICE, MPSERVE_IP and so on, then from the [server] table of `config` (a
    TOML file; ./mpserve.toml if there is one). Raises SetupError for what can't be honoured, with nothing left behind.
    """
    made = make_loop_config(settings, config)
    station = take_station(made)
    try:
        worker = LoopWorker(
            Connections(),
            station.device,
            ip=made.address,
            prefix_length=made.prefix_length,
            listen=[],
            gateway=made.gateway,
            routes=made.static_routes,
            busy_poll=made.busy_poll,
            idle_spin_us=made.idle_spin_us,
            limits=made.make_limits(),
            log=log.logger("mpserve.asyncio"),
            record=made.record,
            counters=station.counters,
            impairment=made.impairment,
            slow_callback=0,  # asyncio has a debug mode for that
        )
        worker.linger_seconds = made.grace_seconds
        worker.channel.announce()
        loop = Loop(worker, functools.partial(give_back, station))
    except BaseException:
        give_back(station)
        raise
    worker.log.debug("an event loop on %s", station.description)
    return loop


def loop_factory(*_: Any, **__: Any) -> Loop:
    """`new_event_loop()` for `asyncio.Runner(loop_factory=...)` and `uvicorn --loop mpserve.asyncio:loop_factory`."""
    return new_event_loop()


class EventLoopPolicy(asyncio.DefaultEventLoopPolicy):
    """Makes our loops for whoever asks asyncio for a new one; the settings are those of `new_event_loop`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self._settings = settings

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return new_event_loop(**self._settings)
