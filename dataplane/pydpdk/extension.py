"""Loads the compiled extension, or says what to install. Every other module takes `ffi` and `lib` from here."""

from typing import Any

from pydpdk.errors import NotBuiltError

INSTALL = "apt install libdpdk-dev librte-meta-net, then reinstall with pip"

try:
    import pydpdk._dpdk as _dpdk
except ModuleNotFoundError as error:
    if error.name != "pydpdk._dpdk":
        raise
    raise NotBuiltError(f"pydpdk was installed without DPDK: {INSTALL}") from None
except ImportError as error:
    raise NotBuiltError(
        f"pydpdk's extension doesn't load ({error}), probably built for another DPDK: {INSTALL}"
    ) from error

ffi: Any = _dpdk.ffi
lib: Any = _dpdk.lib


def text(value: Any) -> str:
    """A NUL-terminated C string, "" for NULL."""
    return ffi.string(value).decode(errors="replace") if value else ""
