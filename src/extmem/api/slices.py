"""`MemorySlice`: an array that is a part of a payload. It is what indexing of memory and of named arrays returns."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, NoReturn

from extmem import _pickles, interop
from extmem.api.device import DeviceMemory
from extmem.arguments import CheckedWhenMade, a_type, integer_of
from extmem.core import operations
from extmem.errors import UnsupportedError
from extmem.interop import numpy_views
from extmem.owning import late_imports
from extmem.sharing.elements import ElementType, element_type, nbytes_of
from extmem.sharing.layout import ArrayLayout, contiguous_strides
from extmem.sharing.limits import AXES_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from extmem.core.sharing_arrays import How

__all__ = ["MemorySlice", "part_of", "share_part", "slice_of"]


class MemorySlice(CheckedWhenMade):
    """An array in a part of a payload: `memory[2:5]`, `memory["encoder.weight"]`, and slices of these.

    Nothing is copied, and nothing is mapped before `numpy`, `torch`, `jax` or `cupy` is called. Ownership: it refers to
    its memory object, and does not keep it open; arrays made from it do. Memory that was made for the slice alone, by
    unpickling, is closed with `close`.
    Pickling sends the layout and the memory; who unpickles it can access the whole payload, with the sender's rights.

    Every method raises HandleStateError once the memory is closed.
    """

    __slots__ = ("__weakref__", "_layout", "_memory", "_name")
    _made_by = "memory[…]"
    _made_of = DeviceMemory

    def __init__(self, memory: DeviceMemory, layout: ArrayLayout, name: str = "") -> None:
        """layout: inside the payload, which the caller has checked. name: that of the array, for messages."""
        self._memory = memory
        self._layout = layout
        self._name = name

    # Properties.

    @property
    def memory(self) -> DeviceMemory:
        """The memory that it is a part of."""
        return self._memory

    @property
    def layout(self) -> ArrayLayout:
        """Where its elements are in the payload."""
        return self._layout

    @property
    def shape(self) -> tuple[int, ...]:
        """Elements per axis."""
        return self._layout.shape

    @property
    def dtype(self) -> str:
        """The element type's name."""
        return self._layout.dtype

    @property
    def strides(self) -> tuple[int, ...]:
        """Bytes between neighbours, per axis."""
        return self._layout.strides

    @property
    def offset(self) -> int:
        """Where its first element is, in bytes from the beginning of the payload."""
        return self._layout.offset

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self._layout.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of its elements, without gaps between them."""
        return nbytes_of(self._element, self._layout.shape)

    @property
    def generation(self) -> int:
        """The generation of the last finished update of this named array; for another part, that of its memory.

        Errors: as `DeviceMemory.generation`.
        """
        with late_imports():
            from extmem.core import changes

        with self._memory.use() as record:
            return changes.generation_of(record, self._name)

    @property
    def _element(self) -> ElementType:
        return element_type(self._layout.dtype)

    def __len__(self) -> int:
        if not self._layout.shape:
            raise TypeError("this array has no axes, and so no length; size is 1")
        return self._layout.shape[0]

    def __bool__(self) -> bool:
        return True  # as memory

    def __iter__(self) -> Iterator[MemorySlice]:
        return map(self.__getitem__, range(len(self)))

    def __contains__(self, value: object) -> bool:
        raise TypeError(f"parts of memory are not compared with values; use {value!r} in part.numpy()")

    # Slices.

    def __getitem__(self, index: Any) -> MemorySlice:
        return MemorySlice(self._memory, part_of(self._layout, index), self._name)

    # Views.

    def numpy(self) -> NDArray[Any]:
        """Return a NumPy array over the bytes, zero copy. Errors: as `DeviceMemory.numpy`."""
        layout = self._layout
        return self._memory.numpy(layout.dtype, layout.shape, strides=layout.strides, offset=layout.offset)

    def torch(self) -> Any:
        """Return a PyTorch tensor over the bytes, zero copy. Errors: as `DeviceMemory.torch`."""
        layout = self._layout
        return self._memory.torch(layout.dtype, layout.shape, strides=layout.strides, offset=layout.offset)

    def cupy(self) -> Any:
        """Return a CuPy array over the bytes, zero copy. Errors: as `DeviceMemory.cupy`."""
        layout = self._layout
        return self._memory.cupy(layout.dtype, layout.shape, strides=layout.strides, offset=layout.offset)

    def jax(self) -> Any:
        """Return a JAX array over the bytes, zero copy, of a part in row-major order. Errors: as `DeviceMemory.jax`."""
        layout = self._layout
        if layout.strides != contiguous_strides(layout.shape, self._element.step):
            raise UnsupportedError(
                f"JAX has row-major arrays only, and this part has the strides {layout.strides}; make a copy: "
                "jax.numpy.array(part.numpy())",
                requires_one_of=["a part in row-major order"],
            )
        return self._memory.jax(layout.dtype, layout.shape, offset=layout.offset)

    def device_array(self) -> interop.DeviceArray:
        """Return a GPU array over the bytes, zero copy. Errors: as `DeviceMemory.device_array`."""
        layout = self._layout
        return self._memory.device_array(layout.dtype, layout.shape, strides=layout.strides, offset=layout.offset)

    def __array__(self, dtype: object = None, copy: bool | None = None) -> NDArray[Any]:
        return numpy_views.as_requested(self.numpy(), dtype, copy)

    def __dlpack__(
        self,
        *,
        stream: object = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        layout = self._layout
        if dl_device is None or tuple(dl_device) != interop.CPU_DEVICE:
            array = interop.gpu_arrays.device_array(
                self._memory, dtype=layout.dtype, shape=layout.shape, strides=layout.strides, offset=layout.offset
            )
            if array is not None:
                return array.__dlpack__(stream=stream, max_version=max_version, dl_device=dl_device, copy=copy)
        return interop.dlpack_capsule(
            self._memory.map(), layout, stream=stream, max_version=max_version, dl_device=dl_device, copy=copy
        )

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._memory.__dlpack_device__()

    def read(self) -> NDArray[Any]:
        """Return a new array with a copy of the elements, made by the device."""
        layout = self._layout
        step = self._element.step
        if layout.strides == contiguous_strides(layout.shape, step):
            octets = self._memory.read_bytes(layout.offset, self.nbytes)
            return interop.numpy_view(memoryview(octets), ArrayLayout(layout.shape, layout.dtype, layout.strides))
        first, last = _range_of(layout, step)
        octets = self._memory.read_bytes(first, last - first)
        found = interop.numpy_view(
            memoryview(octets), ArrayLayout(layout.shape, layout.dtype, layout.strides, layout.offset - first)
        )
        return found.copy()

    # Sharing.

    def share(
        self, name: str | None = None, *, access: int | None = None, keep: object = None, replace: bool = False
    ) -> DeviceMemory:
        """Return memory of this part alone, which others open by `name`, zero copy.

        The name is that of the part: its shape and element type. It refers to the same payload, all of which openers
        can access. It ends with the memory that is returned, and with all imports of it.
        access: rights that others get, and the memory that is returned; default `Access.READ`. keep, replace: as for
            `Device.allocate`.
        Errors: NameTakenError, NameInvalidError; UnsupportedError on Windows, for strides that are negative or zero,
        and for memory of which there is no file.
        """
        with late_imports():
            from extmem.core import sharing_arrays

        return share_part(self, sharing_arrays.how(name, access, keep, replace))

    def close(self) -> None:
        """Close the memory: `slice.memory.close()`. Errors: LiveViewError while an array of it is alive."""
        self._memory.close()

    def __copy__(self) -> NoReturn:
        raise operations.arguments.not_copied("a slice")

    def __deepcopy__(self, memo: dict[int, object]) -> NoReturn:
        raise operations.arguments.not_copied("a slice")

    def __reduce__(self) -> tuple[Any, ...]:
        return _pickles.reduce_slice(self)

    def __repr__(self) -> str:
        name = f"{self._name!r}, " if self._name else ""
        return f"<MemorySlice {name}{self.dtype}{list(self.shape)} of {self._memory!r}>"


def slice_of(memory: DeviceMemory, index: Any) -> MemorySlice:
    """Return the part of the array in a payload that an index selects: the result of `memory[index]`.

    Errors: TypeError, IndexError for an index that does not fit.
    """
    array = memory.descriptor.array
    if array is None:
        layout = ArrayLayout((memory.size,), "uint8", (1,))
    else:
        layout = ArrayLayout(array.shape, array.dtype, array.strides)
    return MemorySlice(memory, part_of(layout, index))


def share_part(part: MemorySlice, how: How) -> DeviceMemory:
    """Share a part of memory: `MemorySlice.share`."""
    layout, element = part.layout, element_type(part.dtype)
    if element.packed or any(s <= 0 and n > 1 for s, n in zip(layout.strides, layout.shape, strict=True)):
        raise UnsupportedError(
            f"this part has the strides {layout.strides} of {layout.dtype}, which a descriptor does not describe; "
            "share a copy: extmem.share(part, copy=True)",
            requires_one_of=["positive strides", "copy=True"],
        )
    first, last = _range_of(layout, element.step)
    with late_imports():
        from extmem.core import aliases
        from extmem.sharing.descriptor import ArrayInfo
    with part.memory.use() as record:
        array = ArrayInfo(layout.shape, layout.dtype, layout.strides)
        return DeviceMemory(*aliases.share_part(record, array, first, last - first, how))


def part_of(layout: ArrayLayout, index: Any) -> ArrayLayout:
    """Return the layout of a part, by an index of integers, slices, `...` and None.

    Errors: IndexError outside the array, and for more indices than axes; TypeError for other indices, which would copy;
    ValueError for packed elements, of which a part may begin inside a byte.
    """
    element = element_type(layout.dtype)
    indices = list(index) if isinstance(index, tuple) else [index]
    dots = [at for at, one in enumerate(indices) if one is ...]
    if element.packed and not (dots and len(indices) == 1):
        raise ValueError(
            f"elements of {layout.dtype} are packed, so a part may begin inside a byte; use the whole array, or share "
            f"it as {element.unpacked.text}"
        )
    given = sum(one is not None and one is not ... for one in indices)
    if given > len(layout.shape) or len(dots) > 1:
        raise IndexError(f"{given} indices for {len(layout.shape)} axes; at most one is `...`")
    if len(layout.shape) + sum(one is None for one in indices) > AXES_LIMIT:
        raise IndexError(f"an array has at most {AXES_LIMIT} axes, and this index adds to {len(layout.shape)}")
    at = dots[0] if dots else len(indices)
    indices[at : at + len(dots)] = [slice(None)] * (len(layout.shape) - given)
    shape: list[int] = []
    strides: list[int] = []
    offset, axis = layout.offset, 0
    for one in indices:
        if one is None:
            shape.append(1)
            strides.append(0)
            continue
        extent, stride = layout.shape[axis], layout.strides[axis]
        axis += 1
        if isinstance(one, slice):
            start, stop, step = one.indices(extent)
            count = len(range(start, stop, step))
            shape.append(count)
            strides.append(stride * step)
            offset += start * stride if count else 0
            continue
        number = integer_of(one)
        if number is None:
            raise TypeError(
                f"the index {one!r} is {a_type(one)}; a part is selected by integers and slices. Lists and "
                "masks would copy: use them on memory.numpy() or memory.torch()"
            )
        if not -extent <= number < extent:
            raise IndexError(f"index {number} is outside an axis of {extent} elements")
        offset += (number % extent) * stride
    if 0 in shape:
        offset = layout.offset  # an axis without elements leaves no room for the steps of the other axes
    return ArrayLayout(tuple(shape), layout.dtype, tuple(strides), offset)


def _range_of(layout: ArrayLayout, item: int) -> tuple[int, int]:
    """Return the first byte and the end of the bytes of an array in the payload."""
    if not prod(layout.shape):
        return layout.offset, layout.offset
    reach = [(n - 1) * s for n, s in zip(layout.shape, layout.strides, strict=True)]
    first = layout.offset + sum(step for step in reach if step < 0)
    return first, layout.offset + sum(step for step in reach if step > 0) + item
