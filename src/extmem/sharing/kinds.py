"""What a payload's file descriptor is, and how a payload is shared."""

from __future__ import annotations

from enum import IntEnum, IntFlag

__all__ = ["Kind", "Share"]


class Kind(IntEnum):
    """What a payload's file descriptor is."""

    HOST = 1
    """A memfd, sealed against shrinking and growing."""
    OPAQUE = 2
    """A driver's own descriptor (opaque fd, dma-buf)."""


class Share(IntFlag):
    """How a payload is shared through the object manager: exactly one of the two for its whole life (B61)."""

    NT = 1
    KMT = 2
