"""Something else in a function's place, for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

__all__ = ["patched"]


@contextlib.contextmanager
def patched(where: object, name: str, replacement: object) -> Iterator[None]:
    """`replacement` is the attribute `name` of a module or object within the block."""
    real = getattr(where, name)
    setattr(where, name, replacement)
    try:
        yield
    finally:
        setattr(where, name, real)
