"""DPDK's environment abstraction layer: memory, processes, threads. It can be initialised once in a process.

Nothing is printed: see `pydpdk.log`. A failure carries DPDK's own reason.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydpdk import log, runtime
from pydpdk.codes import check, check_errno, fail, strerror
from pydpdk.errors import DpdkError
from pydpdk.extension import ffi, lib, text

Process = Literal["primary", "secondary", "auto"]


class _State:
    """One a process, like the EAL itself. `arguments` outlives the call, for DPDK keeps pointers into it."""

    initialised = False
    ended = False
    arguments: Any = None


def init(
    *more: str,
    hugepages: bool = True,
    in_memory: bool = False,
    memory_mb: int | None = None,
    file_prefix: str | None = None,
    process: Process = "primary",
    lcores: str | None = None,
    vdevs: Sequence[str] = (),
    pci: Sequence[str] | None = (),
    telemetry: bool = False,
    quiet: bool = True,
) -> None:
    """Initialise the EAL in this process. rte_eal_init.

    hugepages    False: ordinary memory (--no-huge), which no other process can share
    in_memory    make no file (--in-memory, or --no-shconf without hugepages): no secondary can attach
    memory_mb    how much memory to take at the start; without hugepages it is all there will be, 64 MiB by default
    file_prefix  what the files of this DPDK process are called; a secondary gives its primary's
    process      primary, secondary, or auto: secondary if a primary with this file prefix lives
    lcores       DPDK's --lcores; by default one lcore that keeps the CPU affinity of the calling thread
    vdevs        virtual devices, such as "net_ring0" or "net_tap0,iface=x"
    pci          addresses of PCI devices to probe; () probes none and None probes all
    quiet        keep DPDK's log in memory; meanwhile what anything in this process prints doesn't show.
                 False lets the log go to stderr and to syslog
    more         further EAL arguments, as DPDK's guide lists them

    Raises DpdkError with DPDK's reason; a second call raises it with EALREADY.
    """
    arguments = make_arguments(
        *more,
        hugepages=hugepages,
        in_memory=in_memory,
        memory_mb=memory_mb,
        file_prefix=file_prefix,
        process=process,
        lcores=lcores,
        vdevs=vdevs,
        pci=pci,
        telemetry=telemetry,
    )
    init_with(arguments, quiet=quiet)


def make_arguments(
    *more: str,
    hugepages: bool,
    in_memory: bool,
    memory_mb: int | None,
    file_prefix: str | None,
    process: Process,
    lcores: str | None,
    vdevs: Sequence[str],
    pci: Sequence[str] | None,
    telemetry: bool,
) -> list[str]:
    """The EAL's command line for the arguments of `init`."""
    arguments = [f"--lcores={lcores or this_thread()}", f"--proc-type={process}"]
    arguments += [] if hugepages else ["--no-huge"]
    arguments += ["--in-memory" if hugepages else "--no-shconf"] if in_memory else []  # no-huge excludes in-memory
    arguments += [f"--file-prefix={file_prefix}"] if file_prefix else []
    arguments += ["-m", str(memory_mb)] if memory_mb else []
    arguments += [] if telemetry else ["--no-telemetry"]
    arguments += ["--no-pci"] if pci is not None and not pci else [f"--allow={address}" for address in pci or ()]
    arguments += [f"--vdev={vdev}" for vdev in vdevs]
    return [*arguments, *more]


def this_thread(lcore: int = 0) -> str:
    """An lcore map of one lcore on the CPUs that the calling thread may use. Processes that share memory number theirs
    differently: an lcore's cache of a mempool is used without a lock."""
    cpus = ",".join(str(cpu) for cpu in sorted(os.sched_getaffinity(0)))
    return f"{lcore}@({cpus})"


def init_with(arguments: Sequence[str], *, quiet: bool = True) -> None:
    """Initialise the EAL with a command line of the caller's own, without the program's name. rte_eal_init."""
    if _State.initialised or _State.ended:
        fail("rte_eal_init", errno.EALREADY)
    if quiet:
        log.keep()
    words = [ffi.new("char[]", word.encode()) for word in ("pydpdk", *arguments)]
    argv = ffi.new("char *[]", [*words, ffi.NULL])
    _State.arguments = (words, argv)
    with _captured(quiet) as captured:
        code = lib.rte_eal_init(len(words), argv)
        error = lib.pydpdk_errno()
        lib.pydpdk_flush()
    if code < 0:
        _State.ended = True
        _remove_what_failed(arguments)
        _refuse(error, captured[0] + log.read())
    _State.initialised = True
    if process_type() == "primary" and _makes_files(arguments):
        runtime.locked.add(os.path.basename(runtime.folder()))
    atexit.register(cleanup)


def _makes_files(arguments: Sequence[str]) -> bool:
    return not {"--in-memory", "--no-shconf"} & set(arguments)


def _remove_what_failed(arguments: Sequence[str]) -> None:
    """The EAL makes its folder and may fail later. Files in it that belong to a living primary stay."""
    folder = runtime.folder()
    if not folder:
        return
    if lib.rte_eal_process_type() == 0 and _makes_files(arguments):
        runtime.remove_leftovers(os.path.basename(folder))
    _remove_if_empty(folder)


def _remove_if_empty(folder: str) -> None:
    """The EAL makes its folder even if it puts nothing there."""
    with contextlib.suppress(OSError):
        os.rmdir(folder)


def _refuse(error: int, said: str) -> None:
    text_of_code = strerror(error)
    reason = log.reason(said)
    raise DpdkError("rte_eal_init", error, f"{text_of_code} ({reason})" if reason else text_of_code, said)


@contextlib.contextmanager
def _captured(quiet: bool) -> Iterator[list[str]]:
    """What C code prints to stderr meanwhile, afterwards the list's one element; what it prints to stdout is lost."""
    lines = [""]
    if not quiet:
        yield lines
        return
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    with tempfile.TemporaryFile() as errors, open(os.devnull, "wb") as nowhere:
        with _redirected(1, nowhere.fileno()), _redirected(2, errors.fileno()):
            yield lines
        errors.seek(0)
        lines[0] = errors.read().decode(errors="replace")


@contextlib.contextmanager
def _redirected(descriptor: int, target: int) -> Iterator[None]:
    """Send what is written to `descriptor` to `target` meanwhile; a daemon may have closed it before."""
    try:
        saved = os.dup(descriptor)
    except OSError:
        yield
        return
    os.dup2(target, descriptor)
    try:
        yield
    finally:
        os.dup2(saved, descriptor)
        os.close(saved)


def cleanup() -> None:
    """Give back what `init` took, files and hugepages included; runs at exit by itself. Addresses of DPDK memory are
    invalid afterwards, and the EAL can't be initialised again in this process. rte_eal_cleanup."""
    if not _State.initialised:
        return
    _State.initialised, _State.ended = False, True
    atexit.unregister(cleanup)
    folder = runtime.folder()
    check("rte_eal_cleanup", lib.rte_eal_cleanup())
    while runtime.locked:
        runtime.remove_files(runtime.locked.pop())
    _remove_if_empty(folder)


def abandon() -> None:
    """Leave everything as it is until the process ends, and remove this process's files: no driver closes its device, which
    some do at the expense of another process that uses the same. The EAL can't be initialised again in this process."""
    if not _State.initialised:
        return
    _State.initialised, _State.ended = False, True
    atexit.unregister(cleanup)
    folder = runtime.folder()
    while runtime.locked:
        runtime.remove_files(runtime.locked.pop())
    _remove_if_empty(folder)


def forgo_services() -> None:
    """Give back what the EAL has set aside for services (rte_service), which this process can't use from then on. A secondary
    has it from the memory of all, 150 KiB, and nobody could give it back for one that was killed. rte_service_finalize."""
    lib.rte_service_finalize()


def is_initialised() -> bool:
    return _State.initialised


def process_type() -> str:
    """ "primary" or "secondary", "none" before `init`. rte_eal_process_type."""
    if not _State.initialised:
        return "none"
    return "primary" if lib.rte_eal_process_type() == 0 else "secondary"


def has_hugepages() -> bool:
    """Whether the EAL's memory is in hugepages. rte_eal_has_hugepages."""
    return bool(lib.rte_eal_has_hugepages())


def register_thread() -> None:
    """Make the calling thread an lcore, so that it has a mempool cache of its own. rte_thread_register."""
    check_errno("rte_thread_register", lib.rte_thread_register())


def unregister_thread() -> None:
    """Undo `register_thread`, in the same thread. rte_thread_unregister."""
    lib.rte_thread_unregister()


def socket_id() -> int:
    """The NUMA node of the calling thread, -1 if it runs on several. rte_socket_id."""
    node = lib.pydpdk_socket_id() & 0xFFFFFFFF
    return -1 if node == 0xFFFFFFFF else node


def tsc_hz() -> int:
    """How many cycles of the TSC a second has. rte_get_tsc_hz."""
    return lib.pydpdk_tsc_hz()


def version() -> str:
    """DPDK's version at run time, such as "DPDK 22.11.11". rte_version."""
    return text(lib.rte_version())
