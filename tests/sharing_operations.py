"""Operations of `tests.operations` that share arrays and parts of memory."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

import extmem
from extmem.api import DeviceMemory
from extmem.errors import PeerGoneError, UnsupportedError, WaitTimeoutError
from tests.tagged_payloads import SIZE

__all__ = ["CHANGES", "OF_DEVICES", "OF_MEMORY"]

OF_MEMORY: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    ("a part", lambda s: s.thing[1:].read()),
    ("a part, pickled", lambda s: pickle.loads(pickle.dumps(s.thing[1:])).close()),
    ("a part, shared", lambda s: s.thing[1:].share()),
)
"""Of a memory object, in a scene."""


def _updated(scene: Any) -> None:
    with scene.thing.update(timeout=10):
        scene.thing.fill(scene.tag)


def _stable(scene: Any) -> Any:
    """Read what no update changes meanwhile. An update that an exception has left is an error until the next one."""
    with contextlib.suppress(PeerGoneError), scene.thing.stable(timeout=10):
        return scene.thing.read()


def _waited(scene: Any) -> None:
    with contextlib.suppress(PeerGoneError, WaitTimeoutError):
        scene.thing.wait(timeout=0)


def _awaited(scene: Any) -> None:
    """Start a wait for a generation that is reached: it ends without an event loop."""
    waiting = scene.thing.wait_async(after=-2)
    try:
        waiting.send(None)
    except (StopIteration, PeerGoneError):
        pass
    finally:
        waiting.close()


def _frozen(scene: Any) -> Any:
    """Freeze memory of its own, which others do not write to."""
    with extmem.share(bytes([scene.tag]) * SIZE) as memory:
        with contextlib.suppress(UnsupportedError):  # Windows
            memory.freeze()
        return memory.read()


CHANGES: dict[tuple[type, str], Callable[[Any], Any]] = {
    (DeviceMemory, "update"): _updated,
    (DeviceMemory, "stable"): _stable,
    (DeviceMemory, "wait"): _waited,
    (DeviceMemory, "wait_async"): _awaited,
    (DeviceMemory, "freeze"): _frozen,
}
"""Methods of memory that change it in place, and tell of changes."""


def _tree(scene: Any) -> Any:
    with extmem.share({"a": np.full(SIZE, scene.tag, "uint8")}) as memory:
        return memory["a"].read()


OF_DEVICES: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    ("extmem.share", lambda s: extmem.share(bytes([s.tag]) * SIZE).close()),
    ("extmem.share of a tree", _tree),
)
"""Beside a device that another thread may be closing."""
