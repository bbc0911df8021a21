"""The size of a dma-buf, as the kernel reports it. Any driver may have exported it, so it has no common form."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

__all__ = ["size_of", "replaced_by", "size_in"]

_others: list[Callable[[int], int | None]] = []
"""Replacements of the kernel's report (for tests); the last one is called first."""


def size_of(fd: int) -> int | None:
    """Bytes of the dma-buf behind an open fd; None for a file of another kind. Errors: OSError without /proc."""
    for other in reversed(_others):
        size = other(fd)
        if size is not None:
            return size
    with open(f"/proc/self/fdinfo/{fd}", encoding="utf-8", errors="replace") as text:
        return size_in(text.read(4096))


def size_in(text: str) -> int | None:
    """Bytes of a dma-buf from the kernel's report about an open file. Only a dma-buf has its exporter's name there."""
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return int(lines.get("size", "0")) if "exp_name" in lines else None


@contextlib.contextmanager
def replaced_by(other: Callable[[int], int | None]) -> Iterator[None]:
    """Within the block files for which `other` returns a size are dma-bufs too (for tests on a scripted driver)."""
    _others.append(other)
    try:
        yield
    finally:
        _others.remove(other)
