"""Loads the examples as `mpserve run FILE.py:Name` does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpserve.framework.load import find_handler

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example() -> Callable[[str], type]:
    """`example("echo.py:Echo")` is the class."""
    return lambda target: find_handler(str(EXAMPLES / target))


@pytest.fixture
def mpserve_host(mpserve_each_host: Any) -> Any:
    """Every test here runs on the stack and over kernel sockets, unless it is marked `stack_only`."""
    return mpserve_each_host
