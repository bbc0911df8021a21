"""Forged payloads: memory files that look like a driver's. For the drivers of Linux."""

from __future__ import annotations

import os

from extmem.devices.vulkan.driver import VulkanDriver
from extmem.errors import ExtmemError
from tests.unit.devices.vulkan.steps import FD, SIZE, allocate

__all__ = ["memory_file", "of_our_kind", "takes_any_content"]


def memory_file(name: str, size: int, content: bytes = b"") -> int:
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    os.pwrite(fd, content, 0)
    return fd


def of_our_kind(driver: VulkanDriver, size: int) -> tuple[int, int]:
    """A payload's fd, and a forgery: another memory file of the same name. Skips nothing: others forge by copying."""
    memory = allocate(driver, size)
    fd = driver.export_fd(memory).take()
    memory.close()
    link = os.readlink(f"/proc/self/fd/{fd}")
    name = link.removeprefix("/memfd:").removesuffix(" (deleted)")
    return fd, memory_file(name, os.fstat(fd).st_size, os.urandom(64)) if link.startswith("/memfd:") else -1


def takes_any_content(driver: VulkanDriver) -> bool:
    """Whether a payload is nothing but its bytes, as SwiftShader's; Mesa's begins with what it looks at again."""
    fd, forged = of_our_kind(driver, SIZE)
    if forged < 0:
        os.close(fd)
        return False
    victim = driver.another()
    try:
        victim.import_unexamined(forged, SIZE, 0, int(FD), None).close()
    except ExtmemError:
        assert not driver.name.startswith("SwiftShader")
        return False
    finally:
        victim.close()
        os.close(fd)
        os.close(forged)
    assert not driver.name.startswith("llvmpipe")
    return True
