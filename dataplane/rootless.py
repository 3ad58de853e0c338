"""Without root: the whole command again, in a user and network namespace of its own.

There it may make a tap or a veth (packet sockets on it, for BPF programs stay forbidden), and nobody outside reaches it
but through `--publish`: the relay's listening socket is made out here, before, and passed down as a descriptor.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from typing import NoReturn

from mpserve.dataplane.device import DeviceSpec
from mpserve.dataplane.device_checks import CAP_NET_ADMIN, CAP_NET_RAW, has_capability
from mpserve.dataplane.errors import SetupError

LISTENER_VARIABLE = "MPSERVE_PUBLISH_FD"  # set in the namespace: the number of the listening descriptor
UNSHARE = ["unshare", "--user", "--map-root-user", "--net", "--"]
WITH_LOOPBACK = ["sh", "-c", 'ip link set lo up; exec "$@"', "mpserve"]  # a namespace begins with it down
_SYSCTLS = {
    "kernel/unprivileged_userns_clone": ("0", "1"),
    "kernel/apparmor_restrict_unprivileged_userns": ("1", "0"),
    "user/max_user_namespaces": ("0", "10000"),
}


def is_needed(spec: DeviceSpec) -> bool:
    """Whether this process lacks what `spec` needs and a namespace of its own would give it."""
    if spec.driver.interface != "made" or inside():
        return False
    return not (has_capability(CAP_NET_ADMIN) and has_capability(CAP_NET_RAW))


def inside() -> bool:
    """Whether this process is the one that `enter` started."""
    return LISTENER_VARIABLE in os.environ


def inherited_listener() -> socket.socket | None:
    """The listening socket that was made outside, None if this isn't the inner process."""
    number = os.environ.get(LISTENER_VARIABLE)
    return None if number is None else socket.socket(fileno=int(number))


def enter(listener: socket.socket, command: list[str] | None = None) -> NoReturn:
    """Become `command` (by default this one again) in a namespace of its own. SetupError where that is forbidden."""
    check_allowed()
    os.set_inheritable(listener.fileno(), True)
    os.environ[LISTENER_VARIABLE] = str(listener.fileno())
    os.environ["RUNTIME_DIRECTORY"] = runtime_directory()
    words = [*UNSHARE, *WITH_LOOPBACK, *(command or sys.orig_argv)]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvp(words[0], words)


def check_allowed() -> None:
    """Try it: make a namespace and change an interface in it. Raises SetupError naming the sysctl that forbids it."""
    try:
        done = subprocess.run([*UNSHARE, "ip", "link", "set", "lo", "up"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise SetupError("without root mpserve needs the unshare command: apt-get install util-linux") from None
    if done.returncode == 0:
        return
    said = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[0]
    raise SetupError(f"without root mpserve needs a user namespace ({said}): {_remedy()}")


def _remedy() -> str:
    for path, (forbids, allows) in _SYSCTLS.items():
        if _read("/proc/sys/" + path) == forbids:
            return f"type sudo sysctl -w {path.replace('/', '.')}={allows}, or run it with sudo"
    return "run it with sudo (in a container: --cap-add NET_ADMIN --cap-add NET_RAW as root)"


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""


def runtime_directory() -> str:
    """A folder for DPDK's run-time files that this user may write; as root of the namespace it would take /var/run."""
    own = os.environ.get("XDG_RUNTIME_DIR", "")
    if own and os.access(own, os.W_OK | os.X_OK):
        return own
    folder = os.path.join(tempfile.gettempdir(), f"mpserve-{os.getuid()}")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    if os.stat(folder).st_uid != os.getuid():
        raise SetupError(f"{folder} belongs to somebody else: set XDG_RUNTIME_DIR to a folder of your own")
    return folder
