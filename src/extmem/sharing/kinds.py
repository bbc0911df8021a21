"""Kinds of shareable objects, what a payload's handles are, and how a payload is shared."""

from __future__ import annotations

from enum import IntEnum, IntFlag

__all__ = ["Backing", "ObjectKind", "PageRole", "Share"]


class ObjectKind(IntEnum):
    """The kind of a shareable object: which type of kernel object it is on Windows, and which rights exist on it."""

    MEMORY = 1
    SEMAPHORE = 2
    """A semaphore, binary or timeline: its descriptor says which."""
    FENCE = 3
    """A fence. Its type of kernel object is that of semaphores; the kind distinguishes them."""


class Backing(IntEnum):
    """What the handles of a payload are: file descriptors on Linux, NT handles on Windows."""

    HOST_FILE = 1
    """A memory file: a memfd that is sealed against shrinking and growing, or a section. A timeline of the host is one
    too (`sharing.timeline_page`)."""
    DRIVER_FD = 2
    """A handle that a driver created: an opaque fd, a dma-buf, an NT handle of a driver's object."""
    HOST_EVENT = 3
    """A binary semaphore or a fence of the host: an eventfd, or an NT handle of an event or a semaphore."""


class PageRole(IntEnum):
    """What a companion page of memory is for. A descriptor lists the roles of the pages, in their order."""

    CONTROL = 1
    """The counters of in-place changes: importers read it, and the one that updates writes to it."""
    TABLE = 2
    """The table of the named arrays in the payload. Nobody writes to it after the export."""
    LIFELINE = 3
    """The write end of a pipe, of memory that a framework has lent: the pipe ends when nobody has the payload any more.
    No bytes are written to it.
    """


class Share(IntFlag):
    """How a payload is shared through the object manager: exactly one of the two for its whole life (B61)."""

    NT = 1
    KMT = 2
