"""The files that DPDK processes of one file prefix share: their folder, and what a dead primary leaves of it behind."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil

from pydpdk.extension import ffi, lib, text

locked: set[str] = set()  # the file prefix that this process is the primary of


def folder() -> str:
    """The run-time folder of this DPDK process. rte_eal_get_runtime_dir."""
    return text(lib.rte_eal_get_runtime_dir())


def root() -> str:
    """Where the folders of all file prefixes are, chosen as eal_create_runtime_dir chooses."""
    systemd = os.environ.get("RUNTIME_DIRECTORY")
    if os.getuid() == 0:
        return f"{systemd or '/var/run'}/dpdk"
    return f"{systemd or os.environ.get('XDG_RUNTIME_DIR') or '/tmp'}/dpdk"


def primary_is_alive(file_prefix: str | None = None) -> bool:
    """Whether the primary of this process, or the one with that file prefix, lives. rte_eal_primary_proc_alive."""
    if locked and file_prefix in (None, *locked):
        return True  # to ask would open and close the file that this process locks, and so unlock it
    path = ffi.NULL if file_prefix is None else f"{root()}/{file_prefix}/config".encode()
    return bool(lib.rte_eal_primary_proc_alive(path))


def secondaries(file_prefix: str) -> list[int]:
    """The pids of the living processes that are attached to the primary of this prefix, in this pid namespace."""
    return sorted({pid for pid, _ in _secondaries(file_prefix) if _is_alive(pid)})


def _secondaries(file_prefix: str) -> list[tuple[int, str]]:
    """The pid and the socket of each that has ever attached."""
    sockets = glob.glob(f"{glob.escape(root())}/{glob.escape(file_prefix)}/mp_socket_*")
    return [(int(os.path.basename(path).split("_")[2]), path) for path in sockets]


def _is_alive(pid: int) -> bool:
    """A process that has ended and was not waited for is dead."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def remove_dead_secondaries(file_prefix: str) -> None:
    """Remove the sockets of processes that were attached and have ended; their other files go as the next one attaches."""
    for pid, path in _secondaries(file_prefix):
        if not _is_alive(pid):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def hugepage_files(file_prefix: str) -> list[str]:
    """The hugepages that files of this prefix hold, in every mounted hugetlbfs."""
    with open("/proc/mounts") as mounts:
        fields = (line.split() for line in mounts)
        folders = sorted({field[1] for field in fields if field[2] == "hugetlbfs"})
    return [path for place in folders for path in glob.glob(f"{glob.escape(place)}/{glob.escape(file_prefix)}map_*")]


def remove_leftovers(file_prefix: str) -> bool:
    """Remove the files of a primary that has ended, and so give its hugepages back; processes that still map them keep
    them until they end. False if that primary is alive: nothing is touched then."""
    if primary_is_alive(file_prefix):
        return False
    remove_files(file_prefix)
    return True


def remove_files(file_prefix: str) -> None:
    """Remove the files of a file prefix, whoever uses them."""
    if not file_prefix or "/" in file_prefix:
        raise ValueError(f"{file_prefix!r} is no file prefix")
    shutil.rmtree(f"{root()}/{file_prefix}", ignore_errors=True)
    for path in hugepage_files(file_prefix):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
