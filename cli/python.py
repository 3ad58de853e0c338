"""`mpserve python`: an asyncio program as it is, with event loops of ours."""

from __future__ import annotations

import os
import runpy
import signal
import sys
from typing import NoReturn

import click

from mpserve.cli.server_options import Given, loop_options
from mpserve.dataplane.device import parse_device
from mpserve.dataplane.errors import SetupError
from mpserve.framework import preflight

_SETTINGS = {"allow_interspersed_args": False, "ignore_unknown_options": False}


@click.command(context_settings=_SETTINGS)
@click.option("-m", "is_module", is_flag=True, help="APP is a module's name, as with python -m.")
@click.argument("app")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@loop_options
def python(given: Given, is_module: bool, app: str, arguments: tuple[str, ...]) -> None:
    """Run an asyncio program, unmodified: servers on the stack's own address (also as 0.0.0.0), and connections to hosts
    that it has a route for, bypass the kernel.

    \b
    mpserve python app.py --port 8000
    mpserve python --ip 10.9.0.2/24 -m aiohttp.web -H 10.9.0.2 -P 8080 app:make
    mpserve python --device af_packet:eth1 --ip 192.168.7.20/24 app.py

    A program that picks a loop by itself has to be told: uvicorn --loop mpserve.asyncio:loop_factory.
    """
    import asyncio

    from mpserve.framework.aio.policy import EventLoopPolicy
    from mpserve.framework.aio.station import make_loop_config

    settings = {name: value for name, value in given.settings.items() if value not in (None, (), {})}
    config = make_loop_config(settings, given.config)
    preflight.check(config, parse_device(config.device))  # refused before the program starts
    asyncio.set_event_loop_policy(EventLoopPolicy(config=given.config, **settings))
    signal.signal(signal.SIGTERM, _leave)
    _run(app, is_module, arguments)


def _leave(number: int, frame: object) -> NoReturn:
    """By default SIGTERM would leave the interface behind. A handler of the program's own replaces this."""
    sys.exit(128 + number)


def _run(app: str, is_module: bool, arguments: tuple[str, ...]) -> None:
    """As `python APP` and `python -m APP` do."""
    sys.argv = [app, *arguments]
    if is_module:
        sys.path.insert(0, os.getcwd())
        runpy.run_module(app, run_name="__main__", alter_sys=True)
        return
    if not os.path.exists(app):
        raise SetupError(f"there is no file {app}: type mpserve python FILE.py, or -m MODULE")
    sys.path.insert(0, os.path.dirname(os.path.realpath(app)))
    runpy.run_path(app, run_name="__main__")
