"""Sharing on Linux: memory files, which are shared by fd."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

if sys.platform != "linux":
    raise ImportError("memory files are Linux's; on Windows the fake driver shares sections")

from extmem.testing.fake_cuda.machine import Refusal
from extmem.testing.fake_vulkan.payloads import FilePayload, Tag, read_tag

if TYPE_CHECKING:
    from extmem.testing.fake_cuda.machine import FakeCuda
    from extmem.testing.fake_cuda.objects import Gpu
    from extmem.testing.fake_vulkan.sync_pages import SyncPage

__all__ = ["KIND", "abandon", "created", "exported", "external", "imported", "kernel_objects", "semaphore_page"]

KIND = 1
"""CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR."""
_OPAQUE_FD = 1
_NOT_SUPPORTED = 801


def created(fake: FakeCuda, gpu: Gpu, size: int, properties: Any) -> FilePayload:
    """Make new memory. Errors: OSError."""
    if int(properties.win32HandleMetaData):
        raise fake.wrong("win32HandleMetaData is given, and the handle type is not a Win32 handle")
    return FilePayload.new(Tag(gpu.uuid, gpu.driver_uuid, size, 0, ""))


def exported(payload: FilePayload) -> int:
    """Return a new fd, which like CUDA's is not close-on-exec. Errors: OSError."""
    fd = os.dup(payload.fd)
    os.set_inheritable(fd, True)
    return fd


def imported(handle: int) -> FilePayload | None:
    """Return the memory of an fd, which stays the caller's; None if no fake made it. Errors: OSError."""
    return FilePayload(os.dup(handle)) if read_tag(handle) is not None else None


def external(fake: FakeCuda, description: Any) -> FilePayload | None:
    """Return the memory of an import; None if no fake made it. It owns the caller's fd, unless it is abandoned."""
    if int(description.type) != _OPAQUE_FD:
        raise Refusal(_NOT_SUPPORTED)
    fd = int(description.handle.fd)
    return FilePayload(fd) if read_tag(fd) is not None else None


def abandon(payload: FilePayload) -> None:
    """Release the payload of a failed import: the fd stays the caller's."""


def kernel_objects() -> contextlib.AbstractContextManager[None]:
    """Return a context manager that does nothing: extmem calls the kernel itself."""
    return contextlib.nullcontext()


def semaphore_page(numbered: bool, handle: int, name: str | None) -> SyncPage | None:
    """Return None: on Linux no driver has NT handles, numbers or names of semaphores."""
    return None
