"""The grammar of `--device`, and what doesn't parse: each refusal says what to type. Text only, nothing is looked up."""

from __future__ import annotations

import re

from mpserve.dataplane.device import DRIVERS, GRAMMAR, DeviceSpec
from mpserve.dataplane.errors import DeviceError

_INTERFACE = re.compile(r"[^\s/:,=]{1,15}")
_BDF = re.compile(r"([0-9a-fA-F]{4}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]")


def parse(text: str) -> DeviceSpec:
    """See `mpserve.dataplane.device.parse_device`."""
    kind, *after = re.split("[:,]", text, maxsplit=1)  # a MAC behind the comma has colons too
    rest = after[0] if after else ""
    if kind not in DRIVERS:
        raise DeviceError(f"--device {text}: no device is called {kind!r}; there are {GRAMMAR}")
    if kind == "vdev":
        return _parse_vdev(text, rest)
    if kind == "pcap":
        return _parse_pcap(text, rest)
    name, options = _split(rest)
    spec = DeviceSpec(kind, name, options)
    _check_name(spec, text)
    _check_options(spec, text)
    return spec


def _split(rest: str) -> tuple[str, dict[str, str]]:
    words = rest.split(",") if rest else []
    name = words.pop(0) if words and "=" not in words[0] else ""
    pairs = (word.partition("=") for word in words)
    return name, {key: value for key, _, value in pairs}


def _parse_vdev(text: str, rest: str) -> DeviceSpec:
    if not re.match(r"[a-z_]+[a-z]\d*", rest):
        raise DeviceError(f"--device {text}: type vdev:DRIVER0,KEY=VALUE as DPDK takes it, such as vdev:net_null0")
    return DeviceSpec("vdev", rest)


def _parse_pcap(text: str, rest: str) -> DeviceSpec:
    words = rest.split(",")
    files = [word for word in words if not word.startswith("mac=")]
    if not files[:1] or not files[0] or len(files) > 2 or any("=" in file for file in files):
        raise DeviceError(f"--device {text}: type pcap:IN or pcap:IN,OUT with file names")
    options = {"out": files[1]} if len(files) == 2 else {}
    for word in words:
        if word not in files:
            options["mac"] = word.partition("=")[2]
            _check_value("mac", options["mac"], text)
    return DeviceSpec("pcap", files[0], options)


def _check_name(spec: DeviceSpec, text: str) -> None:
    wanted = spec.driver.argument
    if not spec.name and not wanted.startswith("[") and wanted:
        raise DeviceError(f"--device {text}: type {spec.kind}:{wanted}")
    if spec.name and not wanted:
        raise DeviceError(f"--device {text}: {spec.kind} takes no name")
    if spec.driver.interface and spec.name and not _INTERFACE.fullmatch(spec.name):
        raise DeviceError(f"--device {text}: {spec.name!r} is no interface name (at most 15 characters, no / : , =)")
    if spec.kind == "pci" and not _BDF.fullmatch(spec.name):
        raise DeviceError(f"--device {text}: type the address as lspci prints it, such as pci:0000:03:00.0")


def _check_options(spec: DeviceSpec, text: str) -> None:
    for key, value in spec.options.items():
        if key not in spec.driver.options:
            known = ", ".join(sorted(spec.driver.options)) or "none"
            raise DeviceError(f"--device {text}: {spec.kind} has no option {key!r}; it takes {known}")
        if not value:
            raise DeviceError(f"--device {text}: type {key}=VALUE")
        _check_value(key, value, text)


_VALUES = {
    "driver": "af_xdp|af_packet",
    "role": "server|client",
    "offloads": "on|off",
    "force_copy": "0|1",
    "mtu": "57[6-9]|5[89]\\d|[6-9]\\d\\d|1[0-4]\\d\\d|1500",
    "frames": r"[1-9]\d*",
    "busy_budget": r"\d+",
    "id": r"\d+",
    "rsize": r"\d+",
    "bsize": r"\d+",
    "mac": "[0-9a-fA-F][02468aceACE](:[0-9a-fA-F]{2}){5}",
}
_SHOWN = {"mac": "xx:xx:xx:xx:xx:xx, of one station", "mtu": "576 to 1500"}


def _check_value(key: str, value: str, text: str) -> None:
    pattern = _VALUES.get(key)
    if pattern and not re.fullmatch(pattern, value):
        shown = _SHOWN.get(key) or ("NUMBER" if "\\d" in pattern else pattern)
        raise DeviceError(f"--device {text}: type {key}={shown}")
