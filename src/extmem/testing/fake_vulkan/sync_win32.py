"""Sharing of semaphores and fences on Windows: VK_KHR_external_semaphore_win32 and VK_KHR_external_fence_win32.

How this works. As for memory (`win32`): a payload that is exported as an NT type is a section with exactly the name
that the program gave, and one with a KMT number is a section whose name contains the number. A timeline that is
exported by number crashes some drivers; here that is a misuse. A fence of Direct3D 12 is a page of a timeline.
"""

from __future__ import annotations

import ctypes
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
from extmem.objects import OBJECT_TYPES
from extmem.sharing.kinds import ObjectKind
from extmem.testing.fake_vulkan.machine import Refusal
from extmem.testing.fake_vulkan.objects import Device, Fence, Semaphore, Share, SyncObject
from extmem.testing.fake_vulkan.sync_pages import PAYLOAD_NAME, SyncPage
from extmem.testing.fake_vulkan.sync_sections import CASELESS
from extmem.vk.abi import ffi

if TYPE_CHECKING:
    from extmem.testing.fake_vulkan.machine import FakeVulkan

__all__ = ["created", "make_d3d12_fence", "open_sync"]

Result = vk.Result
_HandleType = vk.ExternalSemaphoreHandleTypeFlagBits
_NT, _KMT, _D3D12 = int(_HandleType.OPAQUE_WIN32), int(_HandleType.OPAQUE_WIN32_KMT), int(_HandleType.D3D12_FENCE)
_NO_MEMORY = int(Result.ERROR_OUT_OF_HOST_MEMORY)
_TOO_MANY = int(Result.ERROR_TOO_MANY_OBJECTS)
_TEMPORARY = 1
_SLOTS = 1 << 24
_TOP, _GLOBAL = 0xC000_0000, 0b10
_IMPORTABLE = int(vk.ExternalSemaphoreFeatureFlagBits.IMPORTABLE)


# Export.


def created(fake: FakeVulkan, device: Device, info: Any, kind: str, number: int) -> tuple[SyncPage, Share | None, int]:
    """Return the payload of a new object, made with the name and security of the call, its share and KMT number."""
    word = "fence" if kind == "fence" else "semaphore"
    export: Any = vk.find(info, vk.ExportFenceCreateInfo if word == "fence" else vk.ExportSemaphoreCreateInfo)
    types = int(export.handle_types) if export is not None else 0
    if types and f"VK_KHR_external_{word}_win32" not in device.extensions:
        fake.misuse(f"a {word} is exported as a Win32 handle on a device without VK_KHR_external_{word}_win32")
    if kind == "timeline" and types & _KMT:
        fake.misuse("a timeline is exported by KMT number, which crashes drivers")
    stated: Any = vk.find(
        info, vk.ExportFenceWin32HandleInfoKHR if word == "fence" else vk.ExportSemaphoreWin32HandleInfoKHR
    )
    if stated is not None and not types & (_NT | _D3D12):
        fake.misuse(f"VkExport{word.capitalize()}Win32HandleInfoKHR is chained, and no NT type is among the types")
    uuids = device.gpu.device_uuid, device.gpu.driver_uuid
    try:
        if types & _KMT:
            kmt, page = _numbered(kind, number, uuids, types)
            return page, None, kmt
        if types & (_NT | _D3D12):
            return *_shared(fake, stated, kind, number, uuids, types), 0
        return SyncPage.new(kind, number, *uuids), None, 0
    except OSError:
        raise Refusal(_NO_MEMORY) from None


def _shared(
    fake: FakeVulkan, stated: Any, kind: str, number: int, uuids: tuple[bytes, bytes], types: int
) -> tuple[SyncPage, Share]:
    share, security, path = Share(stated is not None), 0, PAYLOAD_NAME
    if stated is not None:
        share.name, share.access = stated.name, int(stated.access)
        attributes = stated.attributes
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
        return SyncPage.new(kind, number, *uuids, name=path, security=security, types=types), share
    except StatusError:
        raise Refusal(_NO_MEMORY) from None


def _numbered(kind: str, number: int, uuids: tuple[bytes, bytes], types: int) -> tuple[int, SyncPage]:
    """Make a payload with an unused number."""
    while True:
        kmt = secrets.randbelow(_SLOTS) << 6 | _TOP | _GLOBAL
        try:
            return kmt, SyncPage.new(kind, number, *uuids, name=_number_path(kmt), types=types)
        except StatusError:
            continue


def _number_path(number: int) -> str:
    return f"{names.session_directory(calls.session(os.getpid()))}{PAYLOAD_NAME} {number:08x}"


def vkGetSemaphoreWin32HandleKHR(fake: FakeVulkan, handle: Any, info: Any, out: Any) -> int:
    """Return a new NT handle, in the first call only; or the KMT number, in any call."""
    semaphore = fake.get(info.semaphore, Semaphore, fake.get(handle, Device))
    return _exported(fake, semaphore, int(info.handleType), out)


def vkGetFenceWin32HandleKHR(fake: FakeVulkan, handle: Any, info: Any, out: Any) -> int:
    """As vkGetSemaphoreWin32HandleKHR."""
    fence = fake.get(info.fence, Fence, fake.get(handle, Device))
    return _exported(fake, fence, int(info.handleType), out)


def _exported(fake: FakeVulkan, item: SyncObject, kind: int, out: Any) -> int:
    if kind.bit_count() != 1 or not item.export_types & kind or item.import_type:
        if fake.manners.gives_null:
            fake.misuse(f"{item} is exported as type {kind:#x}, which it was not made for")
            out[0] = ffi.NULL
            return 0
        raise fake.wrong(f"{item} was not made to be exported as type {kind:#x}")
    item.permanent.shared = True
    if kind == _KMT:
        out[0] = ffi.cast("HANDLE", item.kmt)
        return 0
    share = item.share or Share(False)
    item.share = share
    share.given += 1
    if share.given > 1:
        fake.misuse(f"{item} is exported as NT handle again (01127, 01449)")
        if fake.manners.same_handle_twice:
            out[0] = ffi.cast("HANDLE", share.first)
            return 0
    all_rights = OBJECT_TYPES[ObjectKind.SEMAPHORE].all
    granted = rights.asked(share.access, ObjectKind.SEMAPHORE) if share.stated else all_rights
    flags = calls.OBJ_INHERIT if share.inherit else 0
    try:
        share.first = calls.duplicate(item.permanent.fd, rights.TIMELINE.to_kernel(granted), flags)
    except StatusError:
        raise Refusal(_TOO_MANY) from None
    out[0] = ffi.cast("HANDLE", share.first)
    return 0


# Import.


def vkImportSemaphoreWin32HandleKHR(fake: FakeVulkan, handle: Any, info: Any) -> int:
    """Import a payload. The handle stays the caller's."""
    semaphore = fake.get(info.semaphore, Semaphore, fake.get(handle, Device))
    return _imported(fake, semaphore, info)


def vkImportFenceWin32HandleKHR(fake: FakeVulkan, handle: Any, info: Any) -> int:
    """As vkImportSemaphoreWin32HandleKHR."""
    return _imported(fake, fake.get(info.fence, Fence, fake.get(handle, Device)), info)


def _kind(item: SyncObject) -> str:
    return "fence" if isinstance(item, Fence) else "timeline" if getattr(item, "timeline", False) else "binary"


def _imported(fake: FakeVulkan, item: SyncObject, info: Any) -> int:
    device, kind, temporary = item.parent, int(info.handleType), bool(int(info.flags) & _TEMPORARY)
    value = int(ffi.cast("uintptr_t", info.handle))
    name = _text(info.name)
    found = device.gpu.says_of_sync(_kind(item), kind)
    if found is None or not found.features & _IMPORTABLE:
        raise fake.wrong(f"type {kind:#x} is imported into {item}, and cannot be", fake.manners.handle_errors)
    if _kind(item) == "timeline" and (temporary or kind == _KMT):
        fake.misuse(f"{item} is a timeline, and the import is temporary or by KMT number")
    if (name is None) == (not value) or (name is not None and kind == _KMT):
        fake.misuse(f"handle {value:#x} and name {name!r} are given for type {kind:#x}, and one of the two is needed")
    opened = open_sync(kind, value, name)
    page = SyncPage.from_fd(opened) if opened else None
    if page is None:
        if opened:
            calls.close_handle(opened)
        return _refused(fake, item, f"{value:#x}" if name is None else repr(name))
    uuids = device.gpu.device_uuid, device.gpu.driver_uuid
    fits = page.kind == _kind(item) or (page.kind == "timeline" and kind == _D3D12 and _kind(item) == "binary")
    silent = fake.manners.any_semaphore_type and "fence" not in (page.kind, _kind(item))
    compatible = page.types & (kind | _D3D12 | _NT if page.kind == "timeline" else kind)
    if (page.device_uuid, page.driver_uuid) != uuids or not compatible or not (fits or silent):
        what = f"the payload of a {page.kind} with types {page.types:#x}"
        page.close()
        return _refused(fake, item, what)
    item.replace(page, kind, temporary=temporary)
    return 0


def _refused(fake: FakeVulkan, item: SyncObject, what: str) -> int:
    fake.bad_imports.append((item.parent.number, f"{what} is imported into {item}"))
    raise Refusal(fake.manners.handle_errors)


def _text(pointer: Any) -> str | None:
    """Return a UTF-16 string of C."""
    if pointer == ffi.NULL:
        return None
    return ctypes.wstring_at(int(ffi.cast("uintptr_t", pointer)))


def open_sync(kind: int, value: int, name: str | None) -> int:
    """Open a payload of this Vulkan type with a handle of the driver's own; 0 where it does not exist."""
    try:
        if name is not None:
            path = names.resolve(name, calls.session(os.getpid())).display
            return sections.open_named(path, sections.ALL, CASELESS)
        if kind == _KMT:
            return sections.open_named(_number_path(value & 0xFFFF_FFFF), sections.ALL, CASELESS)
        return calls.duplicate(value, options=calls.SAME_ACCESS)
    except (ObjectManagerError, StatusError):
        return 0


def make_d3d12_fence(fake: FakeVulkan, value: int = 0, *, name: str | None = None, gpu: int = 0) -> SyncPage:
    """Make a fence as Direct3D 12 shares it. `fd` is an NT handle of the result, which the caller closes.

    name: the NT name; None for none. gpu: the index of the GPU.
    """
    path = names.resolve(name, calls.session(os.getpid())).display if name is not None else PAYLOAD_NAME
    owner = fake.gpus[gpu]
    return SyncPage.new("timeline", value, owner.device_uuid, owner.driver_uuid, name=path, types=_D3D12)
