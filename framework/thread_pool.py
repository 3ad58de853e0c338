"""`ThreadPool`: functions that may block, run beside a worker; their futures are completed on its thread."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from typing import Any


class ThreadPool:
    """`call_soon(function, *arguments)` has a function called on the worker's thread. Threads are made when there is work."""

    def __init__(self, call_soon: Callable[..., None]) -> None:
        self._call_soon = call_soon
        self._executor: concurrent.futures.ThreadPoolExecutor | None = None

    def run(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> concurrent.futures.Future[Any]:
        """Run a function in a thread; its future."""
        if self._executor is None:
            self._executor = concurrent.futures.ThreadPoolExecutor(thread_name_prefix="mpserve")
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def run() -> None:
            try:
                result = function(*arguments)
            except BaseException as error:
                self._call_soon(future.set_exception, error)
            else:
                self._call_soon(future.set_result, result)

        self._executor.submit(run)
        return future

    def close(self) -> None:
        """What has not begun is dropped; nobody waits for the rest."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
