"""Hostile files and descriptors: how one is drawn, and how it is imported.

How this works. `drawn` makes the fields of one; `imported` allocates memory of the driver, takes its file, or forges
another memory file with the same name, seals and content, changes it as the fields state, and imports it as the fields
state. An import is refused with an error, or returns memory whose bytes can be read. A process that ends is a finding.

Two things are not drawn, because nothing can prevent their effect (SECURITY.md): a change after the import was checked,
and truncation of a file that the driver itself does not seal. Therefore what was written to the exporter's own file is
undone before its memory is freed.
"""

from __future__ import annotations

import fcntl
import os
import stat
from typing import Any

import extmem
from extmem import raw, vk
from extmem.api import Device
from extmem.devices.vulkan.file_kind import seals_of
from extmem.sharing.descriptor import Descriptor
from tests.arbitrary.values import Draw

__all__ = ["BASES", "FORMS", "drawn", "imported"]

FD = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD
BASES = ("own", "forged", "unsealed", "renamed", "empty", "null", "pipe", "closed")
FORMS = ("raw", "stated", "sized", "described")
"""How an fd is imported: as a number, with a stated descriptor (also of its size), or as an `FdHandle`."""
_WORDS = (0, 1, 8, 16, 4095, 4096, 4097, 1 << 16, 1 << 20, 1 << 31, 1 << 40, 1 << 63, (1 << 64) - 1)
_PLACES = (0, 8, 16, 24, 32, 64, 4080, 4088, -8, -16, -4096)
_SIZES = (64, 4096, 65_536, 100_000)


def drawn(draw: Draw) -> dict[str, Any]:
    """Return the fields of one, as JSON."""
    size = draw.choice(_SIZES)
    return {
        "base": draw.choice((*BASES, "forged", "forged", "own")),
        "form": draw.choice(FORMS),
        "size": size,
        "stated": draw.choice((size, size, size, 0, 1, size - 1, size + 1, 2 * size, size + 4096, 1 << 40, 1 << 63)),
        "index": draw.choice((0, 0, 0, 1, 31)),
        "words": [[draw.choice(_PLACES), draw.choice(_WORDS)] for _ in range(draw.choice((0, 1, 1, 2)))],
        "length": draw.choice((0, 0, 0, -1, -4096, 1, 4096, -(1 << 20))),
    }


def imported(
    device: Device, base: str, form: str, size: int, stated: int, index: int, words: list[list[int]], length: int
) -> None:
    """Import one, read from it, and close it. Errors: those that an import may raise."""
    with device.allocate_memory(vk.MemoryAllocateInfo(size, 0, vk.ExportMemoryAllocateInfo(FD))) as memory:
        own = memory.export_handle(FD)
        try:
            before = _content(own.fileno()) if base == "own" else b""
            fd = _made(own.fileno(), base, words, length)
        finally:
            own.close()
        try:
            _import(device, fd, form, memory, stated, index)
        finally:
            if before:  # the driver reads its file once more when the exporter's memory is freed
                os.pwrite(fd, before, 0)
            if fd >= 0 and base != "closed":
                os.close(fd)


def _content(own: int) -> bytes:
    """Return the bytes of a regular file; empty for any other."""
    return os.pread(own, os.fstat(own).st_size, 0) if stat.S_ISREG(os.fstat(own).st_mode) else b""


def _made(own: int, base: str, words: list[list[int]], length: int) -> int:
    """Return the fd of the file; the caller closes it."""
    if base == "null":
        return os.open("/dev/null", os.O_RDWR)
    if base == "pipe":
        here, there = os.pipe()
        os.close(there)
        return here
    if base == "closed":
        fd = os.dup(own)
        os.close(fd)
        return fd
    link = os.readlink(f"/proc/self/fd/{own}")
    whole = os.fstat(own).st_size
    if base == "own" or not link.startswith("/memfd:"):
        fd = os.dup(own)
    else:
        name = "another" if base == "renamed" else link.removeprefix("/memfd:").removesuffix(" (deleted)")
        fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, 0 if base == "empty" else max(0, whole + length))
        os.pwrite(fd, os.pread(own, min(whole, os.fstat(fd).st_size), 0), 0)
    for at, word in words:
        # After the end of a file nothing can be written; a sealed file refuses to grow.
        if 0 <= (place := at % max(1, whole)) <= os.fstat(fd).st_size - 8:
            os.pwrite(fd, word.to_bytes(8, "little"), place)
    if base in ("forged", "renamed", "empty") and link.startswith("/memfd:"):
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals_of(own) or 0)
    return fd


def _import(device: Device, fd: int, form: str, memory: extmem.DeviceMemory, stated: int, index: int) -> None:
    info = vk.MemoryAllocateInfo(stated, index, vk.ImportMemoryFdInfoKHR(FD, -1))
    copy = os.dup(fd) if form != "described" and _is_open(fd) else -1
    try:
        if form == "raw":
            info.p_next = vk.ImportMemoryFdInfoKHR(FD, copy if copy >= 0 else fd)
            made = device.allocate_memory(info)
        elif form == "described":  # as a process of the same user would send it, with a false description
            with memory.export_handle(FD) as handle:
                if _is_open(fd):
                    os.dup2(fd, handle.fileno(), inheritable=False)
                made = device.open(handle)
        else:
            claims = Descriptor(
                handle_types=int(FD),
                allocation_size=stated,
                memory_type_index=index,
                payload_size=stated if form == "sized" else 0,
                device_uuid=device.uuid,
                driver_uuid=device.identity.driver_uuid,
            )
            made = raw.import_payload(device, copy if copy >= 0 else fd, claims)
    except BaseException:
        if copy >= 0:
            os.close(copy)
        raise
    with made:
        made.read_bytes(0, 4)
        made.read_bytes(max(0, made.size - 4), min(4, made.size))


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
