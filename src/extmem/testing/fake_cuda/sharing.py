"""What the fake driver's memory is shared by: memory files by fd on Linux, sections by NT handle on Windows."""

from __future__ import annotations

import sys

__all__ = ["KIND", "POSIX", "abandon", "created", "exported", "external", "imported", "kernel_objects"]

if sys.platform == "win32":
    from extmem.testing.fake_cuda._nt import (
        KIND,
        abandon,
        created,
        exported,
        external,
        imported,
        kernel_objects,
    )
else:
    from extmem.testing.fake_cuda._fds import (
        KIND,
        abandon,
        created,
        exported,
        external,
        imported,
        kernel_objects,
    )

POSIX = sys.platform != "win32"
"""Whether it is POSIX descriptors."""
