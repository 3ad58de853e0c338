"""What a server keeps outside its processes besides interfaces: counters in shared memory, DPDK's folder, hugepages.

All carry the name that `own_name` gives, so a crashed run's are found by it and removed at the next start.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil

from mpserve.dataplane import kernel_link

SHARED_MEMORY = "/dev/shm"


def own_name() -> str:
    """A name for what this process makes; it tells whether the process lives: mpserve-PID-START-NAMESPACE."""
    return kernel_link.owner_mark().replace(" ", "-")


def worker_name(index: int) -> str:
    """The same for what one of this process's workers makes."""
    return f"{own_name()}-{index}"


def counters_path() -> str:
    return f"{SHARED_MEMORY}/{own_name()}-counters"


def make_counters() -> str:
    """A shared-memory segment for the counters; its path. The first worker gives it its size, later ones count on."""
    path = counters_path()
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600))
    return path


def remove_own() -> None:
    _remove(own_name())


def remove_stale() -> list[str]:
    """Remove what servers left whose process is gone; their names."""
    stale = sorted({name for name in _names() if kernel_link.owner_is_dead(name.replace("-", " "))})
    for name in stale:
        _remove(name)
    return stale


def remove_worker_files(index: int) -> None:
    """DPDK's files of a worker that was killed. Its successor opens with the same name; those of the others stay."""
    name = worker_name(index)
    for path in _dpdk_paths(name):
        if os.path.basename(path).partition("map_")[0] == name:  # worker 1 is not worker 10
            _delete(path)


def _names() -> list[str]:
    paths = glob.glob(f"{SHARED_MEMORY}/{kernel_link.MARK}-*") + _dpdk_paths(f"{kernel_link.MARK}-")
    return [
        "-".join(os.path.basename(path).removesuffix("-counters").split("-")[:4]).partition("map_")[0] for path in paths
    ]


def _remove(name: str) -> None:
    for path in [f"{SHARED_MEMORY}/{name}-counters", *_dpdk_paths(name)]:
        _delete(path)


def _dpdk_paths(name: str) -> list[str]:
    """Runtime folders and hugepage files of EALs whose file prefix begins with `name`."""
    roots = {"/var/run", "/tmp", os.environ.get("RUNTIME_DIRECTORY", ""), os.environ.get("XDG_RUNTIME_DIR", "")}
    found = [path for root in roots if root for path in glob.glob(f"{root}/dpdk/{name}*")]
    return found + [path for mount in _hugepage_mounts() for path in glob.glob(f"{mount}/{name}*")]


def _hugepage_mounts() -> list[str]:
    with open("/proc/mounts") as file:
        return [fields[1] for fields in map(str.split, file) if fields[2] == "hugetlbfs"]


def _delete(path: str) -> None:
    with contextlib.suppress(OSError):
        if os.path.isdir(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
