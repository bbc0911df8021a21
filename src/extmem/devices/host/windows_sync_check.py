"""The check of a handle of a timeline on Windows. The kernel has checked the types of events and semaphores."""

from __future__ import annotations

import sys

from extmem.devices.types import ExaminedFd
from extmem.handles._win32 import calls, sections
from extmem.manager.windows.section_frame import FRAME
from extmem.sharing import timeline_page as layout
from extmem.vk.handle_types import OPAQUE_FD, MemoryHandleType, SyncHandleType

if sys.platform != "win32":
    raise ImportError("sections are Windows's; extmem.devices.host picks what the platform has")

from typing import cast

__all__ = ["examine", "examine_timeline"]

_SIZE = layout.PAGE_SIZE + FRAME


def examine(fd: int, handle_type: SyncHandleType, *, fence: bool = False, timeline: bool = False) -> ExaminedFd:
    """Return that no fd is a semaphore or a fence: those of the C runtime have no meaning in other processes."""
    what = "a fence" if fence else "a timeline" if timeline else "a binary semaphore"
    return ExaminedFd(
        fd,
        cast("MemoryHandleType", handle_type),
        "other",
        f"fd {fd} cannot be {what}: on Windows they are shared by NT handle or KMT number",
        self_describing=False,
    )


def examine_timeline(handle: int) -> ExaminedFd:
    """Return whether a handle of a section is the payload of a timeline of the host, or a companion page.

    A section cannot become smaller. Its description was checked by the object manager.
    """
    try:
        kind = calls.type_of(handle)
        facts = sections.facts(handle) if kind == "Section" else sections.Facts(0, False)
        writable = bool(calls.basic(handle).granted & sections.MAP_WRITE)
    except calls.StatusError as error:
        return ExaminedFd(handle, OPAQUE_FD, "closed", f"handle {handle:#x} cannot be examined ({error})")
    problem = ""
    if not facts.anonymous or facts.size not in (_SIZE, layout.PAGE_SIZE):
        problem = (
            f"handle {handle:#x} refers to a {kind} of {facts.size} bytes, and a timeline of the host is a section of "
            f"{_SIZE} bytes; pass what was exported from a timeline"
        )
    return ExaminedFd(handle, OPAQUE_FD, "other", problem, facts.size, layout.PAGE_SIZE, 0, writable)
