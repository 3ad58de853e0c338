"""`Server`: checks every setting, makes the link, has a supervisor keep a worker serving on it, removes it all at the end.

No packet passes through this process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mpserve.dataplane import rootless
from mpserve.dataplane.device import parse_device
from mpserve.dataplane.errors import SetupError
from mpserve.dataplane.links import Link, make_link
from mpserve.dataplane.shared_port import PortLost, SharedPort, open_shared_port
from mpserve.framework import leftovers, log, preflight, publish
from mpserve.framework.children import Child, Message
from mpserve.framework.config import make_config, read_file
from mpserve.framework.cores import accepting_cores, choose_cores, name_cores
from mpserve.framework.counters import published_names, read_published, read_segment
from mpserve.framework.group import Group
from mpserve.framework.handler import Handler
from mpserve.framework.kernel_settings import DESCRIPTION
from mpserve.framework.load import find_handler, target_of
from mpserve.framework.options import parse_options, plain
from mpserve.framework.supervisor import Stopped, Supervisor, WorkerFailed

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Server:
    """Serves a handler: `with Server(Echo, listen=":7") as server: ...`, or `Server(Echo).run()` until a signal.

    `handler` is a Handler class at the top of a module, or a text as `mpserve run` takes it. `options` are the
    handler's, `settings` those of the command line with underscores (device, ip, listen, busy_poll, max_connections,
    ...); `config` names a TOML file, ./mpserve.toml if there is one. Raises SetupError for what can't be honoured.
    """

    program: tuple[str, ...] = ("-m", "mpserve.framework.process")  # what a worker process runs

    def __init__(
        self,
        handler: type[Handler] | str,
        *,
        options: Mapping[str, Any] | None = None,
        config: str | None = None,
        say: Callable[[str], None] | None = None,
        **settings: Any,
    ) -> None:
        self._target = target_of(handler)
        self.handler = find_handler(self._target) if isinstance(handler, str) else handler
        in_file, for_handler = read_file(config)
        settings.setdefault("listen", None)
        defaults = {"listen": f":{self.handler.default_port}"}
        self.config = make_config(settings, defaults | in_file)
        given = parse_options(self.handler, {**for_handler, **(options or {})})
        self._options = {name: plain(value) for name, value in given.items()}
        _try_out(self.handler, given)
        self.spec = parse_device(self.config.device)
        self.cores = choose_cores(self.config.cores, self.spec, self.handler)
        for text in self.config.listen:
            accepting_cores(text, self.cores)  # refuses
        self.worker_pids = [0] * len(self.cores)
        self.restarts = 0
        self._say = say or _print
        self._log = log.logger("mpserve.server")
        self._supervisor: Supervisor | None = None
        self._thread: threading.Thread | None = None
        self._serving = threading.Event()
        self._error: BaseException | None = None
        preflight.check(self.config, self.spec, workers=len(self.cores))

    @property
    def urls(self) -> list[str]:
        """One for each listener, http://10.9.0.2/ or tcp://10.9.0.2:7, and the published one."""
        listeners = self.config.listeners
        if self.config.publish:
            # In a namespace of its own nobody reaches the others.
            listeners = [*([] if rootless.inside() else listeners), publish.parse_address(self.config.publish)]
        return [_url(self.handler.scheme, host or "127.0.0.1", port) for host, port in listeners]

    def run(self) -> int:
        """Serve in the foreground until SIGINT, SIGTERM or SIGHUP; the exit status. A second signal is immediate.

        Call it from the main thread. Raises SetupError, with nothing left behind. Without root, and with `publish`, it
        starts this program again in a namespace of its own, and doesn't return.
        """
        log.set_up(self.config.verbose)
        if self.config.publish and rootless.is_needed(self.spec):
            rootless.enter(publish.listen(self.config.publish))
        self._make_supervisor()
        before = {number: signal.signal(number, self._on_signal) for number in STOP_SIGNALS if _not_ignored(number)}
        try:
            self._serve()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return 0

    def start(self) -> None:
        """Serve in the background; returns when the server is serving. Raises SetupError, with nothing left behind."""
        log.set_up(self.config.verbose)
        self._make_supervisor()
        self._thread = threading.Thread(target=self._serve_in_thread, name="mpserve supervisor")
        self._thread.start()
        try:
            self._serving.wait()
        except BaseException:  # Ctrl-C: nobody would stop the thread
            self.stop()
            raise
        if self._error is not None:
            self._thread.join()
            raise self._error

    def stats(self) -> list[dict[str, int]]:
        """The counters of every worker while the server serves, a dict each with its `core`, in the order of `cores`.

        What workers count outside their stacks may be 50 ms old. A worker that died has left its counters to the next.
        """
        supervisor = self._supervisor
        if supervisor is None or not self._serving.is_set():
            raise SetupError("the server doesn't serve: ask for its counters between start() and stop()")
        rows = read_published(supervisor.group, published_names(self.config.over_kernel))
        stacks = [{} for _ in rows] if self.config.over_kernel else self._stacks_stats()
        return [{"core": core} | stack | row for core, stack, row in zip(self.cores, stacks, rows, strict=True)]

    def _stacks_stats(self) -> list[dict[str, int]]:
        from mpserve.dataplane.layout import COUNTER_NAMES

        return read_segment(Path(leftovers.counters_path()).read_bytes(), COUNTER_NAMES, len(self.cores))

    def stop(self) -> None:
        """Drain and stop. Waits until nothing is left, if `start` was used. Called twice: at once."""
        self._on_signal()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _make_supervisor(self) -> None:
        config = self.config
        self._supervisor = Supervisor(self.program, config.grace_seconds, self.cores, over_kernel=config.over_kernel)

    def _on_signal(self, *_: object) -> None:
        supervisor = self._supervisor
        if supervisor is not None:
            supervisor.stop()

    def _serve_in_thread(self) -> None:
        try:
            self._serve()
        except BaseException as error:
            self._error = error
            if self._serving.is_set():
                self._log.error("%s", error)
        finally:
            self._serving.set()

    def _serve(self) -> None:
        supervisor = self._supervisor
        assert supervisor is not None
        with contextlib.suppress(Stopped), contextlib.ExitStack() as stack:
            stack.callback(self._forget_supervisor)
            if not self.config.over_kernel:  # which leaves nothing, and has no shared memory
                leftovers.remove_stale()
                stack.callback(leftovers.remove_own)
            stack.callback(supervisor.close)
            supervisor.prepare()
            link = stack.enter_context(self._make_link())
            if self._is_shared:
                port = stack.enter_context(self._open_shared_port(link))
                supervisor.on_death = port.renew
                supervisor.watch(port.fileno(), port.attend)
            stack.callback(supervisor.close)  # here too: the link goes after those who use it
            make_order = self._orders(link, supervisor.group)
            self._publish(stack)
            try:
                supervisor.keep_serving(make_order, functools.partial(self._announce, link))
            except PortLost as error:
                raise WorkerFailed(str(error)) from None

    def _forget_supervisor(self) -> None:
        self._supervisor = None

    def _make_link(self) -> Link:
        config = self.config
        if config.over_kernel:
            return Link(self.spec, description=DESCRIPTION)
        return make_link(
            self.spec,
            ip=config.address,
            prefix_length=config.prefix_length,
            queues=len(self.cores),
            take_over=config.take_over,
            memory_mb=preflight.memory_mb(config, self.spec),
        )

    @property
    def _is_shared(self) -> bool:
        """Whether a process of its own opens the device, to which the workers attach."""
        return self.spec.driver.several == "shared" and len(self.cores) > 1

    def _open_shared_port(self, link: Link) -> SharedPort:
        from mpserve.dataplane.limits import BLOCK_BYTES

        blocks = self.config.make_limits().blocks * BLOCK_BYTES
        return open_shared_port(link.spec, len(self.cores), file_prefix=leftovers.own_name(), block_bytes=blocks)

    def _publish(self, stack: contextlib.ExitStack) -> None:
        """Relay a kernel socket to the first listener, if that was asked for."""
        if not self.config.publish:
            return
        listener = stack.enter_context(rootless.inherited_listener() or publish.listen(self.config.publish))
        relay = publish.start(listener, *self.config.listeners[0])
        stack.callback(relay.wait)
        stack.callback(relay.terminate)

    def _orders(self, link: Link, group: Group) -> Callable[[int], Message]:
        """What a worker is told, given its index. Over kernel sockets nothing is named in shared memory."""
        over_kernel = self.config.over_kernel
        to_all = {
            "target": self._target,
            "options": self._options,
            "config": dataclasses.asdict(self.config),
            "device": str(link.spec),
            "cores": self.cores,
            "group": group.invitation(),
            "counters": None if over_kernel else leftovers.make_counters(),
        }

        def order(index: int) -> Message:
            prefix = leftovers.own_name() if self._is_shared else leftovers.worker_name(index)
            return to_all | {"index": index, "core": self.cores[index], "file_prefix": "" if over_kernel else prefix}

        return order

    def _announce(self, link: Link, index: int, worker: Child, ready: Message) -> None:
        """A worker serves: when all do for the first time, say where."""
        self.restarts += bool(self.worker_pids[index])
        self.worker_pids[index] = worker.pid
        if self._serving.is_set() or not all(self.worker_pids):
            return
        where = link.description or ready["device"]
        if self.config.over_kernel:
            self._say(f"{self.handler.__name__} on {where}, {name_cores(self.cores)}")
        else:
            self._say(f"{self.handler.__name__} on {where}, {self._own_end(link, ready)}")
        for url in self.urls:
            self._say(f"serving {url}")
        self._serving.set()

    def _own_end(self, link: Link, ready: Message) -> str:
        """The server's addresses and cores, the kernel's end of the link, what is wrong with the wire."""
        kernel = f"; the kernel's end is {link.interface} at {link.address}" if link.address else ""
        faults = f"; the wire is impaired: {self.config.impair}" if self.config.impair else ""
        return f"{self.config.ip}, {ready['mac']}, {name_cores(self.cores)}{kernel}{faults}"


def _try_out(handler: type[Handler], options: Mapping[str, Any]) -> None:
    """Make one and drop it: what a handler refuses by itself is refused before anything is compiled or opened."""
    try:
        handler(**options)
    except SetupError:
        raise
    except Exception as error:
        raise SetupError(f"{handler.__name__} can't be made: {type(error).__name__}: {error}") from error
    if handler.codec is not None and not handler.is_compiled:
        from mpserve.framework.request_batch import compile_codec

        compile_codec(handler.codec)


def _print(line: str) -> None:
    print(line, flush=True)


def _not_ignored(number: signal.Signals) -> bool:
    """nohup and shells' background jobs ignore some: that stays."""
    return signal.getsignal(number) is not signal.SIG_IGN


def _url(scheme: str, host: str, port: int) -> str:
    if scheme == "http":
        return f"http://{host}/" if port == 80 else f"http://{host}:{port}/"
    return f"{scheme}://{host}:{port}"


def run(handler: type[Handler] | str, **settings: Any) -> None:
    """Serve until a signal, as `mpserve run` does: `mpserve.run(Echo, listen=":7")`. Settings as for Server.

    A SetupError is printed as one line and ends the program with status 2.
    """
    try:
        Server(handler, **settings).run()
    except WorkerFailed as error:
        print(f"mpserve: {error}", file=sys.stderr)
        sys.exit(1)
    except SetupError as error:
        print(f"mpserve: {error}", file=sys.stderr)
        sys.exit(2)
