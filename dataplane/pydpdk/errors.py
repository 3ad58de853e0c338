"""The exceptions: one for what DPDK refuses, one for an extension that isn't there."""


class NotBuiltError(ImportError):
    """The extension isn't built, or DPDK's libraries aren't installed; the message says what to type."""


class DpdkError(OSError):
    """A DPDK function failed. `errno` is DPDK's code (positive), `function` the C function's name.

    The text is rte_strerror's, unless DPDK's log says more: then `log` holds all it said.
    """

    def __init__(self, function: str, errno: int, reason: str, log: str = "") -> None:
        super().__init__(errno, f"{function}: {reason}")
        self.function = function
        self.log = log
