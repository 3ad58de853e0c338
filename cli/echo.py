"""`mpserve echo`: what comes in goes out (RFC 862)."""

from __future__ import annotations

import click

from mpserve.cli.server_options import Given, serve, server_options


@click.command()
@server_options
def echo(given: Given) -> None:
    """Send back what comes in, on port 7 of the server's own address.

    \b
    mpserve echo
    mpserve echo --listen :7000 --busy-poll
    mpserve echo --device memif:/run/mpserve.sock
    """
    from mpserve.apps.echo import Echo

    serve(Echo, given)
