"""Arrays that a program shares: what they are, where they are, and how their elements are copied into a payload.

How this works. `source_of` looks at an array of any framework and returns an `ArraySource`: element type, shape,
strides, and the device. Nothing is copied or imported for it: a framework whose array it is has been imported. What has
no plain elements in memory (sparse, quantized, lazy and distributed tensors, masked arrays, Python objects) is refused
with the call that makes plain ones.

Arrays whose elements fill a range of bytes keep their strides in the payload, so that a tensor in column-major order
arrives in that order. Other arrays are copied in row-major order.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from math import prod
from typing import Any, Final

import msgspec

from extmem.arguments import a_type
from extmem.errors import UnsupportedError
from extmem.interop import arrow_tables
from extmem.interop.numpy_views import CPU_DEVICE, numpy_module
from extmem.sharing.descriptor import ArrayInfo
from extmem.sharing.dtypes import element_of
from extmem.sharing.elements import ElementType, nbytes_of
from extmem.sharing.layout import contiguous_strides, overlapping_axis, reach_of
from extmem.sharing.table import fills_range

__all__ = ["HOST", "ArraySource", "source_of"]

HOST: Final = "host"


class ArraySource(msgspec.Struct, frozen=True):
    """An array that is to be shared."""

    what: str
    """What it is, for messages: "a tensor"."""
    element: ElementType
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    """The strides in bytes of the array in a payload; None in row-major order."""
    device: str
    """`HOST`, or "cuda:N", N as CUDA in this process counts."""
    alias: tuple[object, ...]
    """Equal for arrays of the same bytes, in any layout that fills them."""
    values: Any
    """The array itself, detached; it keeps the memory alive."""
    address: int
    """The address of the first byte of its elements; 0 if there is none."""
    dense: bool
    """Whether its elements fill the bytes from `address` on, in the order that `strides` state."""
    copy_to: Callable[[Any, ArraySource], None]
    """Copies the elements to a writable buffer of bytes at the place of the array (host only)."""
    requires_grad: bool = False
    own_strides: tuple[int, ...] = ()
    """The strides in bytes that it has where it is now."""

    @property
    def reach(self) -> int:
        """Bytes from its first element to the end of its last, if a descriptor can describe it where it is.

        0 for empty arrays, packed elements, negative strides, and elements that share bytes, as after `expand`.
        """
        if self.dense:
            return self.nbytes
        if self.element.packed or overlapping_axis(self.shape, self.own_strides, self.element.step) is not None:
            return 0
        return reach_of(self.shape, self.own_strides, self.element)[1]

    @property
    def layout(self) -> ArrayInfo:
        """What it is where it is now, if `reach` is not 0."""
        return ArrayInfo(self.shape, self.element.text, self.steps if self.dense else self.own_strides)

    @property
    def nbytes(self) -> int:
        """Bytes in the payload."""
        return nbytes_of(self.element, self.shape)

    @property
    def steps(self) -> tuple[int, ...]:
        """The strides in a payload, also in row-major order."""
        return self.strides or contiguous_strides(self.shape, self.element.step)


def source_of(value: Any, path: str = "") -> ArraySource:
    """Return the array behind an object of any framework.

    path: where in a tree it is, for messages. Errors: TypeError for what is not an array, and for Python objects as
    elements; UnsupportedError for arrays without plain elements, with the call that makes them.
    """
    torch: Any = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _of_tensor(torch, value, path)
    if hasattr(value, "device_array") and value.__dlpack_device__() != CPU_DEVICE:
        return _of_own(value, path)
    jax: Any = sys.modules.get("jax")
    if jax is not None and hasattr(jax, "Array") and isinstance(value, jax.Array):
        return _of_jax(value, path)
    cupy: Any = sys.modules.get("cupy")
    if (cupy is not None and isinstance(value, cupy.ndarray)) or hasattr(value, "__cuda_array_interface__"):
        return _of_cuda(value, path)
    return _of_host(value, path)


def _at(path: str) -> str:
    return f" at {path}" if path else ""


def _strides_in_payload(shape: tuple[int, ...], strides: tuple[int, ...], item: int) -> tuple[bool, Any]:
    """Return whether the elements fill a range of bytes, and the strides in the payload (None in row-major order)."""
    dense = fills_range(shape, strides, item)
    plain = contiguous_strides(shape, item)
    if not dense or 0 in shape or all(n == 1 or s == p for n, s, p in zip(shape, strides, plain, strict=True)):
        return dense, None
    return dense, strides


# -- the host ---------------------------------------------------------------------------------------------------------


def _of_host(value: Any, path: str) -> ArraySource:
    numpy = numpy_module()
    if isinstance(value, numpy.ma.MaskedArray):
        raise UnsupportedError(
            f"the array{_at(path)} is masked, and its mask would be lost; share value.data and value.mask, or "
            "value.filled()",
            requires_one_of=["value.filled()"],
        )
    if isinstance(value, (str, int, float, complex, type(None))) and not isinstance(value, numpy.generic):
        raise TypeError(
            f"the value{_at(path)} is {value!r:.60}, {a_type(value)}, which is not an array; share "
            "numpy.asarray(value), numpy.asarray(list) for a list of numbers, or pass it as metadata"
        )
    arrow_tables.refuse_as_array(value, f"the {type(value).__name__}{_at(path)}")
    array = _as_numpy(numpy, value, path)
    if array.dtype.hasobject:
        remedy = "convert them first: value.astype('float32'), or the type that they have"
        if arrow_tables.is_column(value):
            remedy = "share a table with this column: value.to_frame(), or pyarrow.table({'name': value})"
        raise TypeError(
            f"the elements of the array{_at(path)} are Python objects ({array.dtype}), whose bytes are addresses in "
            f"this process; {remedy}"
        )
    element = element_of(array.dtype)
    dense, strides = _strides_in_payload(array.shape, array.strides, array.dtype.itemsize)
    address = int(array.__array_interface__["data"][0]) if array.size else 0
    alias = _alias(HOST, address, dense, array.nbytes, element.text, array.shape, array.strides)
    what = f"the {type(value).__name__}{_at(path)}"
    return ArraySource(
        what, element, array.shape, strides, HOST, alias, array, address, dense, _copy_numpy, False, array.strides
    )


def _as_numpy(numpy: Any, value: Any, path: str) -> Any:
    if isinstance(value, numpy.ndarray):
        return value
    if isinstance(value, numpy.generic):
        return numpy.asarray(value)
    try:
        view = memoryview(value)
    except TypeError:
        view = None
    except (ValueError, BufferError):  # elements without a format of the buffer protocol
        view = None
    if view is not None:
        if view.format in ("B", "c", "b") and isinstance(value, (bytes, bytearray, memoryview)) and view.contiguous:
            return numpy.frombuffer(view, "uint8" if view.format != "b" else "int8").reshape(view.shape or ())
        return numpy.asarray(view)
    if any(hasattr(value, name) for name in ("__array_interface__", "__array_struct__", "__array__")):
        return numpy.asarray(value)
    if hasattr(value, "__dlpack__"):
        return numpy.from_dlpack(value)
    model = callable(getattr(value, "state_dict", None))
    raise TypeError(
        f"the value{_at(path)} is {a_type(value)}, which is neither an array nor a buffer; share "
        + ("its state_dict()" if model else "arrays, tensors, buffers, and dictionaries, lists and tuples of them")
    )


def _copy_numpy(octets: Any, source: ArraySource) -> None:
    numpy, array = numpy_module(), source.values
    if not array.size:
        return
    target = numpy.ndarray(array.shape, array.dtype, buffer=octets, strides=source.strides)
    if array.dtype.names is not None or array.dtype.kind == "V":  # the bytes of gaps, and of unknown types, too
        target, array = target.view(f"V{array.dtype.itemsize}"), array.view(f"V{array.dtype.itemsize}")
    numpy.copyto(target, array)


def _alias(
    device: str,
    address: int,
    dense: bool,
    nbytes: int,
    text: str,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
) -> tuple[object, ...]:
    if not address or not nbytes:
        return ()
    return (device, address, nbytes) if dense else (device, address, text, shape, strides)


# -- PyTorch ----------------------------------------------------------------------------------------------------------


def _of_tensor(torch: Any, tensor: Any, path: str) -> ArraySource:
    what = f"the tensor{_at(path)}"
    _refuse_tensor(torch, tensor, what)
    read_only = sys.modules.get("extmem.interop.read_only_tensor")
    plain = tensor.detach()
    if read_only is not None and isinstance(plain, read_only.ReadOnlyTensor):
        plain = plain._plain()
    element = element_of(plain.dtype)
    item = plain.element_size()
    shape = tuple(map(int, plain.shape))
    steps = tuple(int(step) * item for step in plain.stride())
    dense, strides = _strides_in_payload(shape, steps, item)
    device = HOST if plain.device.type == "cpu" else f"cuda:{plain.device.index}"
    address = int(plain.data_ptr()) if plain.numel() else 0
    alias = _alias(device, address, dense, prod(shape) * item, element.text, shape, steps)
    grad = bool(tensor.requires_grad)
    return ArraySource(what, element, shape, strides, device, alias, plain, address, dense, _copy_tensor, grad, steps)


def _refuse_tensor(torch: Any, tensor: Any, what: str) -> None:
    plain = [torch.Tensor, torch.nn.Parameter, getattr(torch.nn, "Buffer", torch.Tensor)]
    kind = remedy = ""
    if tensor.is_nested:
        kind, remedy = "nested", "tensor.unbind()"
    elif tensor.layout is not torch.strided:
        kind, remedy = f"sparse ({tensor.layout})", "tensor.to_dense()"
    elif tensor.is_quantized:
        kind, remedy = "quantized", "tensor.dequantize()"
    elif tensor.device.type == "meta":
        kind, remedy = (
            "on the device meta, without elements",
            "a tensor with elements",
        )
    elif tensor.device.type not in ("cpu", "cuda"):
        kind, remedy = f"on the device {tensor.device}", "tensor.cpu()"
    elif tensor.is_conj():
        kind, remedy = "a lazy conjugate", "tensor.resolve_conj()"
    elif tensor.is_neg():
        kind, remedy = "a lazy negative", "tensor.resolve_neg()"
    elif type(tensor) not in plain and type(tensor).__name__ != "ReadOnlyTensor":
        kind = f"{a_type(tensor)}, whose elements may be elsewhere than in one plain tensor"
        remedy = "tensor.to_local()" if hasattr(tensor, "to_local") else "the plain tensors that it consists of"
    if kind:
        raise UnsupportedError(f"{what} is {kind}; share {remedy}", requires_one_of=[remedy])


def _copy_tensor(octets: Any, source: ArraySource) -> None:
    torch, tensor = sys.modules["torch"], source.values
    if not tensor.numel():
        return
    target = tensor_over(torch, octets, tensor.dtype, source)
    target.copy_(tensor)


def tensor_over(torch: Any, octets: Any, dtype: Any, source: ArraySource) -> Any:
    """Return a plain tensor of the array's layout over a writable buffer of bytes."""
    item = dtype.itemsize
    base = torch.from_numpy(numpy_module().frombuffer(octets, "uint8")).view(dtype)
    steps = source.strides or contiguous_strides(source.shape, item)
    return base.as_strided(source.shape, tuple(step // item for step in steps))


# -- JAX and CUDA -----------------------------------------------------------------------------------------------------


def _of_jax(array: Any, path: str) -> ArraySource:
    what = f"the JAX array{_at(path)}"
    devices = tuple(array.devices())
    if len(devices) != 1 or not array.is_fully_addressable:
        raise UnsupportedError(
            f"{what} is distributed over {len(devices)} devices; share its parts: array.addressable_shards",
            requires_one_of=["an array on one device"],
        )
    if devices[0].platform == "cpu":
        return msgspec.structs.replace(_of_host(numpy_module().asarray(array), path), what=what)
    if devices[0].platform in ("gpu", "cuda"):
        return _of_cuda(array.block_until_ready(), path)
    raise UnsupportedError(
        f"{what} is on {devices[0]}; share a copy on the host: jax.device_get(array)",
        requires_one_of=["an array on the host or on a GPU that CUDA supports"],
    )


def _of_own(memory: Any, path: str) -> ArraySource:
    """Return memory of extmem on a GPU, or a part of it."""
    values = memory.device_array()
    shape, steps, element = values.layout.shape, values.layout.strides, values.layout.element
    dense, strides = _strides_in_payload(shape, steps, element.step)
    address = values.pointer if prod(shape) else 0
    device = f"cuda:{values.ordinal}"
    alias = _alias(device, address, dense, nbytes_of(element, shape), element.text, shape, steps)
    what = f"the {type(memory).__name__}{_at(path)}"
    return ArraySource(
        what, element, shape, strides, device, alias, values, address, dense, _copy_nothing, False, steps
    )


def _of_cuda(value: Any, path: str) -> ArraySource:
    """Return an array with the CUDA array interface."""
    interface = value.__cuda_array_interface__
    what = f"the {type(value).__name__}{_at(path)}"
    numpy = numpy_module()
    dtype = numpy.dtype(getattr(value, "dtype", None) or interface["typestr"])
    element = element_of(dtype)
    shape = tuple(map(int, interface["shape"]))
    steps = interface.get("strides")
    steps = contiguous_strides(shape, dtype.itemsize) if steps is None else tuple(map(int, steps))
    dense, strides = _strides_in_payload(shape, steps, dtype.itemsize)
    address = int(interface["data"][0] or 0) if prod(shape) else 0
    index = getattr(getattr(value, "device", None), "id", 0)
    device = f"cuda:{index if isinstance(index, int) else 0}"
    alias = _alias(device, address, dense, prod(shape) * dtype.itemsize, element.text, shape, steps)
    return ArraySource(what, element, shape, strides, device, alias, value, address, dense, _copy_nothing, False, steps)


def _copy_nothing(octets: Any, source: ArraySource) -> None:
    raise UnsupportedError(
        f"{source.what} is on {source.device}, and the payload is on the host; copy it first with its framework",
        requires_one_of=["an array on the host"],
    )
