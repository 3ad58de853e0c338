"""`mpserve run`: serve a handler of the user's own."""

from __future__ import annotations

import click

from mpserve.cli.server_options import Given, serve, server_options


@click.command()
@click.argument("target")
@server_options
def run(given: Given, target: str) -> None:
    """Serve a Handler class: FILE.py:Name, module:Name, or the name of an installed application.

    The port is 7 unless the handler or --listen says otherwise. The server's address is one of its own, beside those
    of the kernel; on the default device this machine reaches it at once.

    \b
    mpserve run echo.py:Echo
    mpserve run echo.py                                    if it has one handler only
    mpserve run chat.py:Chat --listen :9000 --set room=lobby
    mpserve run mypackage.server:Api --device af_xdp:eth1 --ip 192.168.7.20/24 --gateway 192.168.7.1

    \b
    A handler is a class such as this one; annotated attributes are its options:
        class Echo(mpserve.Handler):
            greeting: str = "hello"
            def on_accept(self, sock): sock.write(self.greeting.encode())
            def on_data(self, sock, data): sock.write(data)
    """
    serve(target, given)
