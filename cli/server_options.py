"""The options that every serving command takes, in one place, and the call that serves with them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import click

from mpserve.framework.handler import Handler
from mpserve.framework.options import parse_assignments

# A None default means "not given": mpserve.toml may say otherwise, and Config has the defaults.
_OPTIONS = [
    click.option("--device", metavar="DEVICE", help="Where frames come from: `mpserve devices` lists them.  [veth]"),
    click.option("--ip", metavar="ADDRESS/PREFIX", help="The server's own address.  [10.9.0.2/24]"),
    click.option("--gateway", metavar="ADDRESS", help="The router to hosts outside the server's subnet."),
    click.option(
        "--route", "routes", metavar="NETWORK,GATEWAY", multiple=True, help="Another router's part; may be repeated."
    ),
    click.option(
        "--listen",
        metavar="[HOST]:PORT[@CORES]",
        multiple=True,
        help="Where to listen, and on which of the --cores, all by default; may be repeated.",
    ),
    click.option(
        "--set", "set_", metavar="NAME=VALUE", multiple=True, help="An option of the handler; may be repeated."
    ),
    click.option("--busy-poll/--no-busy-poll", default=None, help="Never sleep: lowest latency, a whole core."),
    click.option("--idle-spin-us", type=int, metavar="N", help="Microseconds without a frame before sleeping.  [200]"),
    click.option("--cores", metavar="LIST", help="A worker on each of these cores, such as 0,2-5.  [those allowed]"),
    click.option(
        "--rebalance/--no-rebalance", default=None, help="Busy cores hand new connections to idle ones.  [off]"
    ),
    click.option("--hugepages", type=click.Choice(["auto", "on", "off"]), help="Whether DPDK takes hugepages.  [auto]"),
    click.option("--max-connections", type=int, metavar="N", help="How many at a time.  [65536]"),
    click.option("--limit", metavar="NAME=VALUE", multiple=True, help="Another limit, such as sndbuf_bytes=65536."),
    click.option("--record", metavar="FILE", help="Write every frame received and sent to FILE, as pcap."),
    click.option("--impair", metavar="FAULTS", help="Make the wire faulty, such as loss=1%,delay=10ms; for tests."),
    click.option("--publish", metavar="HOST:PORT", help="Relay a kernel socket to the server; for development."),
    click.option("--take-over", is_flag=True, default=None, help="Take an interface that this machine itself uses."),
    click.option("--grace-seconds", type=float, metavar="N", help="How long connections may drain at the end.  [5]"),
    click.option(
        "--slow-callback", type=float, metavar="N", help="Log callbacks that run so long (s); 0: none.  [0.1]"
    ),
    click.option("--config", metavar="FILE", help="Settings as TOML.  [mpserve.toml, if there is one]"),
    click.option("--verbose", is_flag=True, default=None, help="Log more."),
]


@dataclass(frozen=True)
class Given:
    """What was given on the command line: the server's settings, the handler's options, the TOML file."""

    settings: dict[str, Any]
    options: dict[str, Any]
    config: str | None


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a click command the options above; it is called with a `Given` first, then its own parameters."""
    return _with_options(command, _OPTIONS)


_NOT_FOR_LOOPS = ("--listen", "--set", "--publish", "--rebalance")


def loop_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Those of `server_options` that an event loop has: a program says itself where it listens, and has no handler."""
    return _with_options(command, [option for option in _OPTIONS if not _names_of(option) & {*_NOT_FOR_LOOPS}])


def _names_of(option: Callable[..., Any]) -> set[str]:
    """The flags that an option adds."""
    added = option(click.Command("none"))
    return {flag for parameter in added.params for flag in parameter.opts}


def _with_options(command: Callable[..., Any], options: list[Callable[..., Any]]) -> Callable[..., Any]:

    @functools.wraps(command)
    def wrapped(*args: Any, **flags: Any) -> Any:
        own = {name: flags.pop(name) for name in list(flags) if name not in _NAMES}
        return command(_given(flags), *args, **own)

    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


_NAMES = (
    "device ip gateway routes listen set_ busy_poll idle_spin_us cores rebalance hugepages max_connections limit record "
    "impair publish take_over grace_seconds slow_callback config verbose"
).split()


def _given(flags: dict[str, Any]) -> Given:
    options = parse_assignments(flags.pop("set_", ()))
    config = flags.pop("config")
    limits = parse_assignments(flags.pop("limit"), "--limit")
    return Given({**flags, "limits": limits}, options, config)


def serve(handler: type[Handler] | str, given: Given, options: Mapping[str, Any] | None = None) -> None:
    """Serve until a signal. `options` are the handler's from flags of the command's own; None is not given."""
    from mpserve.framework.server import Server

    own = {name: value for name, value in (options or {}).items() if value is not None}
    context = click.get_current_context()
    status = Server(handler, options=given.options | own, config=given.config, **given.settings).run()
    context.exit(status)
