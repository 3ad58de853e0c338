"""mpserve: serve TCP from Python on a DPDK poll loop. The public names; importing them needs neither DPDK nor root.

Each is loaded when it is first used, so that `import mpserve` is light.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING
from typing import Any as _Any

if TYPE_CHECKING:
    from mpserve.dataplane.completions import Reason
    from mpserve.dataplane.errors import DeviceError, SetupError
    from mpserve.dataplane.limits import Limits
    from mpserve.framework.errors import Closed
    from mpserve.framework.handler import Handler
    from mpserve.framework.lwsocket import LwSocket
    from mpserve.framework.server import Server, run
    from mpserve.framework.worker import Worker

__version__ = "0.1.0"
__all__ = [
    "Closed",
    "DeviceError",
    "Handler",
    "Limits",
    "LwSocket",
    "Reason",
    "Server",
    "SetupError",
    "Worker",
    "run",
]

_HOMES = {
    "Closed": "framework.errors",
    "DeviceError": "dataplane.errors",
    "Handler": "framework.handler",
    "Limits": "dataplane.limits",
    "LwSocket": "framework.lwsocket",
    "Reason": "dataplane.completions",
    "Server": "framework.server",
    "SetupError": "dataplane.errors",
    "Worker": "framework.worker",
    "run": "framework.server",
}


def __getattr__(name: str) -> _Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mpserve' has no attribute {name!r}")
    value = getattr(_import_module(f"mpserve.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
