"""The system's part of channels: the control page, its locks, and the lock of the writer. This module selects it."""

from __future__ import annotations

import sys

__all__ = ["HAS_GPU_FRAMES", "WriterLock", "locks_of", "publish"]

if sys.platform == "win32":
    from extmem.channel.windows_parts import HAS_GPU_FRAMES, WriterLock, locks_of, publish
else:
    from extmem.channel.linux_parts import HAS_GPU_FRAMES, WriterLock, locks_of, publish
