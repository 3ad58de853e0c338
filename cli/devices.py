"""`mpserve devices`: the kinds of devices, what each can and can't, and whether it can be used here and now."""

from __future__ import annotations

import glob

import click

from mpserve.dataplane import device_checks
from mpserve.dataplane.bpf_probe import why_no_af_xdp
from mpserve.dataplane.device import DRIVERS, DeviceSpec, Driver
from mpserve.dataplane.errors import SetupError
from mpserve.framework.preflight import check_binding


@click.command()
def devices() -> None:
    """List what --device can be: KIND[:NAME][,OPTION=VALUE...], what each can and can't, and what works here.

    \b
    mpserve http --device tap
    mpserve http --device veth,driver=af_packet
    mpserve http --device af_xdp:eth1 --ip 192.168.7.20/24
    """
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table("device", "here, now", "idle", "queues", "local peer may", "options", "what it is", box=SIMPLE)
    for kind, driver in DRIVERS.items():
        table.add_row(*map(_literal, row(kind, driver)))
    console = Console()
    Console(width=console.width if console.is_terminal else 200).print(table)
    click.echo("sleeps: waits on a descriptor; naps: looks every millisecond. One worker serves one queue.")


def row(kind: str, driver: Driver) -> tuple[str, ...]:
    """One line of the table: what it is called, whether it works, what it can and can't."""
    argument = driver.argument.replace("[", "[:", 1) if driver.argument.startswith("[") else f":{driver.argument}"
    reason = why_not_here(kind)
    peer = ["skip checksums"] * driver.unfinished_checksums + ["exceed the MTU"] * driver.frames_above_mtu
    return (
        kind + (argument if driver.argument else ""),
        f"no: {reason}" if reason else "yes",
        "sleeps" if driver.sleeps else "naps",
        str(driver.max_queues),
        ", ".join(peer) or "-",
        " ".join(sorted(driver.options)) or "-",
        driver.about,
    )


def _literal(text: str) -> str:
    """Brackets in it are no markup."""
    return text.replace("[", r"\[")


def why_not_here(kind: str) -> str:
    """Why a device of this kind can't be opened on this machine by this user; "" if it can."""
    spec = DeviceSpec(kind, "net_null0" if kind == "vdev" else "")
    if not spec.is_port:
        return ""
    try:
        check_binding()
        device_checks.check_privilege(spec)
        device_checks.check_installed(spec)
        if kind == "tap":
            device_checks.check_tun(spec)
        if kind == "veth":
            device_checks.check_installed(DeviceSpec("af_packet" if why_no_af_xdp() else "af_xdp"))
    except SetupError as error:
        return str(error).partition(": ")[2] if str(error).startswith("--device") else str(error)
    if kind == "af_xdp":
        return why_no_af_xdp()
    if kind == "pci" and not glob.glob("/sys/bus/pci/drivers/vfio-pci/*:*"):
        return "no NIC is bound to vfio-pci: type dpdk-devbind.py --bind=vfio-pci BDF"
    return ""
