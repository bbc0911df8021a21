"""`DeviceArray`: an array in a GPU's memory, as the frameworks take it: DLPack and the CUDA array interface.

How this works. It is a pointer, a layout and a reference to what keeps the memory alive; frameworks hold it (or the
capsule, which does) as long as they look. DLPack capsules are cuda-core's, which speaks versions 0.8 and 1.x and knows
the read-only flag; nothing here is made by hand. Nothing that extmem does with the memory is still running when an
array of it is handed out, so no stream has to wait for anything.

An array that is handed out over and over has a pattern, which keeps nothing alive: the layout is checked, and the
driver asked what lies at the pointer, once. `kept_by` makes an array of it that does.
"""

from __future__ import annotations

from functools import cache
from math import prod
from typing import Any

from extmem import optional
from extmem.interop.numpy_views import refuse_pytorch
from extmem.sharing.dtypes import itemsize, typestr
from extmem.sharing.layout import ArrayLayout, contiguous_strides

__all__ = ["CUDA", "DeviceArray", "check_device_layout"]

CUDA = 2
"""kDLCUDA."""
_CUDA_HOST = (3, 0)
"""kDLCUDAHost: host memory that every GPU of the process sees."""
_VERSION = 3


def check_device_layout(layout: ArrayLayout) -> None:
    """Refuse what GPU frameworks cannot look at safely: negative, overlapping or uneven strides. Errors: ValueError.

    Axes of one element may have any stride.
    """
    item = itemsize(layout.dtype)
    if layout.offset % item:
        raise ValueError(f"offset {layout.offset} is no multiple of the {item} bytes of {layout.dtype}")
    if prod(layout.shape) == 0:
        return
    axes = sorted((stride, extent) for extent, stride in zip(layout.shape, layout.strides, strict=True) if extent > 1)
    reach = item
    for stride, extent in axes:
        if stride < 0:
            raise ValueError(f"strides {layout.strides} are negative; GPU arrays have none: flip the array afterwards")
        if stride % item:
            raise ValueError(f"stride {stride} is no multiple of the {item} bytes of {layout.dtype}")
        if stride < reach:
            raise ValueError(
                f"shape {layout.shape} with strides {layout.strides} overlaps: neighbours {stride} bytes apart share "
                f"bytes of what reaches over {reach}; give strides under which each element is one alone"
            )
        reach = stride * (extent - 1) + reach


class DeviceArray:
    """An array in a GPU's memory. Frameworks take it by `torch.from_dlpack`, `cupy.asarray`, `jax.dlpack.from_dlpack`.

    keep: what keeps the memory alive while this object, or what was made of it, lives. hosted: it is host memory that
    the GPU sees, which DLPack tells apart.
    """

    __slots__ = ("_keep", "_views", "hosted", "layout", "ordinal", "pointer", "read_only")

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
        self.pointer = pointer + layout.offset
        """Address of the first element."""
        self.layout = layout
        self.ordinal = ordinal
        """CUDA's number of the device in this process."""
        self.read_only = read_only
        self.hosted = hosted
        self._keep = keep
        self._views: dict[bool, tuple[Any, Any]] = {}
        """cuda-core's view of it, which keeps nothing, and NumPy's type; by whether it is read-only."""

    def kept_by(self, keep: object) -> DeviceArray:
        """The same array, kept alive by something else."""
        made = _bare(DeviceArray)
        made.pointer, made.layout, made.ordinal = self.pointer, self.layout, self.ordinal
        made.read_only, made.hosted, made._keep, made._views = self.read_only, self.hosted, keep, self._views
        return made

    def said_writable(self) -> DeviceArray:
        """The same, for a consumer that keeps the rule by itself where the array is read-only."""
        made = self.kept_by(self._keep)
        made.read_only = False
        return made

    @property
    def shape(self) -> tuple[int, ...]:
        """Elements per axis."""
        return self.layout.shape

    @property
    def dtype(self) -> str:
        """Element type name."""
        return self.layout.dtype

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3. `stream` is None: there is nothing to wait for."""
        layout = self.layout
        plain = layout.strides == contiguous_strides(layout.shape, itemsize(layout.dtype))
        name = layout.dtype
        return {
            "shape": layout.shape,
            "typestr": typestr(name),
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
        """A capsule of cuda-core's. stream: the consumer's, as the standard numbers them (-1, None, 1, 2, a pointer).

        Errors: BufferError where the standard asks for it; UnsupportedError without cuda-core.
        """
        if stream is not None and (not isinstance(stream, int) or stream == 0 or stream < -1):
            raise BufferError(f"stream {stream!r}: pass None, -1, 1, 2 or a stream's address; 0 is ambiguous")
        here = self.__dlpack_device__()
        if dl_device is not None and tuple(dl_device) != here:
            raise BufferError(
                f"this memory is on DLPack device {here}, not on {tuple(dl_device)}; copy it "
                "there with the framework, or read it with memory.read()"
            )
        if copy:
            raise BufferError("extmem does not copy for DLPack; copy the array with the framework")
        if self.read_only:
            refuse_pytorch()
        if self.read_only and (max_version is None or max_version[0] < 1):
            raise BufferError(
                "this memory is read-only, which DLPack before 1.0 cannot say; use a consumer that asks for "
                "max_version=(1, 0), or open it with Access.READ_WRITE"
            )
        return self.capsule(max_version)

    def capsule(self, max_version: tuple[int, int] | None = None) -> object:
        """What `__dlpack__` gives, for a consumer that has asked for nothing else. Errors: UnsupportedError."""
        known = self._views.get(self.read_only)
        if known is None:
            known = self._views[self.read_only] = self._seen_by_cuda_core()
        view, dtype = known
        one = view.view(dtype=dtype)
        one.keep = self._keep
        # -1: what has nothing to wait for needs no stream, and cuda-core none to order with.
        capsule: object = one.__dlpack__(stream=-1, max_version=max_version)
        return capsule

    def _seen_by_cuda_core(self) -> tuple[Any, Any]:
        numpy, buffer, view = _cuda_core()
        layout, item = self.layout, itemsize(self.layout.dtype)
        reach = item + sum((e - 1) * s for e, s in zip(layout.shape, layout.strides, strict=True) if e > 0)
        counts, dtype = tuple(stride // item for stride in layout.strides), numpy.dtype(layout.dtype)
        octets = buffer.from_handle(self.pointer, max(reach, item))
        return view.from_buffer(octets, layout.shape, counts, dtype=dtype, is_readonly=self.read_only), dtype


_bare = object.__new__


@cache
def _cuda_core() -> tuple[Any, Any, Any]:
    """NumPy, cuda-core's Buffer, and its view with room for what keeps the memory. Errors: UnsupportedError."""
    return optional.importing(
        _import_cuda_core,
        "numpy",
        "cuda.core",
        what="cuda-core",
        advice="DLPack of a GPU's memory needs it, and NumPy: pip install 'extmem[cuda]', or take the "
        "__cuda_array_interface__",
        package="cuda-core",
    )


def _import_cuda_core() -> tuple[Any, Any, Any]:
    import numpy
    from cuda.core import Buffer
    from cuda.core.utils import StridedMemoryView

    class KeptView(StridedMemoryView):  # type: ignore[misc,unused-ignore]
        """Capsules hold the view that made them, and so what the view keeps."""

        __slots__ = ("keep",)

    return numpy, Buffer, KeptView
