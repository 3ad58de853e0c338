"""Handlers behave alike on the stack and over kernel sockets."""

from typing import Any

import pytest


@pytest.fixture
def mpserve_host(mpserve_each_host: Any) -> Any:
    """Every test here runs on the stack and over kernel sockets, unless it is marked `stack_only`."""
    return mpserve_each_host
