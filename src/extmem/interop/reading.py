"""What `DeviceMemory.read(out=…)` copies into: the bytes of an array or buffer of the program.

How this works. If the elements of `out` lie in memory in the order of the payload's, without gaps, the device copies
straight into it. For any other array it copies into new memory, from which NumPy copies then. Elements are not
converted: type, byte order and shape of an array must be those of the payload's array. An object without an element
type (bytearray, a memoryview of format "B"), and a `uint8` array of one axis, take the bytes of the whole payload.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from extmem.arguments import a_type
from extmem.interop.element_types import carried, element_of, numpy_dtype, numpy_module
from extmem.interop.numpy_views import new_octets, numpy_view
from extmem.sharing.elements import ElementType, element_type
from extmem.sharing.layout import DescribedArray, is_dense, layout_for

if TYPE_CHECKING:
    from extmem.sharing.layout import ArrayLayout

__all__ = ["Target", "target_of"]


class Target(msgspec.Struct, frozen=True):
    """Where the bytes of a payload are copied to."""

    octets: memoryview
    """Writable, as many bytes as are to be copied from the beginning of the payload."""
    finish: Callable[[], None] | None = None
    """Copies from `octets` into the program's array, where these are not its own; call it at the end."""

    def apart(self) -> Target:
        """Return a target that is new memory, for an `out` whose own bytes belong to the payload."""
        if self.finish is not None:
            return self
        own, octets = self.octets, new_octets(self.octets.nbytes)

        def finish() -> None:
            own[:] = octets

        return Target(octets, finish)


def target_of(out: object, size: int, described: DescribedArray | None) -> Target:
    """Return where `read` copies to. size: bytes of the payload. described: the array in its descriptor.

    Errors: TypeError for an object that is no writable array or buffer of the host, and for another element type;
    ValueError for another shape or size.
    """
    torch: Any = sys.modules.get("torch")
    if torch is not None and isinstance(out, torch.Tensor):
        return _of_tensor(torch, out, size, described)
    array: Any = out
    if not hasattr(out, "dtype"):
        try:
            view = memoryview(out)  # type: ignore[arg-type]  # the object may be of any type
        except (TypeError, ValueError, BufferError):
            raise TypeError(
                f"out is {a_type(out)}, which has no buffer that can be written; pass an array of NumPy, a "
                "tensor on the CPU, or a bytearray"
            ) from None
        if view.format in ("B", "b", "c") and view.c_contiguous:
            _check_writable(not view.readonly)
            return _of_bytes(view.cast("B") if view.nbytes else memoryview(bytearray()), size)
        array = numpy_module().asarray(view)
    elif not isinstance(out, numpy_module().ndarray):
        raise TypeError(
            f"out is a {type(out).__module__}.{type(out).__name__}, and read() copies into memory of the host; pass an "
            "array of NumPy, a tensor on the CPU, or a bytearray"
        )
    _check_writable(bool(array.flags.writeable))
    if array.ndim == 1 and array.dtype == "uint8" and array.flags.c_contiguous and array.nbytes == size:
        return Target(memoryview(array).cast("B") if size else memoryview(bytearray()))
    layout = _checked(element_of(array.dtype), array.shape, size, described)
    return _of_array(array, layout, size)


def _of_tensor(torch: Any, tensor: Any, size: int, described: DescribedArray | None) -> Target:
    if tensor.device.type != "cpu":
        raise TypeError(
            f"out is on {tensor.device}, and read() copies into memory of the host; copy on the device: "
            "out.copy_(memory.torch())"
        )
    whole = tensor.detach()
    if tensor.ndim == 1 and tensor.dtype is torch.uint8 and tensor.is_contiguous() and tensor.numel() == size:
        return _of_bytes(memoryview(whole.numpy()).cast("B") if size else memoryview(bytearray()), size)
    layout = _checked(element_of(tensor.dtype), tuple(tensor.shape), size, described)
    if not whole.is_contiguous():
        raise ValueError(
            f"out has strides {tuple(tensor.stride())}, and a tensor that read() copies into is contiguous; use "
            "out.copy_(torch.from_numpy(memory.read()))"
        )
    octets = whole.reshape(-1).view(torch.uint8).numpy()
    layout = carried(layout)  # numbers of NumPy that have as many bytes
    return _of_array(octets.view(numpy_dtype(layout.element)).reshape(layout.shape), layout, size)


def _check_writable(writable: bool) -> None:
    if not writable:
        raise TypeError("out is read-only; pass an array or buffer that may be written")


def _of_bytes(octets: memoryview, size: int) -> Target:
    if octets.nbytes != size:
        raise ValueError(f"out has {octets.nbytes} bytes and the payload {size}; pass a buffer of that size")
    return Target(octets)


def _checked(element: ElementType, shape: tuple[int, ...], size: int, described: DescribedArray | None) -> ArrayLayout:
    """Return the layout of the payload, if its element type and shape are these."""
    if described is None:
        raise TypeError(
            f"out is an array of {element.text}, and this payload describes no array; pass a bytearray or a uint8 "
            f"array of {size} bytes"
        )
    target = element_type(described.dtype)
    if element != target:
        raise TypeError(
            f"out is {element.text} and the payload holds {target.text}; read() converts no values: pass an array of "
            f"{target.text}, or use memory.read().astype(…)"
        )
    if shape != described.shape:
        raise ValueError(f"out has shape {shape} and the payload {described.shape}; pass an array of that shape")
    return layout_for(size, described)


def _of_array(array: Any, layout: ArrayLayout, size: int) -> Target:
    if not array.size:
        return Target(memoryview(bytearray()))
    shape, strides = layout.shape, layout.strides
    order = sorted(range(len(shape)), key=lambda axis: (strides[axis], shape[axis]))
    if is_dense(shape, strides, layout.element.step, order):
        ordered = array.transpose(order[::-1])
        if ordered.flags.c_contiguous:
            return Target(memoryview(ordered.reshape(-1).view("uint8")))
    octets = new_octets(size)

    def finish() -> None:
        numpy_module().copyto(array, numpy_view(octets, layout))

    return Target(octets, finish)
