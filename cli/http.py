"""`mpserve http`: static files, or a hello page."""

from __future__ import annotations

import click

from mpserve.cli.server_options import Given, serve, server_options


@click.command()
@click.option("--root", metavar="DIR", help="The folder whose files are served; a hello page without it.")
@server_options
def http(given: Given, root: str | None) -> None:
    """Serve HTTP/1.1 on port 80 of the server's own address, and print the URL.

    \b
    mpserve http                                           a hello page at http://10.9.0.2/
    mpserve http --root ./public --listen :8000
    mpserve http --device af_packet:eth1 --ip 192.168.7.20/24 --root /srv/www
    mpserve http --publish 127.0.0.1:8080                  without root: relayed, for development
    """
    from mpserve.apps.http import Http

    serve(Http, given, {"root": root})
