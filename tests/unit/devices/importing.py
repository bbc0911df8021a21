"""Imports straight from a backend, as the layers above make them: examine the fd, then import it."""

from __future__ import annotations

from typing import Any

from extmem.devices.resources import NativeResource
from extmem.devices.types import ExaminedFd, ImportRequest
from extmem.sharing.payload import PayloadFd

__all__ = ["import_fd", "import_payload", "import_unchecked"]


def import_fd(
    backend: Any,
    fd: int,
    size: int,
    memory_type: int = 0,
    *,
    handle_type: int = 1,
    dedicated: NativeResource | None = None,
    trusted: bool = False,
) -> Any:
    """`Backend.import_fd` of an fd, which stays the caller's."""
    examined = backend.examine_fd(fd, int(handle_type), trusted=trusted)
    return backend.import_fd(ImportRequest(examined, size, memory_type, dedicated))


def import_payload(backend: Any, payload: PayloadFd, size: int, memory_type: int, capacity: int) -> Any:
    """`Backend.import_payload`. The allocation owns the payload on success."""
    return backend.import_payload(ImportRequest(payload, size, memory_type, capacity=capacity))


def import_unchecked(backend: Any, fd: int, size: int, memory_type: int, handle_type: int = 1) -> Any:
    """What a Vulkan driver itself does with an fd: nothing is checked before it."""
    return backend.memories.import_fd(ImportRequest(ExaminedFd(fd, int(handle_type), "file"), size, memory_type))
