"""`DeviceArray`: an array in the memory of a GPU, with the protocols DLPack and the CUDA array interface.

How this works. The array consists of a pointer, a layout and a reference to the object that keeps the memory alive.
Frameworks hold the array (or the capsule, which holds it) as long as they use the memory. NumPy makes the DLPack
capsules, of an array at the address on the GPU that is never read; `capsules` replaces the device. NumPy supports the
versions 0.8 and 1.x and the read-only flag. No operation of extmem on the memory is still running when an array of it
is returned, so no stream has to wait for anything.

For an array that is requested repeatedly there is a pattern: a `DeviceArray` that keeps nothing alive. The layout is
checked once, and the driver is queried about the pointer once, for the pattern. `kept_by` makes an array from it that
keeps the memory alive.
"""

from __future__ import annotations

from math import prod
from typing import Any

from extmem.interop.element_types import carried, in_numpy, numpy_module
from extmem.interop.numpy_views import check_in_dlpack, refuse_pytorch
from extmem.owning import late_imports
from extmem.sharing.dtypes import typestr
from extmem.sharing.layout import ArrayLayout, contiguous_strides, overlapping_axis, without_odd_strides

__all__ = ["CUDA", "DeviceArray", "check_device_layout"]

CUDA = 2
"""kDLCUDA."""
_CUDA_HOST = (3, 0)
"""kDLCUDAHost: host memory that every GPU can access in this process."""
_VERSION = 3


def check_device_layout(layout: ArrayLayout) -> None:
    """Refuse layouts that GPU frameworks cannot use safely: negative, overlapping or uneven strides.

    Axes of one element may have any stride. Errors: ValueError.
    """
    element, item = layout.element, layout.element.step
    unit = "bits" if element.packed else "bytes"
    if layout.offset % (element.itemsize or 1):
        raise ValueError(f"offset {layout.offset} is not a multiple of the {item} bytes of {layout.dtype}")
    if prod(layout.shape) == 0:
        return
    for stride in (stride for extent, stride in zip(layout.shape, layout.strides, strict=True) if extent > 1):
        if stride < 0:
            raise ValueError(f"strides {layout.strides} are negative; use positive ones, and flip the array afterwards")
        if stride % item and not element.packed:
            raise ValueError(f"stride {stride} is not a multiple of the {item} bytes of {layout.dtype}")
    overlap = overlapping_axis(layout.shape, layout.strides, item)
    if overlap is not None:
        raise ValueError(
            f"shape {layout.shape} with strides {layout.strides} overlaps: along one axis, parts of {overlap[1]} "
            f"{unit} are {overlap[0]} {unit} apart; give strides with which no two elements share {unit}"
        )


class DeviceArray:
    """An array in the memory of a GPU, for `torch.from_dlpack`, `cupy.asarray` and `jax.dlpack.from_dlpack`.

    keep: an object that keeps the memory alive. This array, and everything that is made from it, hold it.
    hosted: whether it is host memory that the GPU can access; DLPack has a device type of its own for that.
    """

    __slots__ = ("_carried", "_keep", "_views", "hosted", "layout", "ordinal", "pointer", "read_only")

    def __init__(
        self,
        pointer: int,
        layout: ArrayLayout,
        ordinal: int,
        *,
        read_only: bool,
        keep: object,
        hosted: bool = False,
    ) -> None:
        check_device_layout(layout)
        layout = without_odd_strides(layout)
        self.pointer = pointer + layout.offset
        """Address of the first element."""
        self.layout = layout
        self.ordinal = ordinal
        """The ordinal of the device in CUDA, in this process."""
        self.read_only = read_only
        self.hosted = hosted
        self._keep = keep
        self._carried: ArrayLayout | None = None

    def kept_by(self, keep: object) -> DeviceArray:
        """Return the same array with another object that keeps the memory alive."""
        made = _bare(DeviceArray)
        made.pointer, made.layout, made.ordinal = self.pointer, self.layout, self.ordinal
        made.read_only, made.hosted, made._keep = self.read_only, self.hosted, keep
        made._carried = self._carried
        return made

    def as_writable(self) -> DeviceArray:
        """Return the same array without the read-only flag, for a consumer that refuses writes by itself."""
        made = self.kept_by(self._keep)
        made.read_only = False
        return made

    @property
    def carrier(self) -> DeviceArray:
        """The same bytes as an array of a type that every framework has; itself if its own type is one.

        Errors: ValueError for packed elements that do not fill their bytes.
        """
        layout = self._carried or carried(self.layout)
        self._carried = layout
        if layout is self.layout:
            return self
        made = self.kept_by(self._keep)
        made.layout = layout
        return made

    @property
    def shape(self) -> tuple[int, ...]:
        """Elements per axis."""
        return self.layout.shape

    @property
    def dtype(self) -> str:
        """The canonical text of the element type: "float32", "bfloat16"."""
        return self.layout.dtype

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """The interface, version 3. Its `stream` is None, because no work has to be waited for.

        Errors: AttributeError for an element type that consumers of the interface lack.
        """
        layout, element = self.layout, self.layout.element
        code = typestr(element)
        if code is None or not element.native or element.fields:
            # Consumers would take them for uninterpreted bytes, or for numbers of this machine's byte order.
            raise AttributeError(
                f"the CUDA array interface has no element type {element.text}; use device_array('uint8') for its bytes"
            )
        plain = layout.strides == contiguous_strides(layout.shape, element.step)
        return {
            "shape": layout.shape,
            "typestr": code,
            "data": (self.pointer if prod(layout.shape) else 0, self.read_only),
            "strides": None if plain else layout.strides,
            "stream": None,
            "version": _VERSION,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CUDA_HOST if self.hosted else (CUDA, self.ordinal)

    def __dlpack__(
        self,
        *,
        stream: object = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        """Return a capsule, made by NumPy.

        stream: the stream of the consumer, as the standard numbers streams (-1, None, 1, 2, a pointer).
        Errors: BufferError in the cases that the standard defines; UnsupportedError without NumPy.
        """
        if stream is not None and (not isinstance(stream, int) or stream == 0 or stream < -1):
            raise BufferError(f"stream {stream!r}: pass None, -1, 1, 2 or a stream's address; 0 is ambiguous")
        device = self.__dlpack_device__()
        if dl_device is not None and tuple(dl_device) != device:
            raise BufferError(
                f"this memory is on DLPack device {device}, not on {tuple(dl_device)}; copy the array to that device "
                "with the framework, or read it with memory.read()"
            )
        if copy:
            raise BufferError("extmem does not copy for DLPack; copy the array with the framework")
        if self.read_only:
            refuse_pytorch()
        if self.read_only and (max_version is None or max_version[0] < 1):
            raise BufferError(
                "this memory is read-only, and DLPack before 1.0 has no flag for that; use a consumer that requests "
                "max_version=(1, 0), or open the memory with Access.READ_WRITE"
            )
        return self.capsule(max_version)

    def capsule(self, max_version: tuple[int, int] | None = None) -> object:
        """Return the capsule of `__dlpack__` with its default arguments.

        Errors: UnsupportedError without NumPy; BufferError for an element type that DLPack lacks.
        """
        element = self.layout.element
        with late_imports():
            from extmem.interop import capsules

        if not in_numpy(element):
            check_in_dlpack(element, max_version)
            try:
                return capsules.retyped(self.carrier.capsule(max_version), element, self.layout.shape)
            except ValueError as error:
                raise BufferError(str(error)) from None
        array = numpy_module().asarray(_Addressed(self))
        return capsules.on_device(array.__dlpack__(max_version=max_version), self.__dlpack_device__())


class _Addressed:
    """What NumPy makes an array of, and what that holds: the address on a GPU, and what keeps the memory alive."""

    __slots__ = ("__array_interface__", "keep")

    def __init__(self, array: DeviceArray) -> None:
        layout = array.layout
        self.__array_interface__ = {
            "shape": layout.shape,
            "typestr": typestr(layout.element),
            "data": (array.pointer, array.read_only),
            "strides": layout.strides,
            "version": _VERSION,
        }
        self.keep = array._keep


_bare = object.__new__
