"""Replacing an attribute for the length of a block."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

__all__ = ["patched"]


@contextlib.contextmanager
def patched(where: object, name: str, replacement: object) -> Iterator[None]:
    """Within the block the attribute `name` of a module or object is `replacement`."""
    real = getattr(where, name)
    setattr(where, name, replacement)
    try:
        yield
    finally:
        setattr(where, name, real)
