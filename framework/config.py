"""The settings of a server: from flags, then mpserve.toml, then defaults. Checked here as far as text allows."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import tomllib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mpserve.dataplane.errors import SetupError
from mpserve.framework.cores import accepting_cores, cores_text, parse_cores
from mpserve.framework.options import convert, suggestion
from mpserve.framework.routes import check_routes, parse_route

if TYPE_CHECKING:
    from mpserve.dataplane.impair_grammar import Impairment
    from mpserve.dataplane.limits import Limits as Limits

DEFAULT_FILE = "mpserve.toml"


def __getattr__(name: str) -> Any:
    if name == "Limits":  # behind numpy and numba, which `mpserve --help` need not wait for
        from mpserve.dataplane.limits import Limits

        return Limits
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass(frozen=True)
class Config:
    """Everything but the handler. `limits` holds the settings of Limits that were given, by name."""

    device: str = "veth"
    ip: str = "10.9.0.2/24"
    gateway: str | None = None
    routes: tuple[str, ...] = ()
    listen: tuple[str, ...] = (":7",)
    cores: str | None = None
    rebalance: bool = False
    busy_poll: bool = False
    idle_spin_us: int = 200
    hugepages: Literal["auto", "on", "off"] = "auto"
    take_over: bool = False
    impair: str | None = None
    record: str | None = None
    publish: str | None = None
    grace_seconds: float = 5.0
    slow_callback: float = 0.1
    verbose: bool = False
    limits: dict[str, Any] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return self.ip.partition("/")[0]

    @property
    def prefix_length(self) -> int:
        return int(self.ip.partition("/")[2] or 24)

    @property
    def listeners(self) -> list[tuple[str, int]]:
        """(address, port) of each --listen."""
        return [self._parse_listen(text) for text in self.listen]

    def _parse_listen(self, text: str) -> tuple[str, int]:
        where = text.partition("@")[0]
        return parse_kernel_listen(where) if self.over_kernel else parse_listen(where, self.address)

    def listeners_on(self, core: int, cores: Sequence[int]) -> list[tuple[str, int]]:
        """Those of the worker on a core: `:80@0-1` is for these of the server's cores, the listener's cpu_mask."""
        return [self._parse_listen(text) for text in self.listen if core in accepting_cores(text, cores)]

    @property
    def over_kernel(self) -> bool:
        """Kernel sockets take the stack's place."""
        return self.device == "kernel"

    @property
    def static_routes(self) -> list[tuple[str, int, str]]:
        """(network, prefix length, gateway) of each --route."""
        parsed = [parse_route(text) for text in self.routes]
        return [(str(to.network_address), to.prefixlen, str(via)) for to, via in parsed]

    @property
    def impairment(self) -> Impairment | None:
        """What `impair` says. Raises SetupError."""
        if self.impair is None:
            return None
        from mpserve.dataplane import impair_grammar

        return impair_grammar.parse(self.impair)

    def make_limits(self) -> Limits:
        """Raises SetupError for a limit out of its range."""
        from mpserve.dataplane.limits import Limits

        return Limits(**self.limits)


def make_config(given: Mapping[str, Any], file: Mapping[str, Any] | None = None) -> Config:
    """`given` (flags, keywords) over `file` (the [server] table) over defaults; None means not given.

    Raises SetupError for an unknown name, with the nearest, and for a value that can't be.
    """
    merged = {_name(key): value for key, value in (file or {}).items()}
    merged |= {key: value for key, value in given.items() if value is not None and value != ()}
    named = dict(merged.pop("limits", None) or {})
    kinds = _kinds()
    limits = _limits({key: value for key, value in merged.items() if key not in kinds} | named)
    settings = {key: convert_setting(key, value, kinds[key]) for key, value in merged.items() if key in kinds}
    config = Config(**settings, limits=limits)
    if config.over_kernel:
        from mpserve.framework import kernel_settings

        kernel_settings.check(settings, limits)
    _check(config)
    return config


def _name(key: str) -> str:
    return key.replace("-", "_")


def _kinds() -> dict[str, Any]:
    hints = typing.get_type_hints(Config, localns={"Limits": object})
    return {f.name: hints[f.name] for f in dataclasses.fields(Config) if f.name != "limits"}


def convert_setting(name: str, value: Any, kind: Any) -> Any:
    if name == "listen":
        texts = [value] if isinstance(value, (str, int)) else list(value)
        return tuple(f":{text}" if isinstance(text, int) else str(text) for text in texts)
    if name == "routes":
        return (value,) if isinstance(value, str) else tuple(str(text) for text in value)
    if name == "cores":
        return cores_text(value)
    return convert(name.replace("_", "-"), value, kind)


def _limits(given: Mapping[str, Any]) -> dict[str, Any]:
    if not given:
        return {}
    from mpserve.dataplane.limits import Limits

    kinds = typing.get_type_hints(Limits)
    for name in given:
        if name not in kinds:
            known = [*_kinds(), *kinds]
            raise SetupError(
                f"no setting is called {name!r}{suggestion(name, known)}; there are "
                f"{', '.join(_kinds())} and the limits {', '.join(kinds)}"
            )
    limits = {name: convert(name, value, kinds[name]) for name, value in given.items()}
    Limits(**limits)
    return limits


def read_file(path: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The [server] and [handler] tables of `path`, or of ./mpserve.toml if there is one. Raises SetupError."""
    if path is None:
        if not os.path.isfile(DEFAULT_FILE):
            return {}, {}
        path = DEFAULT_FILE
    try:
        tables = tomllib.loads(Path(path).read_text())
    except OSError as error:
        raise SetupError(f"--config {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SetupError(f"--config {path} is no TOML: {error}") from None
    known = ("server", "handler")
    for name, table in tables.items():
        if name not in known or not isinstance(table, dict):
            raise SetupError(
                f"--config {path} has {name!r}{suggestion(name, known)}; its tables are [server], [handler]"
            )
    return tables.get("server", {}), tables.get("handler", {})


def parse_listen(text: str, address: str) -> tuple[str, int]:
    """`[HOST]:PORT` with HOST left out, or the server's own address. Raises SetupError."""
    host, _, port = text.rpartition(":")
    if not port.isdigit() or not 1 <= int(port) <= 65535:
        raise SetupError(f"--listen {text}: type --listen :PORT with a port from 1 to 65535")
    if host not in ("", "0.0.0.0", address):
        raise SetupError(
            f"--listen {text}: the server's only address is {address}: type --listen :{port}, or --ip {host}/24"
        )
    return address, int(port)


def parse_kernel_listen(text: str) -> tuple[str, int]:
    """`[ADDRESS]:PORT`, an IPv4 address of the kernel's, "" for all of them. Raises SetupError."""
    host, _, port = text.rpartition(":")
    if not port.isdigit() or not 1 <= int(port) <= 65535:
        raise SetupError(f"--listen {text}: type --listen :PORT with a port from 1 to 65535")
    try:
        address = str(ipaddress.IPv4Address(host or "0.0.0.0"))
    except ValueError:
        raise SetupError(
            f"--listen {text}: {host} is no IPv4 address: type --listen :{port}, or --listen 127.0.0.1:{port}"
        ) from None
    return "" if address == "0.0.0.0" else address, int(port)


def _check(config: Config) -> None:
    interface = _check_ip(config.ip)
    _check_gateway(config.gateway, interface)
    check_routes(config.routes, interface)
    listeners = config.listeners
    if not listeners:
        raise SetupError("nothing to listen on: type --listen :PORT")
    if len(set(listeners)) < len(listeners):
        raise SetupError(f"--listen :{max(listeners, key=listeners.count)[1]} is given twice: leave one out")
    if not 0 <= config.idle_spin_us <= 10_000_000:
        raise SetupError("idle-spin-us is out of range: give 0 to 10000000 microseconds")
    if not 0 <= config.grace_seconds <= 3600:
        raise SetupError("grace-seconds is out of range: give 0 to 3600")
    if not 0 <= config.slow_callback <= 3600:
        raise SetupError("slow-callback is out of range: give 0 to 3600 seconds, 0 for no log of slow callbacks")
    config.impairment  # noqa: B018  # parsed by asking
    if config.cores is not None:
        parse_cores(config.cores)
    _check_record(config.record)


def _check_ip(text: str) -> ipaddress.IPv4Interface:
    try:
        interface = ipaddress.IPv4Interface(text)
    except ValueError:
        raise SetupError(
            f"--ip {text}: type an IPv4 address with its prefix length, such as --ip 10.9.0.2/24"
        ) from None
    if "/" not in text:
        raise SetupError(f"--ip {text} lacks the prefix length: type --ip {text}/24")
    network = interface.network
    if network.prefixlen < 31 and interface.ip in (network.network_address, network.broadcast_address):
        raise SetupError(
            f"--ip {text} is no host of its network: type such as --ip {next(network.hosts())}/{network.prefixlen}"
        )
    if interface.ip.is_loopback or interface.ip.is_multicast or interface.ip.is_unspecified:
        raise SetupError(f"--ip {text} can't be a server's address: type one such as --ip 10.9.0.2/24")
    return interface


def _check_gateway(text: str | None, interface: ipaddress.IPv4Interface) -> None:
    if text is None:
        return
    try:
        gateway = ipaddress.IPv4Address(text)
    except ValueError:
        raise SetupError(f"--gateway {text} is no IPv4 address: type one in {interface.network}") from None
    if gateway not in interface.network or gateway == interface.ip:
        raise SetupError(f"--gateway {text} is not another host in {interface.network}: change it, or --ip")


def _check_record(path: str | None) -> None:
    if path is None:
        return
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise SetupError(f"--record {path}: there is no folder {folder}: make it with mkdir -p {folder}")
    if os.path.isdir(path) or not os.access(path if os.path.exists(path) else folder, os.W_OK):
        raise SetupError(f"--record {path} can't be written: choose another file")
