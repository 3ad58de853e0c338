"""The log of a worker and of its supervisor: plain lines on stderr, time, level and message."""

from __future__ import annotations

import logging
import sys

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def logger(name: str = "mpserve") -> logging.Logger:
    return logging.getLogger(name)


def set_up(verbose: bool = False) -> None:
    """Send every log record of this process to stderr, from INFO up (DEBUG if verbose). Twice is once."""
    root = logging.getLogger()
    if not root.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter(FORMAT, datefmt="%H:%M:%S"))
        root.addHandler(handler)
        root.setLevel(logging.INFO)
    if verbose:
        logger().setLevel(logging.DEBUG)
    logging.getLogger("numba").setLevel(logging.WARNING)
