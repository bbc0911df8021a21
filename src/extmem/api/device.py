"""`Device`, `DeviceMemory`, `Buffer`, `Image`: what a program holds. Their verbs call `core` and `interop`.

The specification's commands are here one to one, and the high-level verbs beside them. Each command is checked by the
rules first and reaches the driver only if it breaks none (`check="raise"`), or with a RuleWarning for each that it
breaks (`check="warn"`), or unchecked (`check="off"`). The classes are in one module because each
returns objects of the others.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, cast

from extmem import interop, rules, vk
from extmem.core import operations, shared_devices
from extmem.core.device_state import Check, DeviceState
from extmem.core.memory_object import MemoryObject
from extmem.core.memory_record import Closed
from extmem.core.resources import BufferObject, ImageObject
from extmem.handles import FdHandle, KmtHandle, NtHandle
from extmem.owning import Uses, late_imports, unsettled, work_off
from extmem.vk.copies import copied

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from extmem.api.commands import Commands
    from extmem.core.validation_cache import Key
    from extmem.devices.resources import NativeResource
    from extmem.sharing.layout import Axes

__all__ = ["Buffer", "Check", "Device", "DeviceMemory", "Image"]

HandleType = vk.ExternalMemoryHandleTypeFlagBits


class Device(DeviceState):
    """A device that allocates, exports and imports memory. Made by `extmem.open_device`.

    Ownership: memory, buffers and images hold their device; `close()` refuses while any memory is open.
    Threads: every method may be called from any thread, also while another one closes the device.

    Errors of every command: RuleViolation (see `check`), HandleStateError once closed, and in a forked child.
    """

    # What it is.

    @property
    def memory_properties(self) -> vk.PhysicalDeviceMemoryProperties:
        """vkGetPhysicalDeviceMemoryProperties; a new struct each time."""
        with self.use():
            return self.backend.memory_properties()

    # Capabilities.

    def get_physical_device_external_buffer_properties(
        self, info: vk.PhysicalDeviceExternalBufferInfo
    ) -> vk.ExternalBufferProperties:
        """What buffers of this use can export and import; no feature bits where the type is unsupported."""
        return operations.queries.external_buffer_properties(self, info)

    def get_physical_device_image_format_properties2(
        self, info: vk.PhysicalDeviceImageFormatInfo2
    ) -> vk.ImageFormatProperties2:
        """What images of this format and use can do, external properties chained when asked for.

        Errors: UnsupportedError for VK_ERROR_FORMAT_NOT_SUPPORTED.
        """
        return operations.queries.image_format_properties(self, info)

    def get_physical_device_format_properties2(self, format: vk.Format | int) -> vk.FormatProperties2:
        """What a format can do, DrmFormatModifierPropertiesListEXT chained where the device has DRM format modifiers.

        Errors: UnsupportedError for a device of another kind than Vulkan's.
        """
        return operations.queries.format_properties(self, format)

    def transfer_capability(self, handle_type: int) -> rules.ExternalMemoryFacts:
        """What transfer buffers can do with one handle type; asked once, it does not change.

        Errors: ValueError for what is not one bit of ExternalMemoryHandleTypeFlagBits.
        """
        return operations.rule_facts.transfer_capability(self, handle_type)

    # Resources.

    def make_buffer(
        self, info: vk.BufferCreateInfo, verdict: Key | None = None, *, native: NativeResource | None = None
    ) -> Buffer:
        """See `DeviceState` (for the library itself)."""
        return Buffer(self, info, verdict, native=native)

    def make_image(
        self,
        info: vk.ImageCreateInfo,
        capabilities: Mapping[int, rules.ExternalMemoryFacts] | None = None,
        *,
        native: NativeResource | None = None,
    ) -> Image:
        """See `DeviceState` (for the library itself)."""
        return Image(self, info, capabilities, native=native)

    def create_buffer(self, info: vk.BufferCreateInfo) -> Buffer:
        """vkCreateBuffer. The buffer is destroyed by its `close()`."""
        return cast("Buffer", operations.creating.create_buffer(self, info))

    def create_image(self, info: vk.ImageCreateInfo) -> Image:
        """vkCreateImage. Errors: UnsupportedError for a format, tiling, usage or modifier that the device lacks."""
        return cast("Image", operations.creating.create_image(self, info))

    def get_image_drm_format_modifier_properties(self, image: Image) -> vk.ImageDrmFormatModifierPropertiesEXT:
        """vkGetImageDrmFormatModifierPropertiesEXT: the modifier that the driver chose for an image of this device."""
        return operations.creating.modifier_of(self, image)

    def bind_buffer_memory2(self, infos: Sequence[vk.BindBufferMemoryInfo]) -> None:
        """vkBindBufferMemory2: all are judged before any is bound."""
        operations.binding.bind(self, infos, "buffer")

    def bind_image_memory2(self, infos: Sequence[vk.BindImageMemoryInfo]) -> None:
        """vkBindImageMemory2: all are judged before any is bound."""
        operations.binding.bind(self, infos, "image")

    def bind_buffer_memory(self, buffer: Buffer, memory: DeviceMemory, offset: int = 0) -> None:
        """vkBindBufferMemory: from now on the buffer's bytes are the memory's from `offset` (bytes) on."""
        operations.binding.bind_one(self, buffer, memory, offset)

    def bind_image_memory(self, image: Image, memory: DeviceMemory, offset: int = 0) -> None:
        """vkBindImageMemory."""
        operations.binding.bind(self, [vk.BindImageMemoryInfo(image, memory, offset)], "image", form=1)

    # Memory, word for word.

    def allocate_memory(self, info: vk.MemoryAllocateInfo) -> DeviceMemory:
        """vkAllocateMemory: allocate, export or import as the pNext chain says. Always a distinct memory object.

        New host memory contains zeros; a Vulkan or CUDA driver's contains what the driver leaves in it, such as bytes
        of memory that this process has freed. `allocate` zeroes.
        Ownership: an imported fd is consumed when this succeeds and only then; NT handles stay the caller's. After an
        error nothing has changed.
        Errors: RuleViolation; the object manager's refusals (NameNotFoundError, NameTakenError, AccessDeniedError,
        InvalidHandleError, ObjectTypeError) with the rule they decide in `violations`; DescriptorError for a payload
        that lies about itself; OutOfMemoryError; UnsupportedError without an object manager.
        """
        if unsettled:
            work_off()
        return DeviceMemory(*operations.allocating.allocate_memory(self, info))

    def free_memory(self, memory: DeviceMemory) -> None:
        """vkFreeMemory, the same as `memory.close()`."""
        if not isinstance(memory, DeviceMemory):
            raise TypeError(f"memory is {memory!r}: pass a DeviceMemory")
        memory.close()

    def flush_mapped_memory_ranges(self, ranges: Sequence[vk.MappedMemoryRange]) -> None:
        """vkFlushMappedMemoryRanges: the device sees what the host wrote there. Nothing to do for HOST_COHERENT memory.

        Offsets and sizes in bytes, rounded outwards to nonCoherentAtomSize. All are judged before any is flushed.
        Errors: HandleStateError for memory that is not mapped; ValueError for a range outside its memory; DriverError.
        """
        with Uses() as uses:
            uses.add(self)
            for allocation, offset, size in operations.mapped_ranges.checked(
                self, ranges, "vkFlushMappedMemoryRanges", uses
            ):
                self.backend.flush(allocation, offset, size)

    def invalidate_mapped_memory_ranges(self, ranges: Sequence[vk.MappedMemoryRange]) -> None:
        """vkInvalidateMappedMemoryRanges: the host sees what the device wrote there. Else as flushing."""
        with Uses() as uses:
            uses.add(self)
            for allocation, offset, size in operations.mapped_ranges.checked(
                self, ranges, "vkInvalidateMappedMemoryRanges", uses
            ):
                self.backend.invalidate(allocation, offset, size)

    def get_memory_win32_handle(self, info: vk.MemoryGetWin32HandleInfoKHR) -> NtHandle | KmtHandle:
        """vkGetMemoryWin32HandleKHR: an NT handle that the caller closes, or a KMT number that owns nothing.

        At most once per memory and NT type (VUID-VkMemoryGetWin32HandleInfoKHR-handleType-00663): duplicate the handle,
        or use `DeviceMemory.export_handle`, which does.
        """
        info = copied(info)
        with self.use(), operations.queries.memory_of(self, info, vk.MemoryGetWin32HandleInfoKHR).use() as record:
            self.report(
                rules.check_get_memory_win32_handle(info, self.facts, record.facts()),
                "vkGetMemoryWin32HandleKHR",
            )
            return operations.exporting.win32_handle(record, HandleType(info.handle_type))

    def get_memory_fd(self, info: vk.MemoryGetFdInfoKHR) -> FdHandle:
        """vkGetMemoryFdKHR: a new fd at each call, owned by the caller."""
        info = copied(info)
        with self.use(), operations.queries.memory_of(self, info, vk.MemoryGetFdInfoKHR).use() as record:
            return operations.exporting.fd_of(self, record, info)

    def get_memory_win32_handle_properties(
        self, handle_type: HandleType, handle: NtHandle | KmtHandle | int
    ) -> vk.MemoryWin32HandlePropertiesKHR:
        """vkGetMemoryWin32HandlePropertiesKHR: memory types for a handle made outside Vulkan (never an opaque one)."""
        return operations.queries.win32_handle_properties(self, handle_type, handle)

    def get_memory_fd_properties(self, handle_type: HandleType, fd: FdHandle | int) -> vk.MemoryFdPropertiesKHR:
        """vkGetMemoryFdPropertiesKHR: memory types for an fd made outside Vulkan (never an opaque one)."""
        return operations.queries.fd_properties(self, handle_type, fd)

    def get_memory_host_pointer_properties(
        self, handle_type: HandleType, host_pointer: int
    ) -> vk.MemoryHostPointerPropertiesEXT:
        """vkGetMemoryHostPointerPropertiesEXT: memory types that can import this address."""
        return operations.queries.host_pointer_properties(self, handle_type, host_pointer)

    # The everyday door.

    def allocate(
        self,
        shape: int | Sequence[int],
        dtype: object = "uint8",
        *,
        name: str | None = None,
        access: int | None = None,
        security: str | None = None,
        inherit: bool = False,
        handle_types: int | None = None,
        memory_type: int | None = None,
        dedicated: bool | None = None,
    ) -> DeviceMemory:
        """Memory for an array of `shape` (elements) and `dtype`, shareable. The array is zeroed, on every device.

        name: others `extmem.open` it by this; it lives as long as this memory, or any handle or import of it, does.
        access: rights that others get, `Access.READ` or `Access.READ_WRITE` (default): with READ alone nobody but this
            memory object can write.
        security: SDDL for the shared object, instead of what `access` implies. Default: this user alone.
        inherit: handles of it are inherited by children of `extmem.process`.
        handle_types: external types; default OPAQUE_WIN32 | OPAQUE_FD, as far as the device has them.
        memory_type: index; default the first that the host can see. dedicated: None asks the device.
        Errors: NameTakenError, NameInvalidError, OutOfMemoryError, RuleViolation.
        """
        if security is not None and not isinstance(security, str):
            raise TypeError(f"security is {security!r}, a {type(security).__name__}; give SDDL as a str, or None")
        if unsettled:
            work_off()
        with self.use():
            held = operations.allocating_arrays.allocate(
                self,
                shape,
                dtype,
                name=name,
                access=access,
                security=security,
                inherit=inherit,
                handle_types=handle_types,
                memory_type=memory_type,
                dedicated=dedicated,
            )
            return DeviceMemory(*held)

    def open(self, source: str | NtHandle | KmtHandle | FdHandle, *, access: int | None = None) -> DeviceMemory:
        """Memory that somebody shares, by name or handle; see `extmem.open`."""
        if unsettled:
            work_off()
        self.check_open()
        return DeviceMemory(*operations.opening.open_on(self, source, access))

    # Work on the queue.

    def commands(self) -> Commands:
        """Commands for this device's queue: `with device.commands() as commands:` … submitted and done at its end."""
        self.check_open()
        with late_imports():
            from extmem.api.commands import Commands

        return Commands(self)

    # Bookkeeping.

    def __enter__(self) -> Self:
        self.check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or not self.live_allocations:
            self.close()

    def __dir__(self) -> list[str]:
        # Completion and debuggers read all that is listed here, and this asks the driver.
        return [name for name in super().__dir__() if not (self.closing and name == "memory_properties")]

    def __repr__(self) -> str:
        return f"<Device {self.kind}: {self.name}, {self.uuid.hex()}>"


class DeviceMemory(MemoryObject):
    """Memory of a device, allocated here or imported (VkDeviceMemory).

    Ownership: holds the payload, and for NT types its shared object and name, until `close()`; views (memoryviews,
    arrays) keep it alive too, and closing under a live view raises LiveViewError. Lost without `close()`, it warns
    (ResourceWarning) and is closed. Made by `Device.allocate_memory`, `Device.allocate`, `extmem.open`.

    Threads: every method may be called from any thread, also while another one closes it. It works on this memory, or
    raises HandleStateError (or LiveViewError); what it uses is given back when it is done.

    Every method raises HandleStateError once closed, and in a forked child. What the memory is (name, size, descriptor
    and the like) can be read after `close()`, too.
    """

    __slots__ = ()

    # What it is.

    @property
    def device(self) -> Device:
        """The device that it belongs to."""
        return cast("Device", self._facts.device)

    @property
    def allocation_size(self) -> int:
        """VkMemoryAllocateInfo::allocationSize in bytes."""
        return self._facts.size

    @property
    def memory_type_index(self) -> int:
        """VkMemoryAllocateInfo::memoryTypeIndex."""
        return self._facts.memory_type_index

    @property
    def host_visible(self) -> bool:
        """Whether the host sees it: `map()`, `numpy()` and DLPack work. `read()` and `write()` always do."""
        kind = self._facts.device.facts.memory_types[self._facts.memory_type_index]
        return bool(kind.property_flags & vk.MemoryPropertyFlagBits.HOST_VISIBLE)

    @property
    def resource(self) -> Buffer | Image | None:
        """The buffer or image that a dedicated payload belongs to, made by `open` like the exporter's; else None.

        Not bound yet, unless bytes were moved through it; it is destroyed with the memory, and None from then on.
        """
        facts = self._facts
        return None if isinstance(facts, Closed) else cast("Buffer | Image | None", facts.resource)

    @property
    def read_only(self) -> bool:
        """Whether it was imported through rights that do not include writing; its views are then read-only."""
        return not self._facts.writable

    # Looking at it.

    def map(self) -> memoryview:
        """A memoryview (format "B") of the payload, zero copy; read-only where `read_only`. vkMapMemory.

        Errors: UnsupportedError for memory that the host cannot see; OSError where the OS refuses the mapping.
        """
        record = self.record
        record.check_process()
        return operations.views.view(record, self._arrays)

    def numpy(self, dtype: object = None, shape: Axes = None, *, strides: Axes = None, offset: int = 0) -> NDArray[Any]:
        """A NumPy array over the payload, zero copy, with the array layout of the descriptor.

        dtype, shape, strides (bytes) and offset (bytes into the payload) override the descriptor's; else bytes.
        Errors: ValueError where it would reach outside the payload; UnsupportedError without NumPy.
        """
        layout = interop.layout_for(
            self.size, self.descriptor.array, dtype=dtype, shape=shape, strides=strides, offset=offset
        )
        return interop.numpy_view(self.map(), layout)

    def __array__(self, dtype: object = None, copy: bool | None = None) -> NDArray[Any]:
        return interop.as_requested(self.numpy(), dtype, copy)

    def __dlpack__(
        self,
        *,
        stream: object = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        array = (
            interop.gpu_arrays.device_array(self)
            if dl_device is None or tuple(dl_device) != interop.CPU_DEVICE
            else None
        )
        if array is not None:
            return array.__dlpack__(stream=stream, max_version=max_version, dl_device=dl_device, copy=copy)
        return interop.dlpack_capsule(
            self.numpy(), stream=stream, max_version=max_version, dl_device=dl_device, copy=copy
        )

    def __dlpack_device__(self) -> tuple[int, int]:
        array = interop.gpu_arrays.device_array(self)
        return interop.CPU_DEVICE if array is None else array.__dlpack_device__()

    @property
    def __array_interface__(self) -> dict[str, Any]:
        if self._closed or not self.host_visible:
            raise AttributeError(f"this memory ({self.what()}) is closed, or not to be seen by the host")
        # Without strides Pillow requests a buffer, which a class cannot have before Python 3.12.
        return interop.array_interface(self.map(), self.descriptor.array, strides=not hasattr(self, "__buffer__"))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if self._closed:
            raise AttributeError(f"this memory ({self.what()}) is closed; it has no __cuda_array_interface__")
        array = interop.gpu_arrays.device_array(self)
        if array is None:
            raise AttributeError("this memory is on no GPU that CUDA knows; it has no __cuda_array_interface__")
        # Who takes this holds the memory object and no loan: `close` can't see it, unlike what `device_array` gives.
        return array.__cuda_array_interface__

    # GPU arrays.

    def device_array(
        self, dtype: object = None, shape: Axes = None, *, strides: Axes = None, offset: int = 0
    ) -> interop.DeviceArray:
        """A GPU array over the payload, zero copy, for whatever takes DLPack or the CUDA array interface.

        dtype, shape, strides (bytes) and offset (bytes into the payload) override the descriptor's. Memory of a GPU's
        Vulkan device is imported by CUDA at the first call, of a CUDA device it is there already.
        Errors: ValueError for negative or overlapping strides, and where it would reach outside the payload;
        UnsupportedError for memory that is on no GPU, or an image.
        """
        array = interop.gpu_arrays.device_array(self, dtype=dtype, shape=shape, strides=strides, offset=offset)
        if array is None:
            raise interop.gpu_arrays.no_gpu_error(self.what(), self.device)
        return array

    def torch(self, dtype: object = None, shape: Axes = None, *, strides: Axes = None, offset: int = 0) -> Any:
        """A PyTorch tensor over the payload, zero copy: on the GPU where CUDA knows it, else on the host.

        Arguments and errors as `device_array`; UnsupportedError without PyTorch, or for a build that does not suit.
        Read-only memory gives a tensor whose writing operations raise PermissionError.
        """
        array = interop.gpu_arrays.device_array(self, dtype=dtype, shape=shape, strides=strides, offset=offset)
        if array is None:
            return interop.torch_tensor_on_host(self.numpy(dtype, shape, strides=strides, offset=offset))
        return interop.torch_tensor(array)

    def cupy(self, dtype: object = None, shape: Axes = None, *, strides: Axes = None, offset: int = 0) -> Any:
        """A CuPy array over the payload, zero copy. Arguments and errors as `device_array`; UnsupportedError without
        CuPy. CuPy does not know read-only arrays: writing to one is not stopped.
        """
        return interop.cupy_array(self.device_array(dtype, shape, strides=strides, offset=offset))

    def jax(self, dtype: object = None, shape: Axes = None, *, offset: int = 0) -> Any:
        """A JAX array over the payload, zero copy, row-major: on the GPU where CUDA knows it, else on the host.

        Errors as `device_array`; UnsupportedError without JAX, for host memory that is read-only or that JAX would copy
        (64-bit types without its x64 mode, an offset that is not a multiple of 64).
        """
        array = interop.gpu_arrays.device_array(self, dtype=dtype, shape=shape, offset=offset)
        if array is None:
            return interop.jax_array_on_host(self.numpy(dtype, shape, offset=offset))
        return interop.jax_array(array)

    def access(
        self, *, stream: object = None, queue: bool = False
    ) -> AbstractContextManager[interop.DeviceArray | Buffer]:
        """A block in which one user has the memory: `with memory.access(stream=torch.cuda.current_stream()) as array:`.

        stream: CUDA work on that stream (None: the default one). It begins when this process's Vulkan device is done
            with the payload and has released it, and the block ends when the stream is done. Yields a GPU array.
        queue: work on the Vulkan device's queue instead. Ownership is acquired from VK_QUEUE_FAMILY_EXTERNAL at the
            beginning and released to it at the end. Yields the buffer over the memory.
        Not ordered: other streams and queues, and other processes, which have to wait until the block is over.
        Errors: as `device_array`, `buffer` and `Device.commands`; TypeError for what is no stream.
        """
        if queue and stream is not None:
            raise ValueError("either a stream or the queue has the memory; open two blocks, one after the other")
        with late_imports():
            from extmem.api import access

        if queue:
            return cast("AbstractContextManager[Buffer]", access.on_queue(self))
        return access.on_stream(self, stream)

    if sys.version_info >= (3, 12):

        def __buffer__(self, flags: int) -> memoryview:
            # NumPy asks for this before it asks for `__array__`, so it must say the array's shape and type as well.
            return interop.typed_view(self.map(), self.descriptor.array)

    # Using it on the device.

    def buffer(self) -> Buffer:
        """A buffer over the whole payload, for `Device.commands()`; the same one each time, destroyed with the memory.

        Its usage is the descriptor's, or copying. Errors: UnsupportedError for memory dedicated to an image; as
        `Device.create_buffer`.
        """
        return cast("Buffer", operations.memory_buffer.buffer_over(self))

    def write(self, data: object, *, offset: int | None = None, cast: bool = False) -> None:
        """Copy `data` into the payload, by the device; done when it returns.

        data: an array of the payload's element type and shape, or bytes (bytes, bytearray, mmap, a memoryview of format
            "B", a `uint8` array of one axis), which are copied as they are; Python's numbers and lists of them take
            the payload's element type, where they fit. Of a payload that describes no array, any array's bytes.
        offset: in bytes, where it begins. Given with an array, which then is a part: whole elements from an element's
            beginning, and axes after the first as the payload's last ones.
        cast: convert elements of another type as NumPy does under its rule "same_kind".
        Works for memory that the host cannot see, too. Ownership of the payload is acquired from and released to its
        other users around the copy (VK_QUEUE_FAMILY_EXTERNAL). Memory that is dedicated to a buffer of the caller's is
        copied by that buffer, once the caller has bound it, where it has TRANSFER_DST (to read: TRANSFER_SRC); else by
        the host, which has to see the memory.
        Errors: AccessDeniedError for read-only memory; TypeError for other element types, byte orders, and Python
        objects; ValueError for another shape, and where it would reach outside the payload; UnsupportedError for memory
        of an image, and of a buffer that cannot be copied where the host does not see it. Nothing was copied then.
        """
        with self.use() as record:
            record.check_writable("write")
            interop.transfer.write(record, data, offset, cast)

    def read(self) -> NDArray[Any]:
        """A new array with the payload's contents, copied by the device. Shape and type are the descriptor's."""
        with self.use() as record:
            return interop.transfer.read(record)

    def read_bytes(self, offset: int = 0, size: int | None = None) -> bytearray:
        """`size` bytes of the payload from `offset` on (None: to the end), copied by the device. Errors: as `write`."""
        with self.use() as record:
            return interop.transfer.read_bytes(record, offset, size)

    def tobytes(self) -> bytes:
        """The payload's bytes, copied by the device: `bytes(memory.read_bytes())`, under the name that NumPy has."""
        return bytes(self.read_bytes())

    def fill(self, value: int = 0) -> None:
        """Set every byte to `value` (0 to 255), by the device. Errors: as `write`."""
        with self.use() as record:
            record.check_writable("fill")
            interop.transfer.fill(record, value)

    def flush(self) -> None:
        """vkFlushMappedMemoryRanges of all of it: needed after writing through `map()` to memory that is not coherent.

        Does nothing for HOST_COHERENT memory.
        """
        with self.use() as record:
            record.device.backend.flush(record.allocation, 0, record.size)

    def invalidate(self) -> None:
        """vkInvalidateMappedMemoryRanges of all of it: needed before reading through `map()`, as `flush`."""
        with self.use() as record:
            record.device.backend.invalidate(record.allocation, 0, record.size)

    # Passing it on.

    def export_handle(
        self, handle_type: vk.ExternalMemoryHandleTypeFlagBits | None = None
    ) -> NtHandle | KmtHandle | FdHandle:
        """A new handle to the payload, owned by the caller; as many as asked for (duplicates are made by us).

        handle_type: one that the memory was exported for; None takes the strongest (NT handle, KMT handle, fd).
        Errors: RuleViolation (VUID-VkMemoryGetWin32HandleInfoKHR-handleType-00662,
        VUID-VkMemoryGetFdInfoKHR-handleType-00671) for a type that it was not exported for.
        """
        with self.use() as record:
            return operations.exporting.export_handle(self, record, handle_type)

    def __copy__(self) -> NoReturn:
        raise operations.arguments.not_copied(self.what())

    def __deepcopy__(self, memo: dict[int, object]) -> NoReturn:
        raise operations.arguments.not_copied(self.what())

    # The end.

    def __dir__(self) -> list[str]:
        # Completion and debuggers read all that is listed here, and this raises once the memory is closed.
        return [name for name in super().__dir__() if name not in ("record", "loans")]

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ", read-only" if self.read_only else ""
        return f"<DeviceMemory {self.what()} on {self.device.name}{state}>"


class Buffer(BufferObject):
    """A VkBuffer. Made by `Device.create_buffer`; `close()` destroys it.

    Threads: as `DeviceMemory`. A buffer that recorded commands use is destroyed when those are done.
    """

    __slots__ = ()

    @property
    def device(self) -> Device:
        """The device that it belongs to."""
        return cast("Device", self._device)

    @property
    def memory(self) -> DeviceMemory | None:
        """The memory it is bound to, None before."""
        return cast("DeviceMemory | None", self._memory)


class Image(ImageObject):
    """A VkImage. Made by `Device.create_image`; `close()` destroys it.

    Threads: as `DeviceMemory`. An image that recorded commands use is destroyed when those are done.
    """

    __slots__ = ()

    @property
    def device(self) -> Device:
        """The device that it belongs to."""
        return cast("Device", self._device)

    @property
    def memory(self) -> DeviceMemory | None:
        """The memory it is bound to, None before."""
        return cast("DeviceMemory | None", self._memory)


shared_devices.device_class = Device
