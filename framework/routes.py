"""Static routes as text: `NETWORK/LENGTH,GATEWAY` (or `=` between them), checked as far as text allows."""

from __future__ import annotations

import ipaddress

from mpserve.dataplane.errors import SetupError

MOST_ROUTES = 16


def parse_route(text: str) -> tuple[ipaddress.IPv4Network, ipaddress.IPv4Address]:
    """The network and the gateway to it. Raises SetupError."""
    network, _, gateway = text.replace("=", ",", 1).partition(",")
    try:
        to = ipaddress.IPv4Network(network.strip(), strict=False)
        via = ipaddress.IPv4Address(gateway.strip())
    except ValueError:
        raise SetupError(
            f"--route {text}: type a network and the gateway to it, such as --route 10.8.0.0/16,10.9.0.1"
        ) from None
    if "/" not in network:
        raise SetupError(f"--route {text} lacks the prefix length: type --route {network}/32,{via} for one host")
    if str(to.network_address) != network.partition("/")[0].strip():
        raise SetupError(f"--route {text}: {network} has bits set behind its prefix: type --route {to},{via}")
    return to, via


def check_routes(texts: tuple[str, ...], interface: ipaddress.IPv4Interface) -> None:
    """Raises SetupError for a route that can't be, twice the same network, or too many."""
    if len(texts) > MOST_ROUTES:
        raise SetupError(f"--route is given {len(texts)} times and there is room for {MOST_ROUTES}: leave some out")
    seen = {interface.network}
    for text in texts:
        network, gateway = parse_route(text)
        if gateway not in interface.network or gateway == interface.ip:
            raise SetupError(
                f"--route {text}: {gateway} is not another host in {interface.network}: change it, or --ip"
            )
        if network.prefixlen == 0:
            raise SetupError(f"--route {text} is the default route: type --gateway {gateway}")
        if gateway in network:
            raise SetupError(f"--route {text}: its gateway lies in {network} itself: change one of them")
        if network in seen:
            raise SetupError(f"--route {text}: there is a way to {network} already: leave one out")
        seen.add(network)
