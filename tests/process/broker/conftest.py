"""A runtime of its own for each test, and peers in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from extmem.testing.children import Peer
from extmem.testing.runtime import Runtime
from tests.process.broker.steps import PEER

Start = Callable[..., Peer]


@pytest.fixture
def start(own_runtime: Runtime) -> Iterator[Start]:
    """Start a peer that has the functions of steps.py; it ends with the test."""
    with ExitStack() as stack:

        def started(env: dict[str, str] | None = None, **options: Any) -> Peer:
            peer = stack.enter_context(Peer(env={**own_runtime.environment, **(env or {})}, **options))
            peer(PEER)
            return peer

        yield started
