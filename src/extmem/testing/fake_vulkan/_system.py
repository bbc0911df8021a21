"""What a fake driver's payloads are made of, and how they are shared, chosen here for the operating system."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

__all__ = ["FilePayload", "dma_buf_size", "own_objects", "read_tag", "sharing", "sync_files", "sync_sharing"]

if sys.platform == "win32":
    from extmem.testing.fake_vulkan import sync_sections as sync_files
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

    def sync_sharing() -> tuple[Any, ...]:
        """Return the modules with the commands that share semaphores and fences."""
        from extmem.testing.fake_vulkan import sync_win32

        return (sync_win32,)

else:
    from extmem.testing.fake_vulkan import sync_memfds as sync_files
    from extmem.testing.fake_vulkan.files import FilePayload, dma_buf_size, read_tag

    @contextlib.contextmanager
    def own_objects() -> Iterator[None]:
        """Within the block certain memory files represent dma-bufs and sync_files, which only drivers can make."""
        from extmem.devices.vulkan import dma_buf
        from extmem.devices.vulkan.sync_files import replacements
        from extmem.testing.fake_vulkan.sync_pages import SYNC_FILE_NAME

        link = f"/memfd:{SYNC_FILE_NAME}"
        with dma_buf.replaced_by(dma_buf_size):
            before = link in replacements
            replacements.add(link)
            try:
                yield
            finally:
                if not before:
                    replacements.discard(link)

    def sharing() -> Any:
        """Return the module with the commands that share memory."""
        from extmem.testing.fake_vulkan import fds

        return fds

    def sync_sharing() -> tuple[Any, ...]:
        """Return the modules with the commands that share semaphores and fences."""
        from extmem.testing.fake_vulkan import sync_fds

        return (sync_fds,)
