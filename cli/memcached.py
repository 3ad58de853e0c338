"""`mpserve memcached`: memcached's text protocol."""

from __future__ import annotations

import click

from mpserve.cli.server_options import Given, serve, server_options


@click.command()
@click.option("-m", "--memory", type=int, metavar="MB", help="Memory for items, in MiB.  [64]")
@server_options
def memcached(given: Given, memory: int | None) -> None:
    """Serve memcached's text protocol on port 11211 of the server's own address.

    \b
    mpserve memcached -m 1024
    mpserve memcached --device memif:/run/mpserve.sock
    """
    from mpserve.apps.memcached import Memcached

    serve(Memcached, given, {"memory_mib": memory})
