"""Stacks in virtual time for the tests of the data plane; `peer` is made importable from here."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

if "peer" not in sys.modules:
    spec = importlib.util.spec_from_file_location("peer", Path(__file__).parents[1] / "peer.py")
    assert spec is not None and spec.loader is not None
    sys.modules["peer"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["peer"])

from peer import TestedStack, stacks  # noqa: E402


@pytest.fixture
def make_stack() -> Iterator[Callable[..., TestedStack]]:
    """A maker of stacks; at the test's end each must have all its blocks, slots and mbufs back."""
    yield from stacks()


@pytest.fixture
def stack(make_stack: Callable[..., TestedStack]) -> TestedStack:
    return make_stack()
