"""Import of foreign objects: raw handle values, file descriptors and devices that other code created.

The functions trust the caller's statement of what a number refers to, because it cannot be checked. What a driver can
report (queues, extensions, sizes) is queried.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple, cast

from extmem import vk
from extmem.api import Buffer, Device, DeviceMemory, Image
from extmem.api.cuda_semaphore import CudaSemaphore, StreamTimeline, import_by_name
from extmem.api.cuda_semaphore import stream_timeline as _stream_timeline
from extmem.api.device import Check
from extmem.arguments import check_flag
from extmem.core import adopting, sync_operations
from extmem.core import fd_choices as choices
from extmem.core.fd_choices import FdChoices
from extmem.core.opening import import_stated
from extmem.errors import HandleStateError, UnsupportedError
from extmem.handles import Access, FdHandle, HandleEntry, KmtHandle, NtHandle
from extmem.handles.arguments import fd_number, handle_number
from extmem.manager import manager
from extmem.owning import Uses, copy_fd, late_imports, out_of_descriptors
from extmem.process import fd_sockets
from extmem.sharing.descriptor import Descriptor
from extmem.vk.handle_types import BY_NUMBER, FROM_D3D

if TYPE_CHECKING:
    import socket

    from extmem.api.timeline import Timeline
    from extmem.vk.abi import CStruct

__all__ = [
    "CudaSemaphore",
    "FdChoices",
    "StreamTimeline",
    "VulkanHandles",
    "adopt_buffer",
    "adopt_cuda",
    "adopt_device",
    "adopt_image",
    "adopt_memory",
    "borrowed_fd",
    "c_struct",
    "cuda_array",
    "cuda_graph_signal",
    "cuda_graph_wait",
    "cuda_semaphore",
    "fd_choices",
    "fd_handle",
    "import_payload",
    "kmt_handle",
    "nt_handle",
    "open_section",
    "send_payload",
    "stream_timeline",
    "vk_device",
    "vk_handles",
    "vk_memory",
]

_Type = vk.ExternalMemoryHandleTypeFlagBits


def nt_handle(value: int) -> NtHandle:
    """Own an NT handle of this process by its value (inherited, or duplicated into this process by another one).

    Errors: HandleStateError for a value that cannot be an NT handle; InvalidHandleError for one that is not in the
    handle table; TypeError for a value that is not an int.
    """
    handle = NtHandle(value, manager())
    try:
        _ = handle.info
    except BaseException:
        handle.take()
        raise
    return handle


def kmt_handle(number: int) -> KmtHandle:
    """Return a KMT handle of a number.

    Errors: HandleStateError for a number that cannot be a KMT handle; TypeError for a value that is not an int.
    """
    number = handle_number(number, "a KMT handle")
    return KmtHandle(number & 0xFFFF_FFFF if number >= 0 else number)


def fd_handle(fd: int) -> FdHandle:
    """Own a file descriptor, which becomes close-on-exec.

    Errors: OSError (EBADF) if it is not open; HandleStateError for a number that cannot be a file descriptor; TypeError
    for a value that is not an int.
    """
    return FdHandle(fd)


def import_payload(
    device: Device,
    handle: FdHandle | NtHandle | KmtHandle | int,
    descriptor: Descriptor,
    *,
    borrow: bool = False,
) -> DeviceMemory:
    """Import a handle without a descriptor, with the descriptor that the caller states.

    handle: an fd (as a number or a handle); or an NT handle, such as one of another program's section or GPU memory; or
        a KMT handle. The resource that the descriptor is dedicated to is created, and destroyed with the memory.
    descriptor: for memory of Direct3D, and for a dma-buf, it states that handle type only.
    borrow: import a copy of an fd, so that the caller keeps the fd, for example one that another binding will close.
    Ownership: consumes an fd, on success only, unless it is borrowed; the caller keeps an NT handle.
    Errors: as `Device.allocate_memory`; OutOfMemoryError if no file descriptor is left for the copy.
    """
    check_flag(borrow, "borrow")
    if isinstance(handle, (NtHandle, KmtHandle)):
        source = vk.ImportMemoryWin32HandleInfoKHR(_stated_type(handle, descriptor), handle)
        return import_stated(device, source, descriptor, DeviceMemory)
    kind = _Type.DMA_BUF if descriptor.handle_types == _Type.DMA_BUF else _Type.OPAQUE_FD
    if not borrow:
        return import_stated(device, vk.ImportMemoryFdInfoKHR(kind, handle), descriptor, DeviceMemory)
    with borrowed_fd(handle) as copy:
        return import_stated(device, vk.ImportMemoryFdInfoKHR(kind, copy), descriptor, DeviceMemory)


def borrowed_fd(fd: FdHandle | int) -> FdHandle:
    """Return a handle of a copy of the fd (dup(2), close-on-exec). The caller keeps the fd.

    Errors: HandleStateError if the fd is not open; TypeError for a value that is not an int; OutOfMemoryError if no
    file descriptor is left.
    """
    if isinstance(fd, FdHandle):
        return fd.duplicate()
    fd = fd_number(fd)
    try:
        return FdHandle(copy_fd(fd))
    except OSError as error:
        if error.errno == errno.EBADF:
            raise HandleStateError(f"fd {fd} is not open in this process; pass one that is") from None
        raise out_of_descriptors(error, "dup") from None


def send_payload(sock: socket.socket, fd: FdHandle | int, descriptor: Descriptor) -> None:
    """Send an fd without a descriptor, with the descriptor that the caller states (see `process.send_handle`).

    The other end calls `extmem.process.receive_handle`, and opens the handle. The fd is verified there on a separate
    device, like that of another user. sock: a Unix socket, SOCK_SEQPACKET.
    Ownership: the caller keeps the fd. Errors: as `process.send_handle`; HandleStateError for an fd that is not open.
    """
    with borrowed_fd(fd) as copy, copy.use() as owned:
        fd_sockets().send_unchecked(sock, owned.fd, descriptor.encode())


def fd_choices(
    device: Device,
    fd: FdHandle | int,
    *,
    handle_type: int = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD,
    memory_properties: int = 0,
) -> FdChoices:
    """Return what a `Descriptor` may state about an fd without one, as far as the kernel and the driver report it.

    handle_type: OPAQUE_FD, or DMA_BUF. memory_properties: VkMemoryPropertyFlags that the memory type must have.
    The import itself verifies the choice; drivers do not report size and memory type of an opaque fd.
    Ownership: the caller keeps the fd, which is not changed.
    Errors: DriverError with VK_ERROR_INVALID_EXTERNAL_HANDLE for an fd that the device cannot import; OutOfMemoryError;
    ValueError for a handle type that is not an fd's.
    """
    return choices.fd_choices(
        device, int(fd) if isinstance(fd, FdHandle) else fd_number(fd), _Type(handle_type), int(memory_properties)
    )


def _stated_type(handle: NtHandle | KmtHandle, descriptor: Descriptor) -> vk.ExternalMemoryHandleTypeFlagBits:
    """Return a type of Direct3D if the descriptor states only that; else the opaque type of Vulkan."""
    number = isinstance(handle, KmtHandle)
    own = _Type.OPAQUE_WIN32_KMT if number else _Type.OPAQUE_WIN32
    stated = descriptor.handle_types
    return _Type(stated) if stated in FROM_D3D and (stated in BY_NUMBER) == number else own


def open_section(name: str, access: int = Access.READ_WRITE) -> NtHandle:
    """Open another program's section (file mapping) by its exact name on Windows; case matters.

    name: as in that program (`Local\\…`, `Global\\…` or plain). Payloads of extmem are opened with
        `extmem.open_handle`, which cannot open other programs' objects. Import the handle with `import_payload`.
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
    """Return a device of extmem for a VkDevice that another binding created. Handles are numbers (addresses).

    Ownership: the other binding keeps the VkDevice, which must outlive this device; `close()` does not destroy it.
    extensions: names of the device extensions it was created with; sharing needs VK_KHR_external_memory_fd.
    features: names of the device features it was created with, as the specification spells them ("sparseBinding").
        Features that are not named count as not enabled: calls that need one are refused.
    queue_family_index, queue_index: a queue that extmem may submit to while no other code does (vkQueueSubmit is
        externally synchronized); used by `write`, `read`, `fill` and `commands()` only.
    api_version: VkApplicationInfo::apiVersion of its instance, packed; at least 1.1.
    Errors: HandleStateError for null handles, for an instance or device whose address is not mapped in this process,
        and for a physical device that is not of this instance; RuleViolation
        (VUID-vkGetDeviceQueue-queueFamilyIndex-00384, -queueIndex-00385) for a family or queue that the physical device
        lacks; UnsupportedError for a family that cannot copy, a sharing extension that the physical device lacks,
        Vulkan 1.0, or without a loader; TypeError for handles that are not int, and for extensions or features that
        are not a sequence of str.
    """
    with late_imports():
        from extmem.devices.vulkan.adopted import adopt

    return Device(
        adopt(
            instance,
            physical_device,
            device,
            extensions=extensions,
            features=features,
            queue_family=queue_family_index,
            queue=queue_index,
            api_version=api_version,
        ),
        check=check,
    )


def adopt_memory(
    device: Device,
    memory: int,
    info: vk.MemoryAllocateInfo,
    *,
    imported: int = 0,
) -> DeviceMemory:
    """Return memory for a VkDeviceMemory that another binding allocated on this device, to share it.

    info: how it was allocated: size, memory type, VkMemoryDedicatedAllocateInfo with a resource of `device`, and the
        handle types that it is shared as. For memory that was allocated for export as OPAQUE_FD, it may also have
        OPAQUE_WIN32 and OPAQUE_WIN32_KMT, with name and access; on Linux they are implemented with that fd. A buffer or
        image of the other binding that it is dedicated to must be adopted with `adopt_buffer` or `adopt_image`.
    imported: the handle type that the other binding imported it as; 0 for memory that it allocated. It is not part of
        `info`, because the handle does not exist any more.
    On Linux exported memory is measured: the fd is imported once, on a separate device, with the stated size, memory
    type and dedicated resource. If the driver's files grow by a byte with each byte of memory, the length of the file
    must be exactly that of such memory. For drivers whose files are rounded (for example to pages) or have no length,
    the size is not measured within the rounding. The stated size is not verified for memory that is not exported, and
    for any memory on Windows, where no call returns the size of memory by a driver's handle or number. If the stated
    size is too large, `write`, `read`, `fill` and commands access addresses past the memory, which ends the process.
    Ownership: the other binding keeps the VkDeviceMemory, and frees it after `close()`.
    Errors: DescriptorError if the driver contradicts `info`; TypeError and ValueError for numbers that cannot be such a
    handle or handle type, and for an import in the chain of `info`; otherwise as `Device.allocate_memory`.
    """
    return DeviceMemory(*adopting.adopt_memory(device, memory, info, imported=imported))


def adopt_buffer(device: Device, buffer: int, info: vk.BufferCreateInfo, *, bound: bool = False) -> Buffer:
    """Return a buffer for a VkBuffer that another binding created on this device.

    Memory can be dedicated to it, it can be bound, and commands can use it.
    info: how it was created. It is compared with the driver's memory requirements of the buffer. bound: whether the
        other binding has bound it to memory, which must exist as long as commands use the buffer.
    Ownership: the other binding keeps the VkBuffer, and destroys it after `close()`.
    Errors: DescriptorError if the buffer was created otherwise; UnsupportedError for a device that is not a Vulkan
        device; HandleStateError for null, and for a number that is already a buffer of `device`; as
        `Device.create_buffer`.
    """
    return cast("Buffer", adopting.adopt_resource(device, "buffer", buffer, info, bound=bound))


def adopt_image(device: Device, image: int, info: vk.ImageCreateInfo, *, bound: bool = False) -> Image:
    """Return an image for a VkImage that another binding created on this device. See `adopt_buffer`."""
    return cast("Image", adopting.adopt_resource(device, "image", image, info, bound=bound))


def adopt_cuda(device: Device, pointer: int, size: int) -> DeviceMemory:
    """Return memory for memory that other code of this process created with CUDA's virtual-memory API.

    It can be shared as OPAQUE_FD or by name.
    pointer: first address of an allocation (CUdeviceptr). size: number of bytes to share, from that address on.
    The driver reports the bounds of the allocation (cuMemGetAddressRange, cuMemRetainAllocationHandle).
    Ownership: the other code keeps the mapping, which must outlive this object; the memory itself is kept alive.
    Errors: UnsupportedError with the remedy if the driver cannot export the memory (memory of cudaMalloc, and of
    cuMemCreate without a shareable handle type), and for a tensor that does not begin at its allocation, ends past it,
    or spans several: one handle refers to one allocation, from its first byte on.
    """
    return DeviceMemory(*adopting.adopt_pointer(device, pointer, size))


def cuda_array(memory: DeviceMemory) -> int:
    """Return the CUmipmappedArray of an image that CUDA imported, for another binding. The memory owns and frees it.

    Errors: HandleStateError once closed; UnsupportedError for memory that is not an image on a CUDA device.
    """
    with memory.use() as record:
        array = getattr(record.allocation, "array", None)
        if array is None:
            raise UnsupportedError(
                f"{memory!r} has no CUmipmappedArray: it is not an image on a CUDA device",
                requires_one_of=["memory dedicated to a Vulkan image, opened on a CUDA device"],
            )
        return int(array)


def cuda_semaphore(
    device: Device, kind: str, handle: int | str, *, uuid: bytes | None = None, luid: bytes | None = None
) -> CudaSemaphore:
    """Import a semaphore that other code shares into a CUDA device, by CUDA's name of its type. For streams.

    kind: `"D3D11_FENCE"`, `"D3D11_KEYED_MUTEX"` or another CUexternalSemaphoreHandleType, without its prefix.
    handle: an fd (Linux), an NT handle, a KMT number, or a name (Windows). It stays the caller's: of an fd a copy is
        imported. uuid, luid: of the device that it belongs to, if that is known; another GPU's is refused.
    Errors: DriverError; UnsupportedError for NVSCISYNC, unknown types, and devices that are not CUDA's.
    """
    return import_by_name(device, kind, handle, uuid, luid)


def stream_timeline(device: Device, timeline: Timeline) -> StreamTimeline:
    """Return a timeline of any device for streams of a CUDA device, to which it gives waits and signals at little cost.

    The result owns nothing: the timeline must stay open. Errors: UnsupportedError for a device that is not CUDA's;
    RuleViolation for a timeline of another GPU.
    """
    return _stream_timeline(device, timeline)


def cuda_graph_wait(device: Device, graph: int, wait: object, dependencies: Iterable[int] = ()) -> int:
    """Add a wait to a CUgraph, after these nodes (CUgraphNode as numbers). Return the last node that was added.

    wait: a pair (timeline, value), or a list of them, of any device. The values are fixed in the graph. The timelines
        must stay open until the graph, and everything that was instantiated from it, is destroyed.
    Errors: TypeError; DriverError; UnsupportedError for a device that is not CUDA's.
    """
    with Uses() as uses:
        waits = sync_operations.order_pairs.pairs(wait, uses, "wait")
        return sync_operations.stream_order.graph_wait(device, graph, waits, tuple(dependencies))


def cuda_graph_signal(device: Device, graph: int, signal: object, dependencies: Iterable[int] = ()) -> int:
    """Add a signal to a CUgraph; as `cuda_graph_wait`. Each launch of the graph signals these values.

    Errors: AccessDeniedError without the right to signal; UnsupportedError on Windows; as `cuda_graph_wait`.
    """
    with Uses() as uses:
        signals = sync_operations.order_pairs.pairs(signal, uses, "signal")
        return sync_operations.stream_order.graph_signal(device, graph, signals, tuple(dependencies))


def vk_memory(memory: DeviceMemory) -> int:
    """Return the VkDeviceMemory of memory of a Vulkan device, for another binding. The memory owns and frees it.

    Errors: HandleStateError once closed; UnsupportedError for memory of a device that is not a Vulkan device.
    """
    with memory.use() as record:
        return _raw(record.allocation, "VkDeviceMemory")


def vk_device(device: Device) -> int:
    """Return the VkDevice of a Vulkan device, for another binding.

    Errors: UnsupportedError for other devices; HandleStateError once closed.
    """
    with device.use():
        return _raw(device.backend, "VkDevice")


class VulkanHandles(NamedTuple):
    """The handles with which another binding uses a Vulkan device of extmem. Handles are numbers (addresses)."""

    instance: int
    """VkInstance."""
    physical_device: int
    """VkPhysicalDevice."""
    device: int
    """VkDevice."""
    queue: int
    """VkQueue: extmem submits to it in `write`, `read`, `fill` and `commands()`; no other code may do so meanwhile."""
    queue_family_index: int
    queue_index: int
    extensions: frozenset[str]
    """Names of the device extensions that were enabled."""
    api_version: int
    """VkApplicationInfo::apiVersion of the instance, packed."""


def vk_handles(device: Device) -> VulkanHandles:
    """Return the handles of a Vulkan device, for another binding. The device owns and destroys them.

    No feature is enabled on a device of extmem. Errors: UnsupportedError for other devices; HandleStateError once
    closed.
    """
    with late_imports():
        from extmem.devices.vulkan.backend import VulkanBackend

    backend = device.backend
    if not isinstance(backend, VulkanBackend):
        raise UnsupportedError(f"{device!r} has no Vulkan handles", requires_one_of=["a Vulkan device"])
    with device.use():
        vk_device = backend.device
        physical = vk_device.physical
        return VulkanHandles(
            physical.instance.raw,
            physical.raw,
            vk_device.raw,
            vk_device.queue,
            vk_device.queue_family,
            vk_device.queue_index,
            vk_device.enabled,
            physical.instance.api_version,
        )


def _raw(thing: object, what: str) -> int:
    raw = getattr(thing, "raw", None)
    if not isinstance(raw, int):
        raise UnsupportedError(
            f"{thing!r} has no {what}: its device is not a Vulkan device", requires_one_of=["a Vulkan device"]
        )
    return raw


def c_struct(struct: vk.Struct) -> CStruct:
    """Return the struct and its pNext chain in C memory: `.address` is valid while the result is kept.

    The address is for a call of another binding. Handles in the struct may be numbers or objects of extmem. Errors:
    ValueError and TypeError for values that do not fit.
    """
    with late_imports():
        from extmem.vk.abi import to_c

    return to_c(struct)
