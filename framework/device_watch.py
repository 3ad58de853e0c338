"""`DeviceWatch`: how a worker that has nothing to do waits for its device, and what shows that the device is gone."""

from __future__ import annotations

import select
import time
from typing import Any

from mpserve.dataplane.errors import DeviceError

DEVICE_ERRORS = 300  # looks at a descriptor in error, 10 ms apart, before the worker gives up
NAP_SECONDS = 0.001  # between looks at a device that has no descriptor to sleep on ...
LONGEST_NAP_SECONDS = 0.004  # ... twice as long each time that nothing had happened


class DeviceWatch:
    """Of one device, by one worker."""

    def __init__(self, device: Any) -> None:
        self._device = device
        self._nap, self._errors = NAP_SECONDS, 0

    def worked(self) -> None:
        """Something has happened: the next nap is short."""
        self._nap = NAP_SECONDS

    def longest_wait(self, wait: float, hurries: bool) -> float:
        """Seconds of `wait` seconds that the worker may sleep; `hurries`: frames wait that the device has not taken."""
        if hurries:
            return min(wait, NAP_SECONDS)
        if self._device.wait_fds:
            return wait
        nap, self._nap = self._nap, min(2 * self._nap, LONGEST_NAP_SECONDS)
        return min(wait, nap)

    def check(self, ready: list[tuple[int, int]]) -> None:
        """An interface that is down or gone has its descriptor in error at every look: wait a little, and at last give up.

        Raises DeviceError.
        """
        if not any(fd in self._device.wait_fds and state & ~select.POLLIN for fd, state in ready):
            self._errors = 0
            return
        self._errors += 1
        if self._errors > DEVICE_ERRORS:
            name = self._device.description or self._device.spec
            raise DeviceError(f"the interface of {name} is gone: start again when it is back")
        time.sleep(10 * NAP_SECONDS)
