"""`Threads`: functions that may block, run beside a worker."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from typing import Any


class Threads:
    """A pool that begins when it is needed. `call_back(function, argument)` calls on the worker's thread, from any."""

    def __init__(self, call_back: Callable[..., None]) -> None:
        self._call_back = call_back
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None

    def run(self, function: Callable[..., Any], *arguments: Any) -> concurrent.futures.Future[Any]:
        """The future is completed on the worker's thread."""
        if self._pool is None:
            self._pool = concurrent.futures.ThreadPoolExecutor(thread_name_prefix="mpserve")
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def run() -> None:
            try:
                result = function(*arguments)
            except BaseException as error:
                self._call_back(future.set_exception, error)
            else:
                self._call_back(future.set_result, result)

        self._pool.submit(run)
        return future

    def close(self) -> None:
        """Wait for none of them."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
