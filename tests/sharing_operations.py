"""Operations of `tests.operations` that share arrays and parts of memory."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

import extmem
from tests.tagged_payloads import SIZE

__all__ = ["OF_DEVICES", "OF_MEMORY"]

OF_MEMORY: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    ("a part", lambda s: s.thing[1:].read()),
    ("a part, pickled", lambda s: pickle.loads(pickle.dumps(s.thing[1:])).close()),
    ("a part, shared", lambda s: s.thing[1:].share()),
)
"""Of a memory object, in a scene."""


def _tree(scene: Any) -> Any:
    with extmem.share({"a": np.full(SIZE, scene.tag, "uint8")}) as memory:
        return memory["a"].read()


OF_DEVICES: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    ("extmem.share", lambda s: extmem.share(bytes([s.tag]) * SIZE).close()),
    ("extmem.share of a tree", _tree),
)
"""Beside a device that another thread may be closing."""
