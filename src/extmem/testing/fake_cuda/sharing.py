"""What the fake driver's memory and semaphores are made of, and shared by: memory files and fds on Linux, sections and
NT handles on Windows. This module chooses.
"""

from __future__ import annotations

import sys

__all__ = [
    "KIND",
    "POSIX",
    "Span",
    "abandon",
    "created",
    "exported",
    "external",
    "imported",
    "kernel_objects",
    "place",
    "reserve",
    "semaphore_page",
]

if sys.platform == "win32":
    from extmem.testing.fake_cuda._nt import (
        KIND,
        abandon,
        created,
        exported,
        external,
        imported,
        kernel_objects,
        semaphore_page,
    )
    from extmem.testing.fake_cuda._views import Span, place, reserve
else:
    from extmem.testing.fake_cuda._fds import (
        KIND,
        abandon,
        created,
        exported,
        external,
        imported,
        kernel_objects,
        semaphore_page,
    )
    from extmem.testing.fake_cuda._mappings import Span, place, reserve

POSIX = sys.platform != "win32"
"""Whether it is shared by POSIX file descriptors."""
