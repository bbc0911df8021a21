"""What a payload's file descriptor is."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Kind"]


class Kind(IntEnum):
    """What a payload's file descriptor is."""

    HOST = 1
    """A memfd, sealed against shrinking and growing."""
    OPAQUE = 2
    """A driver's own descriptor (opaque fd, dma-buf)."""
