"""Semaphores that another API made: cuImportExternalSemaphore, and what CUDA calls their types.

How this works. CUDA trusts its arguments: it takes the fd of a binary semaphore for a timeline's without an error, and
nothing in the fd tells the two apart. So the type is made from the handle type and the descriptor's word. The device
is compared before (CUDA answers a semaphore of another GPU with a bare "invalid value"). CUDA owns an fd from the
success of the import on, so it gets a copy; an NT handle stays the caller's.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Final

from extmem import vk
from extmem.devices.cuda.owners import Undo, take
from extmem.devices.cuda.results import fail
from extmem.devices.fd_copies import copy_of, is_same_file
from extmem.errors import DriverError, UnsupportedError
from extmem.sharing.payload import Win32Payload
from extmem.vk.handle_types import (
    SEMAPHORE_D3D12_FENCE,
    SEMAPHORE_OPAQUE_FD,
    SEMAPHORE_OPAQUE_WIN32,
    SEMAPHORE_OPAQUE_WIN32_KMT,
    SyncHandleType,
)

if TYPE_CHECKING:
    from extmem.devices.cuda.logical import LogicalDevice
    from extmem.devices.sync import SyncSource
    from extmem.owning import OwnedFd

__all__ = ["FD_TYPES", "KEYED_MUTEXES", "NAMES", "NUMBERS", "import_semaphore", "type_name"]

_PREFIX: Final = "CU_EXTERNAL_SEMAPHORE_HANDLE_TYPE_"
NAMES: Final = (
    "OPAQUE_FD",
    "OPAQUE_WIN32",
    "OPAQUE_WIN32_KMT",
    "D3D12_FENCE",
    "D3D11_FENCE",
    "D3D11_KEYED_MUTEX",
    "D3D11_KEYED_MUTEX_KMT",
    "TIMELINE_SEMAPHORE_FD",
    "TIMELINE_SEMAPHORE_WIN32",
)
"""What can be imported, by CUDA's names (CUexternalSemaphoreHandleType)."""
FD_TYPES: Final = ("OPAQUE_FD", "TIMELINE_SEMAPHORE_FD")
"""Types whose handle is a file descriptor."""
NUMBERS: Final = ("OPAQUE_WIN32_KMT", "D3D11_KEYED_MUTEX_KMT")
"""Types whose handle is a KMT number, and which have no name."""
KEYED_MUTEXES: Final = ("D3D11_KEYED_MUTEX", "D3D11_KEYED_MUTEX_KMT")
"""Types that are acquired with a key and a timeout, and released with a key."""

_BINARY: Final = {
    SEMAPHORE_OPAQUE_FD: "OPAQUE_FD",
    SEMAPHORE_OPAQUE_WIN32: "OPAQUE_WIN32",
    SEMAPHORE_OPAQUE_WIN32_KMT: "OPAQUE_WIN32_KMT",
    SEMAPHORE_D3D12_FENCE: "D3D12_FENCE",
}
_TIMELINE: Final = {
    SEMAPHORE_OPAQUE_FD: "TIMELINE_SEMAPHORE_FD",
    SEMAPHORE_OPAQUE_WIN32: "TIMELINE_SEMAPHORE_WIN32",
    SEMAPHORE_D3D12_FENCE: "D3D12_FENCE",
}


def type_name(handle_type: SyncHandleType, *, timeline: bool) -> str:
    """CUDA's name of a VkExternalSemaphoreHandleTypeFlagBits, for a timeline or a binary semaphore.

    Errors: UnsupportedError for a type that CUDA does not import.
    """
    table = _TIMELINE if timeline else _BINARY
    for known, name in table.items():
        if known == handle_type:
            return name
    kind = "timeline" if timeline else "binary"
    text = vk.ExternalSemaphoreHandleTypeFlagBits(handle_type)
    raise UnsupportedError(
        f"CUDA imports no {kind} semaphore by {text!r}; it imports {', '.join(sorted(set(table.values())))}",
        requires_one_of=sorted(set(table.values())),
    )


def import_semaphore(device: LogicalDevice, name: str, source: SyncSource, undo: Undo) -> Any:
    """Import a semaphore; return its CUexternalSemaphore. `undo` gets its destruction. The context is current.

    name: CUDA's name of its type. source: everything in it is borrowed; of an fd CUDA gets a copy. Errors: DriverError,
    with both devices if it is another one's; UnsupportedError for types that CUDA does not import.
    """
    if name not in NAMES:
        raise UnsupportedError(_why_not(name), requires_one_of=list(NAMES))
    _check_device(device, source)
    cu = device.module
    description = cu.CUDA_EXTERNAL_SEMAPHORE_HANDLE_DESC()
    description.type = getattr(cu.CUexternalSemaphoreHandleType, _PREFIX + name)
    handle = _handle(source)
    copy: OwnedFd | None = None
    text = None
    if name in FD_TYPES:
        copy = copy_of(handle)
        description.handle.fd = copy.fd
    elif source.name is not None and name not in NUMBERS:
        text = ctypes.create_unicode_buffer(source.name)
        description.handle.win32.name = ctypes.addressof(text)
    else:
        description.handle.win32.handle = handle
    step = (cu.cuDestroyExternalSemaphore, ...)
    result, semaphore = take(undo, step, cu.cuImportExternalSemaphore, description, consumes=copy)
    del text
    if result:
        if copy is not None:
            if is_same_file(copy.fd, handle):
                copy.settle()
            else:
                copy.disown()  # the driver closed it: the number may be another file's
        others = (source.device_name,) if source.device_name else ()
        fail(result, "cuImportExternalSemaphore", device.name, *others, tried=f"a semaphore of type {name}")
    return semaphore


def _handle(source: SyncSource) -> int:
    payload = source.payload
    if payload is not None:
        return payload.number if isinstance(payload, Win32Payload) and payload.number else payload.fd
    return source.fd.fd if source.fd is not None else source.handle


def _check_device(device: LogicalDevice, source: SyncSource) -> None:
    here = device.gpu.identity
    if here.may_be(source.device_uuid, source.luid):
        return
    there = (source.device_uuid or source.luid or b"").hex()
    raise DriverError(
        f"the semaphore belongs to device {source.device_name} {there}, and {device.name} is {here.device_uuid.hex()}"
        f"{f', LUID {here.luid.hex()}' if here.luid else ''}; import it on the device that it was made on",
        result=int(vk.Result.ERROR_INVALID_EXTERNAL_HANDLE),
        command="cuImportExternalSemaphore",
        devices=[device.name, source.device_name],
    )


def _why_not(name: str) -> str:
    if name == "NVSCISYNC":
        return (
            "NVSCISYNC is not imported: an NvSciSyncObj is an object of NVIDIA's NvSciSync library in one process, "
            "which exists on its embedded systems; share a timeline semaphore of the Vulkan driver instead"
        )
    return f"{name} is no CUexternalSemaphoreHandleType that CUDA imports; they are {', '.join(NAMES)}"
