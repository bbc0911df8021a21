"""`DeviceMemory`: one device's view of a payload, as a program holds it."""

from __future__ import annotations

import sys
import warnings
from contextlib import AbstractContextManager
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self
from weakref import ref

from extmem import interop, vk
from extmem.api import pickling
from extmem.core import arguments, exporting, resources, views
from extmem.core.memory_record import Closed, Holding
from extmem.errors import HandleStateError, LiveViewError
from extmem.handles import FdHandle, KmtHandle, NtHandle
from extmem.handles.here import HERE
from extmem.interop import Axes, gpu_arrays, stream_access, transfer
from extmem.owning import Use, unsettled
from extmem.sharing.layout import Axes, layout_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from extmem.api.device import Device
    from extmem.core.resources import Buffer, Resource
    from extmem.sharing.descriptor.descriptor import Descriptor

__all__ = ["DeviceMemory"]


class DeviceMemory:
    """Memory of a device, allocated here or imported (VkDeviceMemory).

    Ownership: holds the payload, and for NT types its shared object and name, until `close()`; views (memoryviews,
    arrays) keep it alive too, and closing under a live view raises LiveViewError. Lost without `close()`, it warns
    (ResourceWarning) and is closed. Made by `Device.allocate_memory`, `Device.allocate`, `extmem.open`.

    Threads: every method may be called from any thread, also while another one closes it. It works on this memory, or
    raises HandleStateError (or LiveViewError); what it uses is given back when it is done.

    Every method raises HandleStateError once closed, and in a forked child. What the memory is (name, size, descriptor
    and the like) can be read after `close()`, too.
    """

    __slots__ = ("__weakref__", "_arrays", "_closed", "_facts", "_hold", "_left", "_loans")

    def __init__(self, holding: Holding) -> None:
        self._closed = True  # until whoever makes it hands it out
        self._facts: Holding | Closed = holding
        self._hold = holding.hold()
        self._arrays: list[ref[Any]] = []
        """What its views look through, while there are any."""
        self._loans: list[ref[gpu_arrays.Loan]] = []
        """What GPU arrays of it hold, while there are any."""
        self._left: ref[Holding] | None = None
        """What a view kept, where the block that closes the memory ended with an exception."""
        self._closed = False

    # What it is.

    @property
    def device(self) -> Device:
        """The device that it belongs to."""
        return self._facts.device

    @property
    def descriptor(self) -> Descriptor:
        """The payload's self-description, as its exporter wrote it."""
        return self._facts.descriptor

    @property
    def name(self) -> str | None:
        """The name it was exported under or opened by, None for unnamed memory."""
        return self._facts.name

    @property
    def size(self) -> int:
        """The payload's size in bytes: what the exporter asked for (`allocation_size` may be larger)."""
        return self.descriptor.payload_size

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
    def resource(self) -> Resource | None:
        """The buffer or image that a dedicated payload belongs to, made by `open` like the exporter's; else None.

        Not bound yet, unless bytes were moved through it; it is destroyed with the memory, and None from then on.
        """
        facts = self._facts
        return None if isinstance(facts, Closed) else facts.resource

    @property
    def read_only(self) -> bool:
        """Whether it was imported through rights that do not include writing; its views are then read-only."""
        return not self._facts.writable

    @property
    def closed(self) -> bool:
        """True after `close()`."""
        return self._closed

    @property
    def holding(self) -> Holding:
        """The references behind it (for the library itself), which `use` keeps. Raises HandleStateError once closed."""
        facts = self._facts
        if self._closed or isinstance(facts, Closed):
            raise HandleStateError(f"this memory ({self._what()}) is closed; allocate or open it again")
        return facts

    def use(self) -> Use[Holding]:
        """A block in which nothing of it is given back (for the library itself): `with memory.use() as holding:`.

        Errors: HandleStateError once closed, and in a forked child.
        """
        holding = self.holding
        if holding.pid != HERE.pid:
            holding.check_process()
        return holding.use()

    # Looking at it.

    def map(self) -> memoryview:
        """A memoryview (format "B") of the payload, zero copy; read-only where `read_only`. vkMapMemory.

        Errors: UnsupportedError for memory that the host cannot see; OSError where the OS refuses the mapping.
        """
        holding = self.holding
        if holding.pid != HERE.pid:
            holding.check_process()
        return views.view(holding, self._arrays)

    def map_part(self, start: int, size: int) -> memoryview:
        """`size` bytes from `start` of the allocation, wherever the payload begins (for the library itself)."""
        holding = self.holding
        if holding.pid != HERE.pid:
            holding.check_process()
        return views.view_of_all(holding, self._arrays)[start : start + size]

    def numpy(self, dtype: object = None, shape: Axes = None, *, strides: Axes = None, offset: int = 0) -> NDArray[Any]:
        """A NumPy array over the payload, zero copy, with the array layout of the descriptor.

        dtype, shape, strides (bytes) and offset (bytes into the payload) override the descriptor's; else bytes.
        Errors: ValueError where it would reach outside the payload; UnsupportedError without NumPy.
        """
        layout = layout_for(self.size, self.descriptor.array, dtype=dtype, shape=shape, strides=strides, offset=offset)
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
        array = gpu_arrays.device_array(self) if dl_device is None or tuple(dl_device) != interop.CPU_DEVICE else None
        if array is not None:
            return array.__dlpack__(stream=stream, max_version=max_version, dl_device=dl_device, copy=copy)
        return interop.dlpack_capsule(
            self.numpy(), stream=stream, max_version=max_version, dl_device=dl_device, copy=copy
        )

    def __dlpack_device__(self) -> tuple[int, int]:
        array = gpu_arrays.device_array(self)
        return interop.CPU_DEVICE if array is None else array.__dlpack_device__()

    @property
    def __array_interface__(self) -> dict[str, Any]:
        if self._closed or not self.host_visible:
            raise AttributeError(f"this memory ({self._what()}) is closed, or not to be seen by the host")
        # Without strides Pillow requests a buffer, which a class cannot have before Python 3.12.
        return interop.array_interface(self.map(), self.descriptor.array, strides=not hasattr(self, "__buffer__"))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if self._closed:
            raise AttributeError(f"this memory ({self._what()}) is closed; it has no __cuda_array_interface__")
        array = gpu_arrays.device_array(self)
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
        array = gpu_arrays.device_array(self, dtype=dtype, shape=shape, strides=strides, offset=offset)
        if array is None:
            raise gpu_arrays.on_no_gpu(self._what(), self.device)
        return array

    def torch(self, dtype: object = None, shape: Axes = None, *, strides: Axes = None, offset: int = 0) -> Any:
        """A PyTorch tensor over the payload, zero copy: on the GPU where CUDA knows it, else on the host.

        Arguments and errors as `device_array`; UnsupportedError without PyTorch, or for a build that does not suit.
        Read-only memory gives a tensor whose writing operations raise PermissionError.
        """
        array = gpu_arrays.device_array(self, dtype=dtype, shape=shape, strides=strides, offset=offset)
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
        array = gpu_arrays.device_array(self, dtype=dtype, shape=shape, offset=offset)
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
        return stream_access.on_queue(self) if queue else stream_access.on_stream(self, stream)

    def lent(self, holding: Holding) -> gpu_arrays.Loan:
        """What a GPU array of this memory holds (for the library itself). `holding`: its own, in use."""
        return gpu_arrays.loan(holding, self._loans)

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
        return resources.buffer_over(self)

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
        with self.use() as holding:
            holding.check_writable("write")
            transfer.write(holding, data, offset, cast)

    def read(self) -> NDArray[Any]:
        """A new array with the payload's contents, copied by the device. Shape and type are the descriptor's."""
        with self.use() as holding:
            return transfer.read(holding)

    def read_bytes(self, offset: int = 0, size: int | None = None) -> bytearray:
        """`size` bytes of the payload from `offset` on (None: to the end), copied by the device. Errors: as `write`."""
        with self.use() as holding:
            return transfer.read_bytes(holding, offset, size)

    def tobytes(self) -> bytes:
        """The payload's bytes, copied by the device: `bytes(memory.read_bytes())`, under the name that NumPy has."""
        return bytes(self.read_bytes())

    def fill(self, value: int = 0) -> None:
        """Set every byte to `value` (0 to 255), by the device. Errors: as `write`."""
        with self.use() as holding:
            holding.check_writable("fill")
            transfer.fill(holding, value)

    def flush(self) -> None:
        """vkFlushMappedMemoryRanges of all of it: needed after writing through `map()` to memory that is not coherent.

        Does nothing for HOST_COHERENT memory.
        """
        with self.use() as holding:
            holding.device.driver.flush(holding.allocation, 0, holding.size)

    def invalidate(self) -> None:
        """vkInvalidateMappedMemoryRanges of all of it: needed before reading through `map()`, as `flush`."""
        with self.use() as holding:
            holding.device.driver.invalidate(holding.allocation, 0, holding.size)

    # Passing it on.

    def export_handle(
        self, handle_type: vk.ExternalMemoryHandleTypeFlagBits | None = None
    ) -> NtHandle | KmtHandle | FdHandle:
        """A new handle to the payload, owned by the caller; as many as asked for (duplicates are made by us).

        handle_type: one that the memory was exported for; None takes the strongest (NT handle, KMT handle, fd).
        Errors: RuleViolation (VUID-VkMemoryGetWin32HandleInfoKHR-handleType-00662,
        VUID-VkMemoryGetFdInfoKHR-handleType-00671) for a type that it was not exported for.
        """
        with self.use() as holding:
            return exporting.export_handle(self, holding, handle_type)

    def __reduce__(self) -> tuple[object, ...]:
        with self.use() as holding:
            return pickling.reduce_memory(holding)

    def __copy__(self) -> NoReturn:
        raise arguments.not_copied(self._what())

    def __deepcopy__(self, memo: dict[int, object]) -> NoReturn:
        raise arguments.not_copied(self._what())

    # The end.

    def close(self) -> None:
        """Free it (vkFreeMemory). Safe to call twice. The payload lives on while any handle or other memory holds it.

        Where another thread uses it at this moment, that one frees it when it is done. Called again after it raised,
        it tries again.
        Errors: LiveViewError while an array or memoryview still looks at it; nothing has changed then. PeerGoneError
        where the object manager does not answer; memory and descriptors are given back then, the name is not yet.
        """
        if self._looked_at() and (not self._closed or self._left is not None):
            raise LiveViewError(
                f"an array or memoryview still looks at this memory ({self._what()}); "
                "delete it (or let it go out of scope) before closing, or copy what you need"
            )
        holding = self._facts
        if isinstance(holding, Closed):
            return
        # No call between the two, so no signal handler either: what is marked as closed, somebody gives back.
        here = get_ident()
        unsettled[holding] = here
        self._closed = True
        self._hold.release()
        holding.end()
        self._facts = holding.closed_facts()

    def __enter__(self) -> Self:
        self.holding.check_process()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self._looked_at():
            # The error in flight holds the frame that holds the view; it matters more than the open memory.
            self._leave_to_the_view()
            return
        self.close()

    def _looked_at(self) -> bool:
        """Whether a memoryview or array over the memory is still alive."""
        return bool(self._arrays or self._loans)

    def _leave_to_the_view(self) -> None:
        """Let go; when the last view is lost, everything is given back."""
        holding = self._facts
        if not isinstance(holding, Closed):
            self._closed = True
            self._left = ref(holding)
            self._hold.release()
            self._facts = holding.closed_facts()

    def _what(self) -> str:
        return f"{self.name!r}, " * (self.name is not None) + f"{self.size} bytes"

    def __dir__(self) -> list[str]:
        # Completion and debuggers read all that is listed here, and this raises once the memory is closed.
        return [name for name in super().__dir__() if name != "holding"]

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ", read-only" if self.read_only else ""
        return f"<DeviceMemory {self._what()} on {self.device.name}{state}>"

    def __del__(self) -> None:
        # It warns, and nothing more: what the memory holds gives itself back.
        if not getattr(self, "_closed", True) and not sys.is_finalizing() and not self._looked_at():
            # The source was made with it: a warning that is kept must not keep the memory open.
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self._arrays, stacklevel=2)
