"""Memory that another API made: cuImportExternalMemory, and a pointer or an array mapped onto it.

How this works. CUDA trusts its arguments. A wrong dedicated flag or a smaller size is imported without an error, a
larger size fails only when it is mapped. So type, size and flag are the descriptor's (`Origin`), never the caller's,
and the mapping is checked before it is used: its context, its device, its range. CUDA owns an fd from the success of
the import on, so it gets a copy. At the end the mapping is released before the memory.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from extmem import vk
from extmem.devices.cuda.capabilities import DEVICE_TYPE
from extmem.devices.cuda.memory import CudaAllocation
from extmem.devices.cuda.owners import Undo, take
from extmem.devices.cuda.results import fail
from extmem.devices.fd_copies import copy_of, is_same_file
from extmem.errors import DriverError, UnsupportedError
from extmem.owning import LateModule
from extmem.vk.handle_types import (
    D3D11_TEXTURE,
    D3D11_TEXTURE_KMT,
    D3D12_HEAP,
    D3D12_RESOURCE,
    OPAQUE_FD,
    OPAQUE_WIN32,
    OPAQUE_WIN32_KMT,
    SIZED_BY_D3D,
)
from extmem.vk.value_text import types_text

if TYPE_CHECKING:
    from extmem.devices.cuda import image_arrays
    from extmem.devices.cuda.logical import LogicalDevice
    from extmem.devices.types import Origin
    from extmem.owning import OwnedFd
    from extmem.sharing.payload import PayloadFd
else:
    image_arrays = LateModule(globals(), "extmem.devices.cuda.image_arrays")

__all__ = ["External"]

_PREFIX = "CU_EXTERNAL_MEMORY_HANDLE_TYPE_"
_TYPES = {
    OPAQUE_FD: "OPAQUE_FD",
    OPAQUE_WIN32: "OPAQUE_WIN32",
    OPAQUE_WIN32_KMT: "OPAQUE_WIN32_KMT",
    D3D12_HEAP: "D3D12_HEAP",
    D3D12_RESOURCE: "D3D12_RESOURCE",
    D3D11_TEXTURE: "D3D11_RESOURCE",
    D3D11_TEXTURE_KMT: "D3D11_RESOURCE_KMT",
}
"""CUDA's names of the handle types."""
_DEDICATED = 1


class External:
    """Imports of one device."""

    def __init__(self, device: LogicalDevice) -> None:
        self._device = device
        self._gpu = device.gpu
        cu = self._module = device.module
        # Not the ordinal of the device: cuda-bindings 13 returns 0 for memory of each device. A context belongs to one.
        self._asked = (cu.CUpointer_attribute.CU_POINTER_ATTRIBUTE_CONTEXT,)
        self._types = {kind: getattr(cu.CUexternalMemoryHandleType, _PREFIX + name) for kind, name in _TYPES.items()}

    def import_handle(
        self,
        handle: int,
        origin: Origin,
        *,
        name: str | None = None,
        payload: PayloadFd | None = None,
        identity: int = 0,
        writable: bool = True,
    ) -> CudaAllocation:
        """Import the payload behind an fd, an NT handle, a KMT number, or a name (Windows).

        handle: borrowed; an fd is copied, and CUDA takes the copy. Errors: DriverError; UnsupportedError for a type
        that CUDA does not import.
        """
        cu, undo = self._module, Undo()
        kind = self._types.get(origin.handle_type)
        if kind is None:
            raise UnsupportedError(
                f"CUDA imports no {types_text(origin.handle_type)}; it imports {', '.join(_TYPES.values())}",
                requires_one_of=list(_TYPES.values()),
            )
        description = cu.CUDA_EXTERNAL_MEMORY_HANDLE_DESC()
        description.type, description.size = kind, origin.size
        if origin.dedicated or origin.handle_type in SIZED_BY_D3D:
            description.flags = _DEDICATED
        copy: OwnedFd | None = None
        text = None
        if origin.handle_type != OPAQUE_FD:
            if name is not None:
                text = ctypes.create_unicode_buffer(name)
                description.handle.win32.name = ctypes.addressof(text)
            else:
                description.handle.win32.handle = handle
        with self._gpu.current:
            if origin.handle_type == OPAQUE_FD:
                copy = copy_of(handle)
                description.handle.fd = copy.fd
            step = (cu.cuDestroyExternalMemory, ...)
            result, memory = take(undo, step, cu.cuImportExternalMemory, description, consumes=copy)
            del text
            if result:
                if copy is not None:
                    _settle_copy(copy, handle)
                tried = (
                    f"{origin.size} bytes by {types_text(origin.handle_type)}"
                    f"{f' {name!r}' if name is not None else ''}, {'' if description.flags else 'not '}dedicated"
                )
                fail(result, "cuImportExternalMemory", self._gpu.name, *origin.devices, tried=tried)
            try:
                pointer, array = 0, None
                if origin.image is None:
                    pointer = self._map(memory, origin, undo)
                else:
                    array = image_arrays.map_array(self._device, memory, origin.image, origin.devices, undo)
                return CudaAllocation(
                    self._device,
                    origin.size,
                    DEVICE_TYPE,
                    pointer,
                    undo,
                    payload=payload,
                    identity=identity,
                    writable=writable,
                    array=array,
                )
            except BaseException:
                self._gpu.undo(undo)
                raise

    def _map(self, memory: Any, origin: Origin, undo: Undo) -> int:
        cu, size = self._module, origin.size
        description = cu.CUDA_EXTERNAL_MEMORY_BUFFER_DESC()
        description.size = size
        step = (cu.cuMemFree, ...)
        result, pointer = take(undo, step, cu.cuExternalMemoryGetMappedBuffer, memory, description)
        self._device.check(result, "cuExternalMemoryGetMappedBuffer", f"{size} bytes", origin.devices)
        answer = cu.cuPointerGetAttributes(1, self._asked, pointer)
        (context,) = map(int, self._device.value_of(answer, "cuPointerGetAttributes", others=origin.devices))
        if context != int(self._gpu.context):
            raise self._wrong_mapping(
                f"the mapped pointer belongs to context {context:#x}, and the import was made on device "
                f"{self._gpu.ordinal}, context {int(self._gpu.context):#x}",
                origin,
            )
        result, base, length = cu.cuMemGetAddressRange(pointer)
        self._device.check(result, "cuMemGetAddressRange", others=origin.devices)
        start = int(pointer)
        if int(base) > start or start + size > int(base) + int(length):
            raise self._wrong_mapping(
                f"{size} bytes at {start:#x} were mapped, and CUDA reports {int(length)} bytes at {int(base):#x}",
                origin,
            )
        return start

    def _wrong_mapping(self, problem: str, origin: Origin) -> DriverError:
        return DriverError(
            f"cuExternalMemoryGetMappedBuffer: {problem}; the payload was not imported",
            result=int(vk.Result.ERROR_INVALID_EXTERNAL_HANDLE),
            command="cuExternalMemoryGetMappedBuffer",
            devices=[self._gpu.name, *origin.devices],
        )


def _settle_copy(copy: OwnedFd, fd: int) -> None:
    """Close a copy of `fd` that a failed import got, unless the driver did so: the number may be another file's."""
    if is_same_file(copy.fd, fd):
        copy.settle()
    else:
        copy.disown()
