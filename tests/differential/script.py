"""The register of scripts: functions of a peer, found by their names."""

from collections.abc import Callable

from raw_peer import RawPeer

Script = Callable[[RawPeer], None]
SCRIPTS: dict[str, Script] = {}


def script(function: Script) -> Script:
    """Enter a script under its function's name; its docstring says what it shows."""
    assert function.__name__ not in SCRIPTS and function.__doc__
    SCRIPTS[function.__name__] = function
    return function
