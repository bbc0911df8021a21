"""Sharing on Linux: memory files, by fd."""

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
    from extmem.testing.fake_cuda.things import Gpu

__all__ = ["KIND", "abandon", "created", "exported", "external", "imported", "kernel_objects"]

KIND = 1
"""CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR."""
_OPAQUE_FD = 1
_NOT_SUPPORTED = 801


def created(fake: FakeCuda, gpu: Gpu, size: int, properties: Any) -> FilePayload:
    """New memory. Errors: OSError."""
    if int(properties.win32HandleMetaData):
        raise fake.wrong("win32HandleMetaData is given for what is no Win32 handle")
    return FilePayload.new(Tag(gpu.uuid, gpu.driver_uuid, size, 0, ""))


def exported(payload: FilePayload) -> int:
    """A new fd. As CUDA's, it is not close-on-exec. Errors: OSError."""
    fd = os.dup(payload.fd)
    os.set_inheritable(fd, True)
    return fd


def imported(handle: int) -> FilePayload | None:
    """The memory behind an fd, which stays the caller's; None for what no fake made. Errors: OSError."""
    return FilePayload(os.dup(handle)) if read_tag(handle) is not None else None


def external(fake: FakeCuda, description: Any) -> FilePayload | None:
    """The memory that an import leads to; None for what no fake made. The caller's fd is its, unless abandoned."""
    if int(description.type) != _OPAQUE_FD:
        raise Refusal(_NOT_SUPPORTED)
    fd = int(description.handle.fd)
    return FilePayload(fd) if read_tag(fd) is not None else None


def abandon(payload: FilePayload) -> None:
    """The import fails: the fd is the caller's again."""


def kernel_objects() -> contextlib.AbstractContextManager[None]:
    """Nothing stands between the kernel and extmem here."""
    return contextlib.nullcontext()
