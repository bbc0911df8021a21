"""Sharing on Windows: NT handles, names and KMT numbers, as VK_KHR_external_memory_win32 specifies them.

How this works. A payload that is exported as an NT type is a section with exactly the name that the program gave; one
with a KMT number is a section whose name contains the number, so that it ends with the last memory object. The
parameters of an export are read during the call, as by a driver, and recorded in `FakeVulkan.shares`.
"""

from __future__ import annotations

import os
import secrets
import sys
from typing import TYPE_CHECKING, Any

if sys.platform != "win32":
    raise ImportError("NT handles are Windows's; on Linux the fake driver has fds")

from extmem import vk
from extmem.errors import ObjectManagerError
from extmem.handles._win32 import calls, sections
from extmem.handles._win32.calls import StatusError
from extmem.manager.windows import names, rights
from extmem.manager.windows.security_descriptors import sddl_from
from extmem.objects import MEMORY
from extmem.testing.fake_vulkan.gpus import PAYLOAD_NAME
from extmem.testing.fake_vulkan.import_check import check_match
from extmem.testing.fake_vulkan.machine import Refusal
from extmem.testing.fake_vulkan.objects import Device, Memory, Resource, Share, Source
from extmem.testing.fake_vulkan.payloads import FilePayload, Tag, read_tag
from extmem.testing.fake_vulkan.sections import CASELESS
from extmem.vk.abi import ffi
from extmem.vk.handle_types import BY_NUMBER, SIZED_BY_D3D

if TYPE_CHECKING:
    from extmem.testing.fake_vulkan.machine import FakeVulkan

__all__ = ["created", "imported", "make_texture", "number_of", "open_shared"]

Result = vk.Result
HandleType = vk.ExternalMemoryHandleTypeFlagBits
_NT, _KMT = int(HandleType.OPAQUE_WIN32), int(HandleType.OPAQUE_WIN32_KMT)
_OPAQUE = _NT | _KMT
_NO_MEMORY = int(Result.ERROR_OUT_OF_DEVICE_MEMORY)
_TOO_MANY = int(Result.ERROR_TOO_MANY_OBJECTS)
_SLOTS = 1 << 24
_TOP, _GLOBAL = 0xC000_0000, 0b10  # the top bits differ from those of extmem's numbers: both are legal (B51)


# Export.


def created(
    fake: FakeVulkan, device: Device, info: vk.MemoryAllocateInfo, size: int, kind: int, dedicated: Resource | None
) -> Source:
    """Make the payload of new memory, with the name and security of the call."""
    export = vk.find(info, vk.ExportMemoryAllocateInfo)
    types = int(export.handle_types) if export is not None else 0
    alone = type(dedicated).__name__ if dedicated is not None else ""
    tag = Tag(device.gpu.device_uuid, device.gpu.driver_uuid, size, kind, alone, types)
    if types & _OPAQUE and "VK_KHR_external_memory_win32" not in device.extensions:
        fake.misuse("memory is exported as a Win32 handle on a device without VK_KHR_external_memory_win32")
    win32_info = vk.find(info, vk.ExportMemoryWin32HandleInfoKHR)
    if win32_info is not None and not types & _NT:
        fake.misuse("VkExportMemoryWin32HandleInfoKHR is chained, and OPAQUE_WIN32 is not among the export types")
    try:
        if types & _KMT:
            number, payload = _numbered(tag)
            return Source(payload, size, kmt=number)
        if types & _NT:
            return _shared(fake, win32_info, tag)
        return Source(FilePayload.new(tag), size)
    except OSError:
        raise Refusal(_NO_MEMORY) from None


def _shared(fake: FakeVulkan, win32_info: vk.ExportMemoryWin32HandleInfoKHR | None, tag: Tag) -> Source:
    share, security, path = Share(win32_info is not None), 0, None
    if win32_info is not None:
        share.name, share.access = win32_info.name, int(win32_info.access)
        attributes = win32_info.attributes
        if attributes is not None:
            share.attributes, share.inherit = True, attributes.inherit_handle
            security = attributes.security_descriptor if isinstance(attributes.security_descriptor, int) else 0
            share.sddl = sddl_from(security) if security else None
    if fake.remembers:
        fake.shares.append(share)
    if share.name is not None:
        try:
            path = names.resolve(share.name, calls.session(os.getpid())).display
        except ObjectManagerError:
            raise fake.wrong(f"{share.name!r} is no name", fake.manners.handle_errors) from None
    try:
        return Source(FilePayload.new(tag, path, security), tag.size, share=share)
    except StatusError:
        raise Refusal(fake.manners.handle_errors) from None


def _numbered(tag: Tag) -> tuple[int, FilePayload]:
    """Make a payload with an unused number."""
    while True:
        number = secrets.randbelow(_SLOTS) << 6 | _TOP | _GLOBAL
        try:
            return number, FilePayload.new(tag, _number_path(number))
        except StatusError:
            continue


def _number_path(number: int) -> str:
    return f"{names.session_directory(calls.session(os.getpid()))}{PAYLOAD_NAME} {number:08x}"


def vkGetMemoryWin32HandleKHR(fake: FakeVulkan, handle: Any, info: Any, out: Any) -> int:
    """Return a new NT handle, in the first call only; or the KMT number, in any call."""
    memory = fake.get(info.memory, Memory, fake.get(handle, Device))
    kind, payload = int(info.handleType), memory.payload
    if kind.bit_count() != 1 or not memory.export_types & kind or not isinstance(payload, FilePayload):
        if fake.manners.gives_null:
            fake.misuse(f"{memory} is exported as {HandleType(kind)!r}, which it was not made for")
            out[0] = ffi.NULL
            return 0
        raise fake.wrong(f"{memory} was not made to be exported as {HandleType(kind)!r}")
    if kind == _KMT:
        out[0] = ffi.cast("HANDLE", memory.kmt)
        return 0
    share = memory.share or Share(False)
    memory.share = share
    share.given += 1
    if share.given > 1:
        fake.misuse(f"{memory} is exported as NT handle again (VUID-VkMemoryGetWin32HandleInfoKHR-handleType-00663)")
        if fake.manners.same_handle_twice:
            out[0] = ffi.cast("HANDLE", share.first)
            return 0
    granted = rights.asked(share.access) if share.stated else MEMORY.all
    flags = calls.OBJ_INHERIT if share.inherit else 0
    try:
        share.first = calls.duplicate(payload.fd, rights.to_section(granted), flags)
    except StatusError:
        raise Refusal(_TOO_MANY) from None
    out[0] = ffi.cast("HANDLE", share.first)
    return 0


# Import.


def imported(
    fake: FakeVulkan, device: Device, info: vk.MemoryAllocateInfo, size: int, kind: int, dedicated: Resource | None
) -> Source | None:
    """Return the payload of a handle, name or number that is imported; None where the call imports none.

    The handle stays the caller's.
    """
    win32_info = vk.find(info, vk.ImportMemoryWin32HandleInfoKHR)
    if win32_info is None or not win32_info.handle_type:
        return None
    if "VK_KHR_external_memory_win32" not in device.extensions:
        fake.misuse("a Win32 handle is imported on a device without VK_KHR_external_memory_win32")
    handle_type = int(win32_info.handle_type)
    value = win32_info.handle if isinstance(win32_info.handle, int) else 0
    if (win32_info.name is None) == (not value):
        fake.misuse(f"handle {value:#x} and name {win32_info.name!r} are given, and one of the two is needed")
    if win32_info.name is not None and handle_type in BY_NUMBER:
        fake.misuse(f"the name {win32_info.name!r} is given for {HandleType(handle_type)!r}")
    found = _opened(handle_type, value, win32_info.name)
    tag = read_tag(found) if found else None
    if tag is None or not tag.types & handle_type:
        if found:
            calls.close_handle(found)
        what = f"name {win32_info.name!r}" if win32_info.name is not None else f"{value:#x}"
        fake.bad_imports.append((device.number, f"{what} does not lead to a {HandleType(handle_type)!r}"))
        raise Refusal(fake.manners.handle_errors)
    payload = FilePayload(found)
    try:
        _check_import(fake, device, tag, handle_type, size, kind, dedicated)
    except BaseException:
        payload.close()
        raise
    export = vk.find(info, vk.ExportMemoryAllocateInfo)
    number = value if handle_type in BY_NUMBER else 0
    share = Share(False) if export is not None and int(export.handle_types) & _NT else None
    return Source(payload, tag.size if handle_type in SIZED_BY_D3D else size, handle_type, share, number)


def _opened(handle_type: int, value: int, name: str | None) -> int:
    """Open the payload with a handle of the driver's own; 0 where it does not exist."""
    try:
        if name is not None:
            path = names.resolve(name, calls.session(os.getpid())).display
            return _by_path(path)
        if handle_type in BY_NUMBER:
            return _by_path(_number_path(value & 0xFFFF_FFFF))
        return calls.duplicate(value, options=calls.SAME_ACCESS)
    except (ObjectManagerError, StatusError):
        return 0


def _by_path(path: str) -> int:
    try:
        return sections.open_named(path, sections.ALL, CASELESS)
    except StatusError:
        return sections.open_named(path, sections.QUERY | sections.MAP_READ, CASELESS)


def _check_import(
    fake: FakeVulkan, device: Device, tag: Tag, handle_type: int, size: int, kind: int, dedicated: Resource | None
) -> None:
    if handle_type & _OPAQUE:
        check_match(fake, device, tag, size, kind, dedicated)
        return
    if handle_type in SIZED_BY_D3D and dedicated is None:
        fake.misuse(f"{HandleType(handle_type)!r} is imported without a dedicated resource")
    if not _type_bits(device) >> kind & 1:
        fake.misuse(f"memory type {kind} is not one that vkGetMemoryWin32HandlePropertiesKHR returns")
    if handle_type == int(HandleType.D3D12_HEAP) and size != tag.size:
        fake.misuse(f"a Direct3D 12 heap of {tag.size} bytes is imported as {size}")


def _type_bits(device: Device) -> int:
    """Return the memory types of Direct3D's memory: those that are device-local."""
    local = int(vk.MemoryPropertyFlagBits.DEVICE_LOCAL)
    return sum(1 << i for i, kind in enumerate(device.gpu.memory_types) if kind.flags & local)


def vkGetMemoryWin32HandlePropertiesKHR(fake: FakeVulkan, handle: Any, kind: int, value: Any, out: Any) -> int:
    """Return the memory types that Direct3D's memory can be imported to."""
    device = fake.get(handle, Device)
    if kind & _OPAQUE:
        raise fake.wrong(f"vkGetMemoryWin32HandlePropertiesKHR must not be called for {HandleType(kind)!r}")
    found = _opened(int(kind), int(ffi.cast("uintptr_t", value)), None)
    tag = read_tag(found) if found else None
    if found:
        calls.close_handle(found)
    if tag is None or not tag.types & kind:
        raise Refusal(fake.manners.handle_errors)
    out.memoryTypeBits = int(kind) if fake.manners.answers_handle_types else _type_bits(device)
    return 0


def open_shared(handle_type: int, value: int, name: str | None) -> int:
    """Open what a handle, name or number leads to, for a fake of CUDA; 0 where it does not exist.

    The caller owns the handle.
    """
    return _opened(handle_type, value, name)


def make_texture(fake: FakeVulkan, handle_type: int, size: int, *, name: str | None = None, gpu: int = 0) -> int:
    """Make memory as Direct3D, or another program than extmem, shares it. Return an NT handle that the caller closes.

    handle_type: one of Direct3D's types, or OPAQUE_WIN32 for memory that another Vulkan program exported; for a …_KMT
        type the handle keeps the number's payload alive, and `number_of` returns the number.
    size: bytes.
    name: the NT name; None for none.
    gpu: the index of the GPU.
    """
    path = names.resolve(name, calls.session(os.getpid())).display if name is not None else None
    owner = fake.gpus[gpu]
    tag = Tag(owner.device_uuid, owner.driver_uuid, size, 0, "", handle_type)
    payload = _numbered(tag)[1] if handle_type in BY_NUMBER else FilePayload.new(tag, path)
    return payload.fd


def number_of(handle: int) -> int:
    """Return the KMT number of memory that `make_texture` made for a …_KMT type."""
    return int(calls.name_of(handle)[-8:], 16)
