"""What a fake driver's payloads are made of, and how they are shared, chosen here for the operating system."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

__all__ = ["FilePayload", "dma_buf_size", "own_objects", "read_tag", "sharing"]

if sys.platform == "win32":
    from extmem.testing.fake_vulkan.sections import FilePayload, read_tag

    def dma_buf_size(fd: int) -> int | None:
        """Return None: Windows has no dma-bufs."""
        return None

    def own_objects() -> contextlib.AbstractContextManager[None]:
        """Within the block a fake's sections represent the kernel objects that drivers make."""
        from extmem.manager.windows import driver_memory
        from extmem.testing.fake_vulkan.sections import SectionObjects

        return driver_memory.stood_in_by(SectionObjects())

    def sharing() -> Any:
        """Return the module with the commands that share memory."""
        from extmem.testing.fake_vulkan import win32

        return win32

else:
    from extmem.testing.fake_vulkan.files import FilePayload, dma_buf_size, read_tag

    def own_objects() -> contextlib.AbstractContextManager[None]:
        """Within the block certain memory files represent dma-bufs, which only drivers can make."""
        from extmem.devices.vulkan import dma_buf

        return dma_buf.replaced_by(dma_buf_size)

    def sharing() -> Any:
        """Return the module with the commands that share memory."""
        from extmem.testing.fake_vulkan import fds

        return fds
