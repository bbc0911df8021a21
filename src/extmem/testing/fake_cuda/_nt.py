"""Sharing on Windows: sections by NT handle; memory of Vulkan and Direct3D by handle, name and KMT number."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from typing import TYPE_CHECKING, Any

if sys.platform != "win32":
    raise ImportError("sections are Windows's; on Linux the fake driver shares memory files")

from extmem import vk
from extmem.handles._win32 import calls
from extmem.handles._win32.calls import StatusError
from extmem.handles._win32.tables import OBJECT_ATTRIBUTES, advapi32
from extmem.manager.windows import driver_memory
from extmem.manager.windows.security_descriptors import sddl_from
from extmem.testing.fake_cuda.machine import INVALID_VALUE, Refusal
from extmem.testing.fake_vulkan.payloads import FilePayload, Tag, read_tag
from extmem.testing.fake_vulkan.sections import SectionObjects
from extmem.testing.fake_vulkan.sync_pages import SyncPage
from extmem.testing.fake_vulkan.sync_win32 import open_sync
from extmem.testing.fake_vulkan.win32 import open_shared
from extmem.vk.handle_types import BY_NUMBER

if TYPE_CHECKING:
    from extmem.testing.fake_cuda.machine import FakeCuda
    from extmem.testing.fake_cuda.objects import Gpu

__all__ = ["KIND", "abandon", "created", "exported", "external", "imported", "kernel_objects", "semaphore_page"]

KIND = 2
"""CU_MEM_HANDLE_TYPE_WIN32."""
_NOT_SUPPORTED = 801
_Type = vk.ExternalMemoryHandleTypeFlagBits
_KINDS = {
    2: _Type.OPAQUE_WIN32,
    3: _Type.OPAQUE_WIN32_KMT,
    4: _Type.D3D12_HEAP,
    5: _Type.D3D12_RESOURCE,
    6: _Type.D3D11_TEXTURE,
    7: _Type.D3D11_TEXTURE_KMT,
}
"""CUexternalMemoryHandleType."""
_KEPT = 256
_SEMAPHORE = vk.ExternalSemaphoreHandleTypeFlagBits.OPAQUE_WIN32


def created(fake: FakeCuda, gpu: Gpu, size: int, properties: Any) -> FilePayload:
    """Make new memory, with the security descriptor of win32HandleMetaData. Errors: OSError.

    The real driver was observed to read it as OBJECT_ATTRIBUTES: without it there is no shared memory, and anything
    else ends the process. Here that is a misuse.
    """
    shared, address = int(properties.requestedHandleTypes), int(properties.win32HandleMetaData)
    security = 0
    if bool(shared) != bool(address):
        raise fake.wrong(f"win32HandleMetaData is {address:#x} for handle types {shared}")
    if address:
        attributes = OBJECT_ATTRIBUTES.from_address(address)
        if attributes.Length != ctypes.sizeof(OBJECT_ATTRIBUTES) or attributes.RootDirectory or attributes.ObjectName:
            raise fake.wrong("win32HandleMetaData does not point to OBJECT_ATTRIBUTES, or to some with a name")
        security = int(attributes.SecurityDescriptor or 0)
        if not security or not advapi32.IsValidSecurityDescriptor(security):
            raise fake.wrong("OBJECT_ATTRIBUTES::SecurityDescriptor is not a security descriptor")
        fake.security = [*fake.security[-_KEPT:], sddl_from(security)]
    types = int(_Type.OPAQUE_WIN32) if shared else 0
    return FilePayload.new(Tag(gpu.uuid, gpu.driver_uuid, size, 0, "", types), None, security)


def exported(payload: FilePayload) -> int:
    """Return a new NT handle with every right, which the caller closes. Errors: OSError."""
    try:
        return calls.duplicate(payload.fd, options=calls.SAME_ACCESS)
    except StatusError as error:
        raise OSError(str(error)) from error


def imported(handle: int) -> FilePayload | None:
    """Return the memory of an NT handle, which stays the caller's; None if no fake made it. Errors: OSError."""
    tag = read_tag(handle)
    if tag is None or not tag.types & _Type.OPAQUE_WIN32:
        return None
    return FilePayload(open_shared(int(_Type.OPAQUE_WIN32), handle, None))


def external(fake: FakeCuda, description: Any) -> FilePayload | None:
    """Return the memory of an import by handle, number or name; None if no fake made it."""
    kind = _KINDS.get(int(description.type))
    if kind is None:
        raise Refusal(_NOT_SUPPORTED)
    value, at = int(description.handle.win32.handle), int(description.handle.win32.name)
    if bool(value) == bool(at) or (at and int(kind) in BY_NUMBER):
        raise fake.wrong(f"handle {value:#x} and name at {at:#x} are given for {kind!r}", INVALID_VALUE)
    handle = open_shared(int(kind), value, ctypes.wstring_at(at) if at else None)
    tag = read_tag(handle) if handle else None
    if handle and (tag is None or not tag.types & kind):
        calls.close_handle(handle)
        handle = 0
    return FilePayload(handle) if handle else None


def abandon(payload: FilePayload) -> None:
    """Release the payload of a failed import."""
    payload.close()


def kernel_objects() -> contextlib.AbstractContextManager[None]:
    """Within the block a fake's sections represent the kernel objects that drivers make."""
    return driver_memory.stood_in_by(SectionObjects())


def semaphore_page(numbered: bool, handle: int, name: str | None) -> SyncPage | None:
    """Return the semaphore of an NT handle, KMT number (`numbered`) or name, which the caller closes.

    None if no fake made it.
    """
    kind = vk.ExternalSemaphoreHandleTypeFlagBits.OPAQUE_WIN32_KMT if numbered else _SEMAPHORE
    opened = open_sync(int(kind), handle, name)
    page = SyncPage.from_fd(opened) if opened else None
    if page is None and opened:
        calls.close_handle(opened)
    return page
