"""mpserve: serve TCP from Python on a DPDK poll loop. The public names; importing them needs neither DPDK nor root.

Each is loaded when it is first used, so that `import mpserve` is light.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING
from typing import Any as _Any

if TYPE_CHECKING:
    from mpserve.dataplane.completions import Reason
    from mpserve.dataplane.errors import DeviceError, SetupError
    from mpserve.dataplane.jit import compiled
    from mpserve.dataplane.limits import Limits
    from mpserve.framework.channel import Channel
    from mpserve.framework.codec import NOT_A_NUMBER, Codec, Fixed, LengthPrefixed, Lines
    from mpserve.framework.compiled_handler import CompiledHandler
    from mpserve.framework.completions import Completion, Kind
    from mpserve.framework.endpoints import Connection, Listener
    from mpserve.framework.errors import Closed
    from mpserve.framework.handler import Handler
    from mpserve.framework.lwsocket import LwSocket
    from mpserve.framework.peers import ALL
    from mpserve.framework.server import Server, run
    from mpserve.framework.worker import Worker

__version__ = "0.1.0"
__all__ = [
    "ALL",
    "NOT_A_NUMBER",
    "Channel",
    "Closed",
    "Codec",
    "CompiledHandler",
    "Completion",
    "Connection",
    "DeviceError",
    "Fixed",
    "Handler",
    "Kind",
    "LengthPrefixed",
    "Limits",
    "Lines",
    "Listener",
    "LwSocket",
    "Reason",
    "Server",
    "SetupError",
    "Worker",
    "compiled",
    "run",
]

_HOMES = {
    "ALL": "framework.peers",
    "NOT_A_NUMBER": "framework.codec",
    "Channel": "framework.channel",
    "Closed": "framework.errors",
    "Codec": "framework.codec",
    "CompiledHandler": "framework.compiled_handler",
    "Completion": "framework.completions",
    "Connection": "framework.endpoints",
    "DeviceError": "dataplane.errors",
    "Fixed": "framework.codec",
    "Handler": "framework.handler",
    "Kind": "framework.completions",
    "LengthPrefixed": "framework.codec",
    "Limits": "dataplane.limits",
    "Lines": "framework.codec",
    "Listener": "framework.endpoints",
    "LwSocket": "framework.lwsocket",
    "Reason": "dataplane.completions",
    "Server": "framework.server",
    "SetupError": "dataplane.errors",
    "Worker": "framework.worker",
    "compiled": "dataplane.jit",
    "run": "framework.server",
}


def __getattr__(name: str) -> _Any:
    if name == "asyncio":  # a module of its own, with names of its own
        return _import_module("mpserve.asyncio")
    if name not in _HOMES:
        raise AttributeError(f"module 'mpserve' has no attribute {name!r}")
    value = getattr(_import_module(f"mpserve.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
