"""A real `mpserve` in a process of its own, for tests: started, waited for, asked for its counters, stopped.

`serving` also checks that a stopped server has left nothing: no process, interface, segment, file or mount.
"""

import contextlib
import glob
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from mpserve.dataplane.layout import COUNTER_NAMES
from mpserve.framework.counters import read_segment, segment_bytes

MPSERVE = [sys.executable, "-m", "mpserve.cli"]
START_SECONDS = 400.0  # a first start compiles the stack
STOP_SECONDS = 30.0
MARK = "MPSERVE_TEST_RUN"


class Server:
    """A running server: `pid` of the supervisor, `urls` as it printed them, what it wrote on stderr so far."""

    def __init__(
        self, arguments: list[str], program: list[str], environment: dict[str, str], folder: Path, all_cores: bool
    ) -> None:
        self.mark = f"{MARK}={uuid.uuid4().hex}"
        name, _, value = self.mark.partition("=")
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the server
        self.before = _interfaces()
        if "--cores" not in arguments and not all_cores and arguments[0] in ("run", "http", "echo", "memcached"):
            arguments = [*arguments, "--cores", str(min(os.sched_getaffinity(0)))]
        self.process = subprocess.Popen(
            [*program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=folder,
            env=os.environ | environment | {name: value, "PYTHONSAFEPATH": "1"},
            start_new_session=True,
        )
        self.pid = self.process.pid
        self.said = ""
        self.urls: list[str] = []

    def wait_until_serving(self, count: int = 1) -> None:
        """Wait for `count` lines that begin with `serving`."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + START_SECONDS
        while len(self.urls) < count:
            ready, _, _ = select.select([self.process.stdout], [], [], max(deadline - time.monotonic(), 0))
            data = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            assert data, f"it does not serve, {self._end()}: {self.said}{self.log}"
            self.said += data.decode()
            lines = self.said.split("\n")[:-1]
            self.urls = [line.removeprefix("serving ") for line in lines if line.startswith("serving ")]

    def _end(self) -> str:
        """Its exit status, once it has closed its output."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1)
        return f"status {self.process.returncode}"

    @property
    def log(self) -> str:
        """What it wrote on stderr."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")

    @property
    def counters(self) -> dict[str, int]:
        """The only worker's counters, from their segment."""
        (row,) = self.all_counters(1)
        return row

    def all_counters(self, workers: int) -> list[dict[str, int]]:
        """The counters of so many workers, in the order of their cores."""
        (path,) = glob.glob(f"/dev/shm/mpserve-{self.pid}-*-counters")
        content = Path(path).read_bytes()
        assert len(content) == segment_bytes(8 * len(COUNTER_NAMES), workers)
        return read_segment(content, COUNTER_NAMES, workers)

    @property
    def processes(self) -> list[int]:
        """Everything that was started by it and lives."""
        return [pid for pid in _pids() if self.mark.encode() in _environment(pid)]

    @property
    def worker(self) -> int:
        """The pid of the process that serves, if there is one."""
        found = self.workers
        assert len(found) == 1, (found, self.log)
        return found[0]

    @property
    def workers(self) -> list[int]:
        """The pids of the processes that serve: those that map the counters' segment."""
        return [pid for pid in self.processes if f"/dev/shm/mpserve-{self.pid}-" in _read(f"/proc/{pid}/maps")]

    @property
    def keeper(self) -> int:
        """The pid of the process that holds a device which the workers share."""
        (found,) = (pid for pid in self.processes if "mpserve.dataplane.shared_port" in _read(f"/proc/{pid}/cmdline"))
        return found

    @property
    def mac(self) -> str:
        """The Ethernet address in its start line."""
        return next(word for word in self.said.replace(",", " ").split() if word.count(":") == 5)

    def describe(self) -> None:
        """Print what there is to know of it, for a test that failed."""
        print(self.said, self.log, sep="\n", file=sys.stderr)
        with contextlib.suppress(ValueError, OSError):
            for row in self.all_counters(len(self.workers)):
                print({name: count for name, count in row.items() if count}, file=sys.stderr)

    def wait_for_log(self, words: str, seconds: float = 20.0) -> str:
        """Wait until it has written these words; the line that holds them."""
        eventually(lambda: words in self.log, f"{words!r} is not in the log", seconds, self)
        return next(line for line in self.log.splitlines() if words in line)

    def kill(self) -> None:
        """End everything by force, with no regard for what is left."""
        for pid in {self.pid, *self.processes}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def stop(self, number: int = signal.SIGINT) -> None:
        """Stop it by a signal, and check that it ends well and leaves nothing."""
        self.process.send_signal(number)
        try:
            status = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not stop: {self.log}") from None
        assert status == 0, (status, self.log)
        assert self.left() == []

    def left(self) -> list[str]:
        """What is there that should have gone with it. Call it in the network namespace that it was started in."""
        name = f"mpserve-{self.pid}-"
        patterns = [f"/dev/shm/{name}*", f"/var/run/dpdk/{name}*", f"/tmp/mpserve-*/dpdk/{name}*"]
        patterns += [f"{mount}/{name}*" for mount in _mounts("hugetlbfs")]
        found = [path for pattern in patterns for path in glob.glob(pattern)]
        found += [f"process {pid}" for pid in self.processes]
        found += [f"interface {link}" for link in _interfaces() - self.before]
        found += [f"mount {line}" for line in _read("/proc/self/mounts").splitlines() if name in line]
        return found


@contextlib.contextmanager
def serving(
    *arguments: str,
    program: list[str] | None = None,
    environment: dict[str, str] | None = None,
    folder: Path = Path("/"),
    urls: int = 1,
    stop: int = signal.SIGINT,
    all_cores: bool = False,
) -> Iterator[Server]:
    """`mpserve ARGUMENTS` serving, in the caller's network namespace, on one core unless --cores or `all_cores` says otherwise.

    Stopped at the end, when nothing may be left.
    """
    server = Server(list(arguments), program or MPSERVE, environment or {}, folder, all_cores)
    try:
        server.wait_until_serving(urls)
        yield server
        if server.process.poll() is None:
            server.stop(stop)
    except BaseException:
        server.describe()
        raise
    finally:
        if server.process.poll() is None or server.processes:
            server.kill()


def eventually(
    holds: Callable[[], object], otherwise: str, seconds: float = 10.0, server: Server | None = None
) -> None:
    """Wait until `holds()`; fail with `otherwise` after so many seconds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{otherwise}\n{server.log if server else ''}"
        time.sleep(0.02)


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used: utime and stime of /proc/PID/stat."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _mounts(kind: str) -> list[str]:
    return [fields[1] for fields in map(str.split, _read("/proc/mounts").splitlines()) if fields[2] == kind]


def _interfaces() -> set[str]:
    return {name for _, name in socket.if_nameindex()}
