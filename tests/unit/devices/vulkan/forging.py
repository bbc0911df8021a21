"""Forged payloads: memory files that resemble a driver's. For the drivers of Linux."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable

from extmem.devices.vulkan.backend import VulkanBackend
from extmem.devices.vulkan.file_kind import seals_of
from extmem.errors import ExtmemError
from tests.unit.devices.importing import import_unchecked
from tests.unit.devices.vulkan.steps import SIZE, allocate

__all__ = ["memory_file", "of_our_kind", "takes_any_content"]


def memory_file(name: str, size: int, content: bytes = b"") -> int:
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    os.pwrite(fd, content, 0)
    return fd


def of_our_kind(
    backend: VulkanBackend, size: int, change: Callable[[int], object] | None = None, *, sealed: bool = True
) -> tuple[int, int]:
    """Return a payload's fd, and that of a forgery: another memory file with the payload's name, content and seals.

    change: called with the forgery's fd before it is sealed; None for one that begins with random bytes. The forgery is
        -1 where payloads are not memory files, which cannot be forged.
    """
    memory = allocate(backend, size)
    fd = backend.export_fd(memory).take()
    memory.close()
    link = os.readlink(f"/proc/self/fd/{fd}")
    if not link.startswith("/memfd:"):
        return fd, -1
    name = link.removeprefix("/memfd:").removesuffix(" (deleted)")
    length = os.fstat(fd).st_size
    forged = memory_file(name, length, os.pread(fd, length, 0))
    if change is None:
        os.pwrite(forged, os.urandom(64), 0)
    else:
        change(forged)
    if sealed:
        fcntl.fcntl(forged, fcntl.F_ADD_SEALS, seals_of(fd) or 0)
    return fd, forged


def takes_any_content(backend: VulkanBackend) -> bool:
    """Return whether a payload has no bytes of the driver, as in SwiftShader; Mesa's begins with some that it reads."""
    fd, forged = of_our_kind(backend, SIZE)
    if forged < 0:
        os.close(fd)
        return False
    victim = VulkanBackend(backend.device.physical)
    try:
        import_unchecked(victim, forged, SIZE, 0).close()
    except ExtmemError:
        assert not backend.name.startswith("SwiftShader")
        return False
    finally:
        victim.close()
        os.close(fd)
        os.close(forged)
    assert not backend.name.startswith("llvmpipe")
    return True
