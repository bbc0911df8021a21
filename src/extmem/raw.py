"""The one door for foreign objects: raw handle values and file descriptors that some other code made.

What comes in here is trusted to be what the caller states: nobody else can know whose number it is. What a driver can
be asked (queues, extensions, sizes) is asked.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple, cast

from extmem import vk
from extmem.api import Buffer, Device, DeviceMemory, Image
from extmem.api.device import Check
from extmem.core import adopting
from extmem.core import fd_choices as choices
from extmem.core.fd_choices import FdChoices
from extmem.core.opening import import_stated
from extmem.errors import HandleStateError, UnsupportedError
from extmem.handles import Access, FdHandle, HandleEntry, KmtHandle, NtHandle
from extmem.manager import manager
from extmem.owning import copy_fd, late_imports, out_of_descriptors
from extmem.process import fd_sockets
from extmem.sharing.descriptor import Descriptor
from extmem.vk.handle_types import BY_NUMBER, FROM_D3D

if TYPE_CHECKING:
    import socket

    from extmem.vk.abi import CStruct

__all__ = [
    "FdChoices",
    "VulkanHandles",
    "adopt_buffer",
    "adopt_cuda",
    "adopt_device",
    "adopt_image",
    "adopt_memory",
    "borrowed_fd",
    "c_struct",
    "cuda_array",
    "fd_choices",
    "fd_handle",
    "import_payload",
    "kmt_handle",
    "nt_handle",
    "open_section",
    "send_payload",
    "vk_device",
    "vk_handles",
    "vk_memory",
]

_Type = vk.ExternalMemoryHandleTypeFlagBits


def nt_handle(value: int) -> NtHandle:
    """Own an NT handle of this process by its value (inherited, or duplicated into here by another process).

    Errors: HandleStateError for a value that cannot be one; InvalidHandleError for one that is not in the table.
    """
    handle = NtHandle(value, manager())
    try:
        _ = handle.info
    except BaseException:
        handle.take()
        raise
    return handle


def kmt_handle(number: int) -> KmtHandle:
    """A KMT handle from its number; HandleStateError if it cannot be one."""
    return KmtHandle(number & 0xFFFF_FFFF if number >= 0 else number)


def fd_handle(fd: int) -> FdHandle:
    """Own a file descriptor. It becomes close-on-exec. OSError (EBADF) if it is not open."""
    return FdHandle(fd)


def import_payload(
    device: Device,
    handle: FdHandle | NtHandle | KmtHandle | int,
    descriptor: Descriptor,
    *,
    borrow: bool = False,
) -> DeviceMemory:
    """Import a handle that carries no descriptor of its own, with the one that the caller states.

    handle: an fd (a number is taken for one); or an NT handle, such as one of another program's section or GPU memory;
        or a KMT handle. What the descriptor is dedicated to is made anew, and ends with the memory.
    descriptor: for Direct3D's memory, and for a dma-buf, it states that handle type alone.
    borrow: import a copy of an fd, so that the fd stays the caller's: of another binding, say, which closes it itself.
    Ownership: consumes an fd, on success only, and none that is borrowed; an NT handle stays the caller's.
    Errors: as `Device.allocate_memory`; OutOfMemoryError where there is no descriptor left for the copy.
    """
    if isinstance(handle, (NtHandle, KmtHandle)):
        return DeviceMemory(
            *import_stated(
                device, vk.ImportMemoryWin32HandleInfoKHR(_stated_type(handle, descriptor), handle), descriptor
            )
        )
    kind = _Type.DMA_BUF if descriptor.handle_types == _Type.DMA_BUF else _Type.OPAQUE_FD
    if not borrow:
        return DeviceMemory(*import_stated(device, vk.ImportMemoryFdInfoKHR(kind, handle), descriptor))
    with borrowed_fd(handle) as copy:
        return DeviceMemory(*import_stated(device, vk.ImportMemoryFdInfoKHR(kind, copy), descriptor))


def borrowed_fd(fd: FdHandle | int) -> FdHandle:
    """A handle of a copy of the fd (dup(2), close-on-exec), which stays the caller's.

    Errors: HandleStateError for what is not open; OutOfMemoryError where there is no descriptor left.
    """
    if isinstance(fd, FdHandle):
        return fd.duplicate()
    try:
        return FdHandle(copy_fd(fd))
    except OSError as error:
        if error.errno == errno.EBADF:
            raise HandleStateError(f"fd {fd} is not open in this process; pass one that is") from None
        raise out_of_descriptors(error, "dup") from None


def send_payload(sock: socket.socket, fd: FdHandle | int, descriptor: Descriptor) -> None:
    """Send an fd that carries no descriptor of its own, with the one that the caller states (`process.send_handle`).

    The other end calls `extmem.process.receive_handle`, and opens what comes. It is proven there, on a device of its
    own, as a stranger's is. sock: a Unix socket, SOCK_SEQPACKET.
    Ownership: the fd stays the caller's. Errors: as `process.send_handle`; HandleStateError for an fd that is not open.
    """
    sockets = fd_sockets()
    with borrowed_fd(fd) as copy, copy.use() as owned:
        sockets.send_stated(sock, owned.fd, descriptor.encode())


def fd_choices(
    device: Device,
    fd: FdHandle | int,
    *,
    handle_type: int = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD,
    memory_properties: int = 0,
) -> FdChoices:
    """What a `Descriptor` may state of an fd that nobody describes, as far as kernel and driver answer.

    handle_type: OPAQUE_FD, or DMA_BUF. memory_properties: VkMemoryPropertyFlags that the memory type has to have.
    The import itself proves the choice; of an opaque fd no driver tells size and memory type.
    Ownership: the fd stays the caller's, untouched.
    Errors: DriverError with VK_ERROR_INVALID_EXTERNAL_HANDLE for what the device cannot import; OutOfMemoryError;
    ValueError for a handle type that is not an fd's.
    """
    kind = _Type(handle_type)
    return choices.fd_choices(device, int(fd), kind, int(memory_properties))


def _stated_type(handle: NtHandle | KmtHandle, descriptor: Descriptor) -> vk.ExternalMemoryHandleTypeFlagBits:
    """Direct3D's type where the descriptor states that one alone; else Vulkan's own."""
    number = isinstance(handle, KmtHandle)
    own = _Type.OPAQUE_WIN32_KMT if number else _Type.OPAQUE_WIN32
    others = (kind for kind in FROM_D3D if (kind in BY_NUMBER) == number)
    return next((kind for kind in others if descriptor.handle_types == kind), own)


def open_section(name: str, access: int = Access.READ_WRITE) -> NtHandle:
    """A handle to another program's section (file mapping) by its very name on Windows, case and all.

    name: as that program says it (`Local\\…`, `Global\\…` or plain). What extmem shares is opened with
        `extmem.open_handle`, which cannot lead to other programs' objects. Import it with `import_payload`.
    Errors: UnsupportedError on other systems; NameNotFoundError, NameInvalidError, ObjectTypeError, AccessDeniedError.
    """
    owner = manager()
    entry = HandleEntry(owner)
    owner.open_section(name, int(access), entry)
    return NtHandle(entry, owner)


def adopt_device(
    instance: int,
    physical_device: int,
    device: int,
    *,
    extensions: Iterable[str],
    features: Iterable[str] = (),
    queue_family_index: int,
    queue_index: int = 0,
    api_version: int = 1 << 22 | 1 << 12,
    check: Check = "raise",
) -> Device:
    """A VkDevice that another binding made, as a device of extmem's. Handles are numbers (addresses).

    Ownership: stays the other's; it must outlive what is made here, and `close()` leaves it alone.
    extensions: names of the device extensions it was made with; it needs VK_KHR_external_memory_fd to share.
    features: names of the device features it was made with, as the specification spells them ("sparseBinding"). Those
        that are not named count as not enabled: what needs one is refused.
    queue_family_index, queue_index: a queue of it that extmem may submit to while nobody else does (vkQueueSubmit is
        externally synchronized); used by `write`, `read`, `fill` and `commands()` alone.
    api_version: VkApplicationInfo::apiVersion of its instance, packed; at least 1.1.
    Errors: HandleStateError for null handles, for an instance or device where nothing is mapped in this process, and
        for a physical device that is not of this instance; RuleViolation
        (VUID-vkGetDeviceQueue-queueFamilyIndex-00384, -queueIndex-00385) for a family or queue that the physical device
        lacks; UnsupportedError for a family that cannot copy, a sharing extension that the physical device lacks,
        Vulkan 1.0, or without a loader; TypeError for handles that are not int, and for extensions or features that
        are not a sequence of str.
    """
    with late_imports():
        from extmem.devices.vulkan.adopted import adopt

    backend = adopt(
        instance,
        physical_device,
        device,
        extensions=extensions,
        features=features,
        queue_family=queue_family_index,
        queue=queue_index,
        api_version=api_version,
    )
    return Device(backend, check=check)


def adopt_memory(
    device: Device,
    memory: int,
    info: vk.MemoryAllocateInfo,
    *,
    imported: int = 0,
) -> DeviceMemory:
    """A VkDeviceMemory that another binding allocated on this device, to be shared.

    info: how it was allocated, in extmem's words: size, memory type, VkMemoryDedicatedAllocateInfo with a resource of
        `device`, and what it is shared as. Where it was allocated for export as OPAQUE_FD, OPAQUE_WIN32 and
        OPAQUE_WIN32_KMT may be said here too, with name and access: on Linux they stand on that fd. A buffer or image
        of the other binding that it is dedicated to comes in through `adopt_buffer` or `adopt_image`.
    imported: the handle type that the other binding imported it as; 0 for memory that it allocated. Not in `info`,
        since the handle is not there any more.
    What is exported is measured, on Linux: the fd is imported once, on a device of its own, with the stated size,
    memory type and dedicated resource; and where the driver's files grow by a byte with each byte of memory, the file's
    length has to be that of such memory exactly. Drivers whose files are rounded (to pages, say) or have no length
    leave a size unmeasured within what they round to. The size is believed of memory that is not exported, and of all
    memory on Windows: no call there returns the size of what a driver's handle or number leads to. A size that is too
    large makes `write`, `read`, `fill` and commands reach past the memory, which ends the process.
    Ownership: the VkDeviceMemory stays the other's, who frees it after `close()`.
    Errors: DescriptorError where the driver contradicts what `info` states; TypeError and ValueError for numbers that
    cannot be such a handle or handle type, and for an import in the chain of `info`; else as `Device.allocate_memory`.
    """
    return DeviceMemory(*adopting.adopt_memory(device, memory, info, imported=imported))


def adopt_buffer(device: Device, buffer: int, info: vk.BufferCreateInfo, *, bound: bool = False) -> Buffer:
    """A VkBuffer that another binding created on this device: to dedicate memory to, to bind, for commands.

    info: how it was created. It is compared with what the driver requires of the buffer. bound: whether the other
        binding has bound it to memory already, which it keeps as long as commands use the buffer.
    Ownership: stays the other's, who destroys it after `close()`.
    Errors: DescriptorError where the buffer was not created so; UnsupportedError for another kind of device;
        HandleStateError for null, and for what is a buffer of `device` already; as `Device.create_buffer`.
    """
    return cast("Buffer", adopting.adopt_buffer(device, buffer, info, bound=bound))


def adopt_image(device: Device, image: int, info: vk.ImageCreateInfo, *, bound: bool = False) -> Image:
    """A VkImage that another binding created on this device. As `adopt_buffer`."""
    return cast("Image", adopting.adopt_image(device, image, info, bound=bound))


def adopt_cuda(device: Device, pointer: int, size: int) -> DeviceMemory:
    """Memory that other code of this process made with CUDA's virtual-memory API, to be shared as OPAQUE_FD or by name.

    pointer: where an allocation begins (CUdeviceptr). size: bytes of it that are shared, from its beginning on.
    The driver says where the allocation begins and ends (cuMemGetAddressRange, cuMemRetainAllocationHandle).
    Ownership: the mapping stays the other's and must outlive what is made here; the memory itself is held.
    Errors: UnsupportedError with the remedy where the driver cannot export what is there (memory of cudaMalloc, and of
    cuMemCreate without a shareable handle type), and for a tensor that does not begin its allocation, reaches past it,
    or lies in several: one handle leads to one allocation, from its beginning on.
    """
    return DeviceMemory(*adopting.adopt_pointer(device, pointer, size))


def cuda_array(memory: DeviceMemory) -> int:
    """The CUmipmappedArray of an image that CUDA imported, for another binding. It stays the memory's, which frees it.

    Errors: HandleStateError once closed; UnsupportedError for memory that is no image on a CUDA device.
    """
    with memory.use() as holding:
        array = getattr(holding.allocation, "array", None)
        if array is None:
            raise UnsupportedError(
                f"{memory!r} has no CUmipmappedArray: it is no image on a CUDA device",
                requires_one_of=["memory dedicated to a Vulkan image, opened on a CUDA device"],
            )
        return int(array)


def vk_memory(memory: DeviceMemory) -> int:
    """The VkDeviceMemory behind memory of a Vulkan device, for another binding. It stays the memory's, which frees it.

    Errors: HandleStateError once closed; UnsupportedError for memory of another kind of device.
    """
    with memory.use() as holding:
        return _raw(holding.allocation, "VkDeviceMemory")


def vk_device(device: Device) -> int:
    """The VkDevice behind a Vulkan device, for another binding.

    Errors: UnsupportedError for other devices; HandleStateError once closed.
    """
    with device.use():
        return _raw(device.backend, "VkDevice")


class VulkanHandles(NamedTuple):
    """What another binding needs to use a Vulkan device of extmem's. Handles are numbers (addresses)."""

    instance: int
    """VkInstance."""
    physical_device: int
    """VkPhysicalDevice."""
    device: int
    """VkDevice."""
    queue: int
    """VkQueue: extmem submits to it in `write`, `read`, `fill` and `commands()`, and nobody else may meanwhile."""
    queue_family_index: int
    queue_index: int
    extensions: frozenset[str]
    """Names of the device extensions that were enabled."""
    api_version: int
    """VkApplicationInfo::apiVersion of the instance, packed."""


def vk_handles(device: Device) -> VulkanHandles:
    """The handles behind a Vulkan device, for another binding. They stay the device's, which destroys them.

    No feature is enabled on a device of extmem's. Errors: UnsupportedError for other devices; HandleStateError once
    closed.
    """
    with late_imports():
        from extmem.devices.vulkan.backend import VulkanBackend

    backend = device.backend
    if not isinstance(backend, VulkanBackend):
        raise UnsupportedError(f"{device!r} has no Vulkan handles", requires_one_of=["a Vulkan device"])
    with device.use():
        physical = backend.physical
        return VulkanHandles(
            physical.instance.raw,
            physical.raw,
            backend.raw,
            backend.queue,
            backend.queue_family,
            backend.queue_index,
            backend.enabled,
            physical.instance.api_version,
        )


def _raw(thing: object, what: str) -> int:
    raw = getattr(thing, "raw", None)
    if not isinstance(raw, int):
        raise UnsupportedError(
            f"{thing!r} has no {what}: it is not of a Vulkan device", requires_one_of=["a Vulkan device"]
        )
    return raw


def c_struct(struct: vk.Struct) -> CStruct:
    """The struct and its pNext chain in C memory: `.address` is for another binding's call, while the result is kept.

    Handles in it may be numbers or extmem's own objects. Errors: ValueError, TypeError for what does not fit.
    """
    with late_imports():
        from extmem.vk.abi import to_c

    return to_c(struct)
