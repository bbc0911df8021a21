"""The public classes `Device`, `DeviceMemory`, `Buffer` and `Image`. Their methods call `core` and `interop`.

Each command of the specification in scope is one method; the methods of the high-level API are beside them. A command
is first checked by the rules. With `check="raise"` it is passed to the driver only if it breaks no rule; with
`check="warn"` there is a RuleWarning for each rule that it breaks; with `check="off"` it is not checked. The classes
are in one module because each returns objects of the others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeAlias, TypeVar, cast, overload

from extmem import interop, rules, vk
from extmem.api.sync_device import SyncDevice
from extmem.arguments import a_type, check_flag
from extmem.core import operations, shared_devices
from extmem.core.device_state import Check
from extmem.core.memory_object import MemoryObject
from extmem.core.memory_record import Closed
from extmem.core.resources import BufferObject, ImageObject
from extmem.handles import FdHandle, KmtHandle, NtHandle
from extmem.owning import LateModule, Uses, late_imports, unsettled, work_off
from extmem.vk.handle_types import MemoryHandleType

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from extmem.api.commands import Commands
    from extmem.api.fence import Fence
    from extmem.api.semaphore import Semaphore
    from extmem.core.changes import Stable, Update
    from extmem.core.memory_record import MemoryRecord
    from extmem.core.validation_cache import Key
    from extmem.devices.resources import NativeResource
    from extmem.sharing.layout import Axes
    from extmem.vk import struct_copies
else:
    struct_copies = LateModule(globals(), "extmem.vk.struct_copies")

__all__ = ["Buffer", "Check", "Device", "DeviceMemory", "Image"]

Order: TypeAlias = "tuple[Semaphore, int] | Sequence[tuple[Semaphore, int] | Semaphore] | Semaphore"
"""What an argument `wait` or `signal` takes: a pair of a timeline and a value, or a list of them. A binary semaphore
has no value."""

HandleType = vk.ExternalMemoryHandleTypeFlagBits
T = TypeVar("T")


class Device(SyncDevice):
    """A device that allocates, exports and imports memory. Made by `extmem.open_device`.

    Ownership: memory, buffers and images hold their device; `close()` refuses while memory, semaphores or fences are
    open.
    Threads: every method may be called from any thread, also while another one closes the device.

    Errors of every command: RuleViolation (see `check`), HandleStateError once closed, and in a forked child.
    """

    # Properties.

    @property
    def memory_properties(self) -> vk.PhysicalDeviceMemoryProperties:
        """The result of vkGetPhysicalDeviceMemoryProperties; a new struct at each access."""
        with self.use():
            return self.backend.memory_properties()

    # Capabilities.

    def get_physical_device_external_buffer_properties(
        self, info: vk.PhysicalDeviceExternalBufferInfo
    ) -> vk.ExternalBufferProperties:
        """Return what buffers of this usage can export and import; without feature bits if the type is unsupported."""
        return operations.queries.external_buffer_properties(self, info)

    def get_physical_device_image_format_properties2(
        self, info: vk.PhysicalDeviceImageFormatInfo2
    ) -> vk.ImageFormatProperties2:
        """Return what images of this format and usage support, with external properties if the chain requests them.

        Errors: UnsupportedError for VK_ERROR_FORMAT_NOT_SUPPORTED.
        """
        return operations.queries.image_format_properties(self, info)

    def get_physical_device_format_properties2(self, format: vk.Format | int) -> vk.FormatProperties2:
        """Return what a format supports. DrmFormatModifierPropertiesListEXT is chained if the device has DRM modifiers.

        Errors: UnsupportedError for a device that is not a Vulkan device.
        """
        return operations.queries.format_properties(self, format)

    def transfer_capability(self, handle_type: int) -> rules.ExternalMemoryFacts:
        """Return what transfer buffers support for one handle type. The driver is queried once for each type.

        Errors: ValueError for a value that is not one bit of ExternalMemoryHandleTypeFlagBits.
        """
        return operations.rule_facts.transfer_capability(self, MemoryHandleType(handle_type))

    # Resources.

    def make_buffer(
        self, info: vk.BufferCreateInfo, validation_key: Key | None = None, *, native: NativeResource | None = None
    ) -> Buffer:
        """See `DeviceState` (for the library itself)."""
        return Buffer(self, info, validation_key, native=native)

    def make_image(
        self,
        info: vk.ImageCreateInfo,
        capabilities: Mapping[MemoryHandleType, rules.ExternalMemoryFacts] | None = None,
        *,
        native: NativeResource | None = None,
    ) -> Image:
        """See `DeviceState` (for the library itself)."""
        return Image(self, info, capabilities, native=native)

    def create_buffer(self, info: vk.BufferCreateInfo) -> Buffer:
        """vkCreateBuffer. The `close()` of the buffer destroys it."""
        return cast("Buffer", operations.creating.create_buffer(self, info))

    def create_image(self, info: vk.ImageCreateInfo) -> Image:
        """vkCreateImage. Errors: UnsupportedError for a format, tiling, usage or modifier that the device lacks."""
        return cast("Image", operations.creating.create_image(self, info))

    def get_image_drm_format_modifier_properties(self, image: Image) -> vk.ImageDrmFormatModifierPropertiesEXT:
        """vkGetImageDrmFormatModifierPropertiesEXT: the modifier that the driver chose for an image of this device."""
        return operations.creating.modifier_of(self, image)

    def bind_buffer_memory2(self, infos: Sequence[vk.BindBufferMemoryInfo]) -> None:
        """vkBindBufferMemory2. All bindings are checked before the first one is made."""
        operations.binding.bind(self, infos, "buffer")

    def bind_image_memory2(self, infos: Sequence[vk.BindImageMemoryInfo]) -> None:
        """vkBindImageMemory2. All bindings are checked before the first one is made."""
        operations.binding.bind(self, infos, "image")

    def bind_buffer_memory(self, buffer: Buffer, memory: DeviceMemory, offset: int = 0) -> None:
        """vkBindBufferMemory: bind the buffer to the memory at `offset` (bytes)."""
        operations.binding.bind_one(self, buffer, memory, offset)

    def bind_image_memory(self, image: Image, memory: DeviceMemory, offset: int = 0) -> None:
        """vkBindImageMemory: bind the image to the memory at `offset` (bytes)."""
        operations.binding.bind(self, [vk.BindImageMemoryInfo(image, memory, offset)], "image", form=1)

    # Memory: the specification-level API.

    def allocate_memory(self, info: vk.MemoryAllocateInfo) -> DeviceMemory:
        """vkAllocateMemory: allocate, export or import, depending on the pNext chain. Return a distinct memory object.

        New memory of the host device contains zeros. New memory of a Vulkan or CUDA driver may contain other bytes,
        such as those of memory that this process has freed; only `allocate` sets them to zero.
        Ownership: an imported fd is consumed if and only if this succeeds; the caller keeps NT handles. After an error
        nothing has changed.
        Errors: RuleViolation; the errors of the object manager (NameNotFoundError, NameTakenError, AccessDeniedError,
        InvalidHandleError, ObjectTypeError), with the rule that each one decides in `violations`; DescriptorError if
        the descriptor of a payload is wrong; OutOfMemoryError; UnsupportedError without an object manager.
        """
        if unsettled:
            work_off()
        return operations.allocating.allocate_memory(self, info, DeviceMemory)

    def free_memory(self, memory: DeviceMemory) -> None:
        """vkFreeMemory. The same as `memory.close()`."""
        if not isinstance(memory, DeviceMemory):
            raise TypeError(f"memory is {memory!r}: pass a DeviceMemory")
        memory.close()

    def flush_mapped_memory_ranges(self, ranges: Sequence[vk.MappedMemoryRange]) -> None:
        """vkFlushMappedMemoryRanges: make writes of the host visible to the device. No effect for HOST_COHERENT memory.

        Offsets and sizes are in bytes and rounded outwards to nonCoherentAtomSize. All ranges are checked before the
        first one is flushed.
        Errors: HandleStateError for memory that is not mapped; ValueError for a range outside its memory; DriverError.
        """
        with Uses(self) as uses:
            for allocation, offset, size in operations.mapped_ranges.check_ranges(
                self, ranges, "vkFlushMappedMemoryRanges", uses
            ):
                self.backend.flush(allocation, offset, size)

    def invalidate_mapped_memory_ranges(self, ranges: Sequence[vk.MappedMemoryRange]) -> None:
        """vkInvalidateMappedMemoryRanges: make writes of the device visible to the host. Otherwise as for flushing."""
        with Uses(self) as uses:
            for allocation, offset, size in operations.mapped_ranges.check_ranges(
                self, ranges, "vkInvalidateMappedMemoryRanges", uses
            ):
                self.backend.invalidate(allocation, offset, size)

    def get_memory_win32_handle(self, info: vk.MemoryGetWin32HandleInfoKHR) -> NtHandle | KmtHandle:
        """vkGetMemoryWin32HandleKHR: return an NT handle that the caller closes, or a KMT number that owns nothing.

        At most one call for each memory object and NT type (VUID-VkMemoryGetWin32HandleInfoKHR-handleType-00663). To
        get more handles, duplicate the handle, or use `DeviceMemory.export_handle`, which returns duplicates.
        """
        info = struct_copies.copy_struct(info)
        with self.use(), operations.queries.memory_of(self, info, vk.MemoryGetWin32HandleInfoKHR).use() as record:
            self.report(
                rules.check_get_memory_win32_handle(info, self.facts, record.facts()),
                "vkGetMemoryWin32HandleKHR",
            )
            return operations.exporting.win32_handle(record, HandleType(info.handle_type))

    def get_memory_fd(self, info: vk.MemoryGetFdInfoKHR) -> FdHandle:
        """vkGetMemoryFdKHR: return a new fd at each call, owned by the caller."""
        info = struct_copies.copy_struct(info)
        with self.use(), operations.queries.memory_of(self, info, vk.MemoryGetFdInfoKHR).use() as record:
            return operations.exporting.get_memory_fd(self, record, info)

    def get_memory_win32_handle_properties(
        self, handle_type: HandleType, handle: NtHandle | KmtHandle | int
    ) -> vk.MemoryWin32HandlePropertiesKHR:
        """vkGetMemoryWin32HandlePropertiesKHR: memory types for a handle of another API, of a non-opaque type."""
        return operations.queries.win32_handle_properties(self, handle_type, handle)

    def get_memory_fd_properties(self, handle_type: HandleType, fd: FdHandle | int) -> vk.MemoryFdPropertiesKHR:
        """vkGetMemoryFdPropertiesKHR: return the memory types for an fd of another API, of a non-opaque type."""
        return operations.queries.fd_properties(self, handle_type, fd)

    def get_memory_host_pointer_properties(
        self, handle_type: HandleType, host_pointer: int
    ) -> vk.MemoryHostPointerPropertiesEXT:
        """vkGetMemoryHostPointerPropertiesEXT: return the memory types that can import this address."""
        return operations.queries.host_pointer_properties(self, handle_type, host_pointer)

    # Memory: the high-level API.

    def allocate(
        self,
        shape: int | Sequence[int],
        dtype: object = "uint8",
        *,
        order: str | None = None,
        strides: Axes = None,
        row_pitch: int | None = None,
        name: str | None = None,
        access: int | None = None,
        security: str | None = None,
        inherit: bool = False,
        handle_types: int | None = None,
        memory_type: int | None = None,
        dedicated: bool | None = None,
        replace: bool = False,
        keep: str | float | bool | None = None,
    ) -> DeviceMemory:
        """Return new shareable memory for an array of `shape` (elements) and `dtype`, set to zero on every device.

        shape: () is one element; an axis may be empty. A payload has at least one byte.
        dtype: an element type by name ("bfloat16", "datetime64[ns]"), by code ("<f4"), or as a type of NumPy,
            ml_dtypes, PyTorch, JAX, CuPy or PyArrow. All types of NumPy and DLPack that are plain memory can be shared.
        order: "C" (default) for row-major order, "F" for column-major order.
        strides: bytes between neighbours, for each axis, instead of an order; bits for packed element types.
        row_pitch: bytes from one index of the first axis to the next, instead of an order. Within, elements are in
            row-major order. Others get the layout with the payload.
        name: the name by which `extmem.open` opens the memory, in any process. It exists as long as this memory, or any
            handle or import of it.
        access: rights that others get, `Access.READ` or `Access.READ_WRITE` (default). With READ, only this memory
            object can write.
        security: SDDL for the shared object, used instead of `access`. Default: only this user has access.
        inherit: whether child processes of `extmem.process` inherit handles of the memory.
        handle_types: external handle types; default OPAQUE_WIN32 | OPAQUE_FD, as far as the device supports them.
        memory_type: index of the memory type; default the first host-visible one.
        dedicated: whether the memory is dedicated to a buffer; None if the device decides.
        replace: whether the memory takes the name of memory that has it, in one step. Whoever opens the name gets
            either. Memory that is open stays as it is; its `superseded` becomes true. Only the process that shared the
            other memory may do this, or any process of its user once that has ended.
        keep: how long the object manager keeps the memory, whatever the processes do: True until `extmem.forget`;
            "taken" until another process has opened it, and all have closed it; a number of seconds without a process
            that has it. What it alone keeps ends with the broker. Linux only, as `replace`.
        Errors: NameTakenError, NameInvalidError, OutOfMemoryError, RuleViolation; ValueError for a negative
        extent, more than 64 axes, more bytes than a signed 64-bit size can count, and strides with which elements would
        overlap; TypeError and ValueError for an element type that cannot be shared; TypeError for flags that are not a
        bool.
        """
        if security is not None and not isinstance(security, str):
            raise TypeError(f"security is {security!r}, {a_type(security)}; give SDDL as a str, or None")
        if unsettled:
            work_off()
        with Uses(self) as uses:
            held = operations.allocating_arrays.allocate(
                self,
                uses,
                shape,
                dtype,
                order=order,
                strides=strides,
                row_pitch=row_pitch,
                name=name,
                access=access,
                security=security,
                inherit=inherit,
                handle_types=handle_types,
                memory_type=memory_type,
                dedicated=dedicated,
                replace=replace,
                keep=keep,
            )
            return DeviceMemory(*held)

    def open(
        self,
        source: str | NtHandle | KmtHandle | FdHandle,
        *,
        access: int | None = None,
        timeout: float | None = None,
    ) -> DeviceMemory:
        """Open shared memory by name or handle; see `extmem.open`."""
        if unsettled:
            work_off()
        self.check_open()
        return operations.opening.open_on(self, source, access, memory_of, timeout)

    # Work on the queue.

    def commands(
        self,
        *,
        wait: Order | None = None,
        signal: Order | None = None,
        fence: Fence | None = None,
    ) -> Commands:
        """Return commands for the queue of this device: `with device.commands() as commands:`.

        At the end of the block they are submitted, and waited for.

        wait: a pair (timeline, value) of this device, or a list of them: the commands begin when the values are
            reached. The queue waits where the driver can, and not the host.
        signal: such pairs, which are signaled when the commands are done. The end of the block then does not wait.
        fence: signaled when the commands are done, too.
        Errors: TypeError, ValueError; HandleStateError for a timeline of another device; AccessDeniedError for a signal
        without the right; at the end of the block also RuleViolation for a value that goes back or too far.
        """
        self.check_open()
        return (_commands or _load_commands())(self, wait=wait, signal=signal, fence=fence)

    # Bookkeeping.

    def __enter__(self) -> Self:
        self.check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or not (self.live_allocations or self.sync_records):
            self.close()

    def __dir__(self) -> list[str]:
        # Completion and debuggers read every listed attribute, and these query the driver.
        hidden = ("capabilities", "memory_properties") if self.closing else ()
        return [name for name in super().__dir__() if name not in hidden]

    def __repr__(self) -> str:
        return f"<Device {self.kind}: {self.name}, {self.uuid.hex()}>"


class DeviceMemory(MemoryObject):
    """Memory of a device (VkDeviceMemory), allocated or imported.

    Ownership: holds the payload, and for NT types its shared object and name, until `close()`. Views (memoryviews,
    arrays) keep it alive too; `close()` raises LiveViewError while a view is alive. Memory that is garbage-collected
    without `close()` is closed with a ResourceWarning. Made by `Device.allocate_memory`, `Device.allocate`,
    `extmem.open`.

    Threads: every method may be called from any thread, also while another thread closes the memory. Either the method
    uses this memory, or it raises HandleStateError (or LiveViewError). Resources that it uses are released after it.

    Every method raises HandleStateError once closed, and in a forked child. Properties such as name, size and
    descriptor can be read after `close()`, too.
    """

    __slots__ = ()

    # Properties.

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
        """Whether the host can map it, for `map()`, `numpy()` and DLPack. `read()` and `write()` always work."""
        memory_type = self._facts.device.facts.memory_types[self._facts.memory_type_index]
        return bool(memory_type.property_flags & vk.MemoryPropertyFlagBits.HOST_VISIBLE)

    @property
    def resource(self) -> Buffer | Image | None:
        """The buffer or image of a dedicated payload, which `open` creates like that of the exporter; None otherwise.

        It is not bound until a copy uses it. It is destroyed with the memory, and None from then on.
        """
        facts = self._facts
        return None if isinstance(facts, Closed) else cast("Buffer | Image | None", facts.resource)

    @property
    def shape(self) -> tuple[int, ...]:
        """Elements per axis of the array that the descriptor contains; without one, the number of bytes."""
        array = self.descriptor.array
        return (self.size,) if array is None else array.shape

    @property
    def dtype(self) -> str:
        """The element type of the array, a text such as "float32", "bfloat16", "datetime64[ns]"; "uint8" without array.

        It is equal to NumPy's dtype where NumPy has one of this name.
        """
        array = self.descriptor.array
        return "uint8" if array is None else array.dtype

    @property
    def strides(self) -> tuple[int, ...]:
        """Bytes between neighbours, for each axis of the array; bits for packed element types."""
        array = self.descriptor.array
        return (1,) if array is None else array.strides

    @property
    def nbytes(self) -> int:
        """Bytes of the elements of the array, without gaps between them. `size` is that of the payload."""
        return interop.nbytes_of(interop.element_type(self.dtype), self.shape)

    def __len__(self) -> int:
        shape = self.shape
        if not shape:
            raise TypeError(f"this memory ({self.what()}) is an array without axes, which has no length")
        return shape[0]

    def __bool__(self) -> bool:
        # Memory of an empty array is memory, too.
        return True

    def __iter__(self) -> Iterator[Any]:
        # Without this, Python would index until an IndexError, which an array without axes raises at once.
        return map(self.__getitem__, range(len(self)))

    def __contains__(self, value: object) -> bool:
        # Without this, Python would compare the value with each part.
        raise TypeError(f"parts of memory are not compared with values; use {value!r} in memory.numpy()")

    @property
    def read_only(self) -> bool:
        """Whether it was imported without the right to write. Its views are then read-only."""
        return not self._facts.writable

    @property
    def copied(self) -> str | bool:
        """Why `extmem.share` copied what it was given, as text; False if nothing was copied, and for other memory."""
        facts = self._facts
        return False if isinstance(facts, Closed) else facts.copied

    # Parts.

    def __getitem__(self, index: Any) -> Any:
        """Return a part of the array as a `MemorySlice`, zero copy: `memory[2:5]`, `memory[0, :, 1]`.

        A part has `numpy`, `torch`, `jax` and `cupy`; it can be pickled, and `share` gives it a name of its own.
        Errors: IndexError outside the array; TypeError for lists and masks, which would copy.
        """
        return part_of(self, index)

    # Views.

    def map(self) -> memoryview:
        """vkMapMemory: return a memoryview (format "B") of the payload, zero copy. Read-only if the memory is.

        Errors: UnsupportedError for memory that is not host-visible; OSError if the OS refuses the mapping.
        """
        record = self.record
        record.check_process()
        return operations.views.view(record, self._arrays)

    def numpy(self, dtype: object = None, shape: Axes = None, *, strides: Axes = None, offset: int = 0) -> NDArray[Any]:
        """Return a NumPy array over the payload, zero copy, with the array layout of the descriptor; else of bytes.

        dtype, shape, strides (bytes) and offset (bytes into the payload) override those of the descriptor.
        Errors: ValueError if the array would extend outside the payload; UnsupportedError without NumPy, for an element
        type that NumPy lacks (packed ones), and where ml_dtypes is needed and not installed (bfloat16).
        """
        return interop.numpy_view(*self._laid_out(dtype, shape, strides, offset))

    def _laid_out(
        self, dtype: object = None, shape: Axes = None, strides: Axes = None, offset: int = 0
    ) -> tuple[memoryview, interop.ArrayLayout]:
        """Return the bytes of the payload, and the layout of the array in it."""
        layout = interop.layout_for(
            self.size, self.descriptor.array, dtype=dtype, shape=shape, strides=strides, offset=offset
        )
        return self.map(), layout

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
            *self._laid_out(), stream=stream, max_version=max_version, dl_device=dl_device, copy=copy
        )

    def __dlpack_device__(self) -> tuple[int, int]:
        array = interop.gpu_arrays.device_array(self)
        return interop.CPU_DEVICE if array is None else array.__dlpack_device__()

    @property
    def __array_interface__(self) -> dict[str, Any]:
        if self._closed or not self.host_visible:
            raise AttributeError(
                f"this memory ({self.what()}) is closed or not host-visible; it has no __array_interface__"
            )
        # Without strides Pillow requests a buffer, which a class cannot have before Python 3.12.
        return interop.array_interface(self.map(), self.descriptor.array, strides=not hasattr(self, "__buffer__"))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if self._closed:
            raise AttributeError(f"this memory ({self.what()}) is closed; it has no __cuda_array_interface__")
        array = interop.gpu_arrays.device_array(self)
        if array is None:
            raise AttributeError("this memory is not on a GPU that CUDA finds; it has no __cuda_array_interface__")
        # A consumer of this dict holds the memory object, but no `ArrayHold`. So `close` cannot detect the consumer,
        # unlike a consumer of `device_array()`.
        return array.__cuda_array_interface__

    # GPU arrays.

    def device_array(
        self, dtype: object = None, shape: Axes = None, *, strides: Axes = None, offset: int = 0
    ) -> interop.DeviceArray:
        """Return a GPU array over the payload, zero copy. It supports DLPack and the CUDA array interface.

        dtype, shape, strides (bytes) and offset (bytes into the payload) override those of the descriptor. The first
        call imports memory of a Vulkan device into CUDA; memory of a CUDA device needs no import.
        Errors: ValueError for negative or overlapping strides, and if the array would extend outside the payload;
        UnsupportedError for memory that is not on a GPU, and for memory of an image.
        """
        array = interop.gpu_arrays.device_array(self, dtype=dtype, shape=shape, strides=strides, offset=offset)
        if array is None:
            raise interop.gpu_arrays.no_gpu_error(self.what(), self.device)
        return array

    def torch(self, dtype: object = None, shape: Axes = None, *, strides: Axes = None, offset: int = 0) -> Any:
        """Return a PyTorch tensor over the payload, zero copy: on the GPU if CUDA can use the memory, else on the host.

        Arguments and errors as `device_array`; UnsupportedError without PyTorch, or for an unsuitable build of it.
        For read-only memory, the operations of the tensor that write raise PermissionError. A write past them (a kernel
        of your own, `data_ptr()`) ends the process on the host, and the CUDA context of the process on a GPU.
        """
        array = interop.gpu_arrays.device_array(self, dtype=dtype, shape=shape, strides=strides, offset=offset)
        if array is None:
            return interop.torch_tensor_on_host(*self._laid_out(dtype, shape, strides, offset))
        return interop.torch_tensor(array)

    def cupy(self, dtype: object = None, shape: Axes = None, *, strides: Axes = None, offset: int = 0) -> Any:
        """Return a CuPy array over the payload, zero copy.

        Arguments and errors as `device_array`; UnsupportedError without CuPy. CuPy does not support read-only arrays:
        it does not refuse writes to read-only memory.
        """
        return interop.cupy_array(self.device_array(dtype, shape, strides=strides, offset=offset))

    def jax(self, dtype: object = None, shape: Axes = None, *, offset: int = 0) -> Any:
        """Return a row-major JAX array over the payload, zero copy: on the GPU if CUDA can use it, else on the host.

        JAX assumes that nobody changes the elements of an array: `freeze` the memory, or order the accesses, or make a
        copy (`jax.numpy.array(memory.numpy())`). Read-only memory of the host gives an array once it is frozen.

        Errors as `device_array`; UnsupportedError without JAX, for host memory that is read-only and not frozen, or
        that JAX would copy (64-bit types without its x64 mode, an offset that is not a multiple of 64).
        """
        array = interop.gpu_arrays.device_array(self, dtype=dtype, shape=shape, offset=offset)
        if array is None:
            return interop.jax_array_on_host(*self._laid_out(dtype, shape, None, offset), constant=self.frozen)
        return interop.jax_array(array)

    def access(
        self,
        *,
        stream: object = None,
        queue: bool = False,
        wait: Order | None = None,
        signal: Order | None = None,
    ) -> AbstractContextManager[interop.DeviceArray | Buffer]:
        """Return a context manager. In its block, one stream or queue uses the memory.

        Example: `with memory.access(stream=torch.cuda.current_stream()) as array:`.

        stream: the stream of CUDA work (None: the default stream). At the beginning of the block, the Vulkan device of
            this process releases the payload, and its work is waited for. At the end of the block, the stream is
            waited for. Yields a GPU array.
        queue: True for work on the queue of the Vulkan device instead. Ownership is acquired from
            VK_QUEUE_FAMILY_EXTERNAL at the beginning and released to it at the end. Yields the buffer over the memory.
        wait: a pair (timeline, value), or a list of them: the work in the block begins when the values are reached.
            The stream or queue waits, and not the host, unless the Vulkan device owns the payload: commands that end
            with `Commands.release` leave nothing to wait for.
        signal: such pairs, which are signaled when the work that was given to the stream or queue in the block is done.
            The end of the block then does not wait for it; the memory is held until the stream is done.
        Not ordered: work of other streams, queues and processes, which must wait for `signal`, or for the end of the
        block without it.
        Errors: as `device_array`, `buffer` and `Device.commands`; TypeError for an object that is not a stream.
        """
        check_flag(queue, "queue")
        if queue and stream is not None:
            raise ValueError("access() takes either a stream or the queue; use two blocks, one after the other")
        with late_imports():
            from extmem.api import access

        if queue:
            return cast("AbstractContextManager[Buffer]", access.on_queue(self, wait, signal))
        return access.on_stream(self, stream, wait, signal)

    if sys.version_info >= (3, 12):

        def __buffer__(self, flags: int) -> memoryview:
            # NumPy uses this rather than `__array__`, so the view must have the shape and type of the array.
            return interop.typed_view(self.map(), self.descriptor.array)

    # Use on the device.

    def buffer(self) -> Buffer:
        """Return a buffer over the whole payload, for `Device.commands()`.

        Each call returns the same buffer; it is destroyed with the memory. Its usage is that in the descriptor, else
        TRANSFER_SRC and TRANSFER_DST.
        Errors: UnsupportedError for memory dedicated to an image; as `Device.create_buffer`.
        """
        return cast("Buffer", operations.memory_buffer.buffer_over(self))

    def write(
        self,
        data: object,
        *,
        offset: int | None = None,
        cast: bool = False,
        progress: Callable[[int, int], object] | None = None,
    ) -> None:
        """Copy `data` into the payload. The device makes the copy; it is complete when this returns.

        data: an array of the payload's element type and shape; or bytes (bytes, bytearray, mmap, a memoryview of format
            "B", a `uint8` array of one axis), which are copied unchanged; or numbers of Python and lists of them,
            which are converted to the payload's element type if they fit it. If the descriptor of the payload contains
            no array, the bytes of any array are copied.
        offset: where in the payload the data begins, in bytes. With an offset, an array may be a part: the offset is
            then a multiple of the element size, and the axes of the array after the first are the payload's last axes.
        cast: whether elements of another type are converted, by NumPy's rule "same_kind".
        progress: a function that is called from time to time with the number of bytes that were copied and that of all
            bytes. An exception of it ends the copy and is raised; the payload then has the bytes that were reported.

        A CUDA device copies 1 MiB and more in pieces through pinned memory, several threads at a time; memory that is
        pinned already, it reads itself.

        The memory need not be host-visible. Ownership of the payload is acquired from VK_QUEUE_FAMILY_EXTERNAL before
        the copy and released to it afterwards. If the memory is dedicated to a buffer of the caller, the copy uses that
        buffer, once the caller has bound it, if its usage has TRANSFER_DST (to read: TRANSFER_SRC). Otherwise the host
        makes the copy, and the memory must be host-visible.

        Errors: AccessDeniedError for read-only memory; TypeError for other element types, byte orders, and Python
        objects; ValueError for another shape, and for data that would extend outside the payload; UnsupportedError for
        memory of an image, and for memory that is not host-visible of a buffer without that usage. After these errors
        nothing was copied.
        """
        with self.use() as record:
            record.check_writable("write")
            interop.transfer.write(record, data, offset, cast, progress)

    @overload
    def read(self, out: None = None, *, progress: Callable[[int, int], object] | None = None) -> NDArray[Any]: ...

    @overload
    def read(self, out: T, *, progress: Callable[[int, int], object] | None = None) -> T: ...

    def read(self, out: object = None, *, progress: Callable[[int, int], object] | None = None) -> Any:
        """Return a new array with a copy of the payload, made by the device. Shape and type are in the descriptor.

        out: what to copy into instead, and to return: an array of NumPy or a contiguous tensor of PyTorch on the CPU,
            of the payload's element type and shape; or a bytearray, a writable memoryview of format "B" or a `uint8`
            array of one axis, of the payload's size. It is faster, since the pages of new memory need not be made.
        progress: as for `write`; after an exception `out` has the bytes that were reported.
        Errors: TypeError for an `out` that cannot be written, is not in host memory, or has another element type;
        ValueError for another shape or size; UnsupportedError as `write`.
        """
        with self.use() as record:
            return interop.transfer.read(record, out, progress)

    def read_bytes(self, offset: int = 0, size: int | None = None) -> bytearray:
        """Return a copy, made by the device, of `size` bytes of the payload from `offset` (bytes); None: to the end.

        Errors: as `write`.
        """
        with self.use() as record:
            return interop.transfer.read_bytes(record, offset, size)

    def tobytes(self) -> bytes:
        """Return `bytes(memory.read_bytes())`. The name is that of the same method of NumPy arrays."""
        return bytes(self.read_bytes())

    def fill(self, value: int = 0) -> None:
        """Set every byte of the payload to `value` (0 to 255), by the device. Errors: as `write`."""
        with self.use() as record:
            record.check_writable("fill")
            interop.transfer.fill(record, value)

    # Changes in place.

    @property
    def generation(self) -> int:
        """The count of changes: 2 for each finished update, and odd while one runs. Readers compare it.

        Errors: UnsupportedError for memory without this count (host pointers, and memory of other programs).
        """
        with late_imports():
            from extmem.core import changes

        with self.use() as record:
            return changes.control_of(record).generation

    @property
    def torn(self) -> bool:
        """Whether a process ended during an update, or left it by an exception: some bytes are old and others new.

        The next `update` heals it. Errors: as `generation`.
        """
        with late_imports():
            from extmem.core import changes

        with self.use() as record:
            return changes.is_torn(record)

    def update(
        self, names: Iterable[str] | None = None, *, stream: object = None, timeout: float | None = None
    ) -> Update:
        """Return a block for changing the contents in place: `with memory.update():`.

        One process and thread at a time is in such a block; the others wait, for `timeout` seconds at most. At the end
        of the block `generation` is 2 greater than before it, and all who `wait` are woken. Readers see changes at once
        and in any order; those who use `stable` detect them.
        names: those of the named arrays that are changed, whose `generation` (`memory["name"].generation`) becomes the
            new one; None: all of the memory.
        stream: the stream of CUDA work that changes memory of a GPU (None: the default stream). Its work is waited for
            at the end of the block.
        A block that an exception leaves has not finished its update: the memory is torn then.

        Errors: AccessDeniedError for read-only memory; UnsupportedError as `generation`, and for memory that the object
        manager does not know (imported by file descriptor); KeyError for an unknown name; ValueError for names of
        memory without named arrays. At the beginning of the block WaitTimeoutError;
        PeerGoneError if the object manager does not reply.
        """
        with late_imports():
            from extmem.core import changes

        with self.use() as record:
            return changes.Update(record, names, timeout, _waiter(self, stream))

    def stable(self, *, stream: object = None, timeout: float | None = None) -> Stable:
        """Return a block for reading contents that no update changes meanwhile: `with memory.stable() as look:`.

        At its beginning the block waits until no update runs. At its end `look.changed` tells whether one began: then
        what was read is to be read again. `look.generation` is the generation that was read. It stops no writer.
        stream: the stream of CUDA work that reads memory of a GPU (None: the default stream). Its work is waited for at
            the end of the block.

        Errors: as `generation`. At the beginning of the block PeerGoneError if the memory is `torn`; WaitTimeoutError
        after `timeout` seconds.
        """
        with late_imports():
            from extmem.core import changes

        with self.use() as record:
            return changes.Stable(record, timeout, _waiter(self, stream))

    def wait(self, after: int | None = None, timeout: float | None = None) -> int:
        """Wait until an update is finished that is newer than a generation. Return the generation of the contents.

        after: the generation that is known; None: the current one. timeout: seconds; None for no limit. Signal handlers
            run meanwhile.
        It also returns if no newer one will come, because other memory has got the name (`superseded`) or the memory is
        `frozen`; the generation is then not newer.
        Errors: WaitTimeoutError (a TimeoutError); PeerGoneError if the memory is `torn`; as `generation`.
        """
        with late_imports():
            from extmem.core import changes

        with self.use() as record:
            return changes.wait(record, after, timeout)

    async def wait_async(self, after: int | None = None, timeout: float | None = None) -> int:
        """`wait` for coroutines: others run meanwhile. If it is cancelled, nothing of the wait remains.

        Errors: as `wait`.
        """
        with late_imports():
            from extmem.core import changes

        with self.use() as record:
            return await changes.wait_async(record, after, timeout)

    @property
    def frozen(self) -> bool:
        """Whether nobody writes to it any more (`freeze`). False for memory that cannot be frozen."""
        with self.use() as record:
            return record.is_frozen()

    def freeze(self, *, stream: object = None, timeout: float | None = None) -> None:
        """Let nobody write to it any more, this process neither. That is final; a second call does nothing.

        No `update` can begin, the right to write is refused to all who ask for it, and imports by handles and tickets
        that have it are read-only. All who `wait` are woken. The kernel enforces it for memory of the host: its file is
        sealed, and no process, driver or user can write to it or map it for writing. For memory of a GPU it is a rule
        that extmem follows in every process.
        stream: the stream of CUDA work that has written memory of a GPU (None: the default stream). It is waited for.
        timeout: seconds for which an update of another process or thread is waited for; None: without limit.

        Errors: LiveViewError if it is open or mapped for writing elsewhere, with the pids of these processes as far as
        they are known, or if an array or view of it is alive in this process; PeerGoneError if it is `torn`; as
        `update`. UnsupportedError for memory that a framework has lent, and on Windows. Nothing has changed then.
        """
        with late_imports():
            from extmem.core import freezing

        self.record.check_process()
        freezing.freeze(self, timeout, _waiter(self, stream))

    def flush(self) -> None:
        """vkFlushMappedMemoryRanges of the whole memory. Required after writes through `map()` to non-coherent memory.

        Does nothing for HOST_COHERENT memory.
        """
        with self.use() as record:
            record.device.backend.flush(record.allocation, 0, record.size)

    def invalidate(self) -> None:
        """vkInvalidateMappedMemoryRanges of all of it. Required before reads through `map()` of non-coherent memory.

        Does nothing for HOST_COHERENT memory.
        """
        with self.use() as record:
            record.device.backend.invalidate(record.allocation, 0, record.size)

    # Export.

    def export_handle(
        self, handle_type: vk.ExternalMemoryHandleTypeFlagBits | None = None
    ) -> NtHandle | KmtHandle | FdHandle:
        """Return a new handle to the payload, owned by the caller. Later calls return duplicates of it.

        handle_type: a type that the memory was allocated for; None: the first of NT handle, KMT handle and fd.
        Errors: RuleViolation (VUID-VkMemoryGetWin32HandleInfoKHR-handleType-00662,
        VUID-VkMemoryGetFdInfoKHR-handleType-00671) for a type that it was not allocated for.
        """
        with self.use() as record:
            return operations.exporting.export_handle(self, record, handle_type)

    def __copy__(self) -> NoReturn:
        raise operations.arguments.not_copied(self.what())

    def __deepcopy__(self, memo: dict[int, object]) -> NoReturn:
        raise operations.arguments.not_copied(self.what())

    # Description.

    def __dir__(self) -> list[str]:
        # Completion and debuggers read every listed attribute, and `record` raises once the memory is closed.
        return [name for name in super().__dir__() if name != "record"]

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ", read-only" if self.read_only else ""
        return f"<DeviceMemory {self.what()} on {self.device.name}{state}>"


class Buffer(BufferObject):
    """A VkBuffer. Made by `Device.create_buffer`; `close()` destroys it.

    Threads: as `DeviceMemory`. A buffer that is used by recorded commands is destroyed after them.
    """

    __slots__ = ()

    @property
    def device(self) -> Device:
        """The device that it belongs to."""
        return cast("Device", self._device)

    @property
    def memory(self) -> DeviceMemory | None:
        """The memory that it is bound to; None before the binding."""
        return cast("DeviceMemory | None", self._memory)


class Image(ImageObject):
    """A VkImage. Made by `Device.create_image`; `close()` destroys it.

    Threads: as `DeviceMemory`. An image that is used by recorded commands is destroyed after them.
    """

    __slots__ = ()

    @property
    def device(self) -> Device:
        """The device that it belongs to."""
        return cast("Device", self._device)

    @property
    def memory(self) -> DeviceMemory | None:
        """The memory that it is bound to; None before the binding."""
        return cast("DeviceMemory | None", self._memory)


memory_of = cast("Callable[[MemoryRecord, memoryview], DeviceMemory]", None)
"""Returns the memory object of a record; `memory_kinds` sets it."""
part_of = cast("Callable[[DeviceMemory, Any], Any]", None)
"""Returns a part of memory; `memory_kinds` sets it."""
_commands: type[Commands] | None = None
"""The class `Commands`, once it is imported: most programs use no queue."""


def _load_commands() -> type[Commands]:
    global _commands
    with late_imports():
        from extmem.api.commands import Commands

    _commands = Commands
    return Commands


def _waiter(memory: DeviceMemory, stream: object) -> Callable[[], None] | None:
    """Return what waits for the work of a stream on the memory; None for memory of the host."""
    if memory.device.kind == "host":
        return None
    with late_imports():
        from extmem.api import access

    return access.waiter(memory, stream)


shared_devices.device_class = Device
