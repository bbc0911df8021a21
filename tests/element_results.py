"""What each framework makes of memory of each element type: the array itself, byte for byte, or a refusal by name.

How this works. `result` makes an array of a framework over memory with known bytes and checks that it is that memory,
with these bytes and an element type of the same meaning. If the framework is refused the memory, the message must name
the element type, and the view of the bytes that it advises is made and checked, too. The memory is that of any device:
that of a GPU is compared by its address there. `results` does it for every element type. tests/unit/interop and
tests/gpu use it, and `python -m scripts.element_types` writes its results to docs/element-types.md.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
import warnings
from collections.abc import Callable
from typing import Any

from extmem import UnsupportedError
from extmem.api import Device, DeviceMemory
from extmem.interop import capsules
from extmem.sharing.dtypes import element_of
from extmem.sharing.elements import ELEMENT_NAMES, FOREIGN, ElementType, element_type

__all__ = [
    "FRAMEWORKS",
    "MODULES",
    "NONE",
    "ON_GPU",
    "ON_HOST",
    "SHAPE",
    "TEXTS",
    "capsule_of",
    "fill",
    "result",
    "results",
]

SHAPE = (3, 8)
"""Rows of packed elements of any size end at a byte."""

TEXTS = (
    *ELEMENT_NAMES,
    "datetime64[ns]",
    "timedelta64[25us]",
    "bytes3",
    "str2",
    "void4",
    '{"x":float32@0,"m":(2,3)int16@4}16',
    f"{FOREIGN}float32",
    f"{FOREIGN}complex128",
    f"{FOREIGN}bfloat16",
    f"{FOREIGN}datetime64[s]",
    f"{FOREIGN}str2",
)
"""All numbers, and an example of every other kind of element."""

NONE = "–"
"""The result where a framework has no type of this meaning, and no call of extmem is involved."""
_VIEW = re.compile(r"memory\.(numpy|torch|jax|cupy)\('(\w+)'(, memory\.shape)?\)")


def fill(memory: DeviceMemory) -> bytes:
    """Write bytes that differ from their neighbours to the memory, and return them. Those of bool are 0 and 1."""
    octets = bytes(n & 1 if memory.dtype == "bool" else n % 249 + 1 for n in range(memory.nbytes))
    memory.write(octets)
    return octets


def _numpy(memory: DeviceMemory, *view: Any) -> tuple[bytes, int, Any]:
    array = memory.numpy(*view)
    return array.tobytes(), array.ctypes.data, array.dtype


def _torch(memory: DeviceMemory, *view: Any) -> tuple[bytes, int, Any]:
    import torch

    tensor = memory.torch(*view)
    return tensor.reshape(-1).view(torch.uint8).cpu().numpy().tobytes(), tensor.data_ptr(), tensor.dtype


def _jax(memory: DeviceMemory, *view: Any) -> tuple[bytes, int, Any]:
    import numpy

    array = memory.jax(*view)
    return numpy.asarray(array).tobytes(), array.unsafe_buffer_pointer(), array.dtype


def _cupy(memory: DeviceMemory, *view: Any) -> tuple[bytes, int, Any]:
    array = memory.cupy(*view)
    return array.get().tobytes(), int(array.data.ptr), array.dtype


FRAMEWORKS: dict[str, Callable[..., tuple[bytes, int, Any]]] = {
    "numpy": _numpy,
    "torch": _torch,
    "jax": _jax,
    "cupy": _cupy,
}
"""Methods of memory, and what they make of it: the bytes, the address and the type of the array."""

ON_HOST = ("numpy", "torch", "jax", "pyarrow", "dlpack")
"""What gets memory that the host can map."""
ON_GPU = ("read", "torch", "cupy", "jax", "dlpack")
"""What gets memory of a GPU."""

MODULES = {
    framework: all(importlib.util.find_spec(module) for module in needed)
    for framework, needed in (
        ("numpy", ("numpy", "ml_dtypes")),
        ("read", ("numpy", "ml_dtypes")),
        ("torch", ("torch",)),
        ("jax", ("jax",)),
        ("cupy", ("cupy",)),
        ("pyarrow", ("pyarrow",)),
        ("dlpack", ("numpy",)),
    )
}
"""Whether a framework is installed here. NumPy counts with ml_dtypes."""


def results(device: Device, framework: str) -> dict[str, str]:
    """Return what a framework makes of every element type on a device: see `result`; `NONE` if it has no such type."""
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of complex32
        for text in TEXTS:
            with device.allocate(SHAPE, text) as memory:
                octets = fill(memory)
                found[text] = _SPECIAL.get(framework, _of_framework)(memory, framework, octets)
    return found


def _of_framework(memory: DeviceMemory, framework: str, octets: bytes) -> str:
    return result(memory, framework, octets, _address(memory))


def _address(memory: DeviceMemory) -> int:
    if memory.host_visible:
        import numpy

        return int(numpy.frombuffer(memory.map(), "uint8").ctypes.data)
    return int(memory.device_array().pointer)


def _read(memory: DeviceMemory, framework: str, octets: bytes) -> str:
    """The array that `read` copies from the device to NumPy."""
    try:
        array = memory.read()
    except UnsupportedError as error:
        assert "memory.read_bytes()" in error.requires_one_of and memory.read_bytes() == octets, str(error)
        return "memory.read_bytes()"
    assert array.tobytes() == octets and element_of(array.dtype).text == memory.dtype, memory.dtype
    return ""


def capsule_of(exporter: Any) -> tuple[object, Any]:
    """Return a capsule, which must be held, and the structure in it (DLManagedTensorVersioned)."""
    capsule = exporter.__dlpack__(max_version=(1, 1))
    name = capsules._name_of(capsule)
    assert name == b"dltensor_versioned"
    return capsule, capsules._Versioned.from_address(capsules._pointer_of(capsule, name))


def _dlpack(memory: DeviceMemory, framework: str, octets: bytes) -> str:
    """The structure in the capsule, as another consumer reads it."""
    element, address = element_type(memory.dtype), _address(memory)
    exporter = memory if memory.host_visible else memory.device_array()
    if element.dlpack is None:
        try:
            capsule_of(exporter)
        except BufferError as error:
            assert "DLPack has no element type" in str(error), error
            return NONE
        raise AssertionError(f"a capsule of {element.text}, which DLPack lacks")
    capsule, found = capsule_of(exporter)
    tensor = found.tensor
    assert (tensor.code, tensor.bits, tensor.lanes) == element.dlpack and bool(found.flags & 4) is element.padded
    assert tuple(tensor.shape[axis] for axis in range(tensor.ndim)) == SHAPE
    assert tensor.data + tensor.byte_offset == address
    if memory.host_visible:
        assert ctypes.string_at(tensor.data + tensor.byte_offset, len(octets)) == octets
    del capsule
    return ""


def _pyarrow(memory: DeviceMemory, framework: str, octets: bytes) -> str:
    """An array of PyArrow over the memory, of the type that extmem takes for this element type."""
    import pyarrow

    candidates = [
        *(getattr(pyarrow, name)() for name in dir(pyarrow) if re.fullmatch(r"u?int\d+|float\d+", name)),
        *(make(unit) for make in (pyarrow.timestamp, pyarrow.duration) for unit in ("s", "ms", "us", "ns")),
        *(pyarrow.binary(size) for size in (3, 4, 8)),
    ]
    for found in candidates:
        try:
            alike = element_of(found).text == memory.dtype
        except ValueError:
            continue
        if alike:
            count = memory.size * 8 // found.bit_width
            array = pyarrow.Array.from_buffers(found, count, [None, pyarrow.py_buffer(memory.map())])
            assert array.buffers()[1].address == _address(memory), memory.dtype
            assert array.buffers()[1].to_pybytes()[: len(octets)] == octets
            del array
            return ""
    return NONE


_SPECIAL: dict[str, Callable[[DeviceMemory, str, bytes], str]] = {
    "read": _read,
    "dlpack": _dlpack,
    "pyarrow": _pyarrow,
}
"""What is no method of memory that returns an array over it."""


def result(memory: DeviceMemory, framework: str, octets: bytes, address: int) -> str:
    """Return "" if the framework's array is the memory itself; else the advice of the refusal, which works.

    address: of the memory, in this process. AssertionError if it is anything else.
    """
    make, element = FRAMEWORKS[framework], element_type(memory.dtype)
    try:
        seen, place, dtype = make(memory)
    except UnsupportedError as error:
        text = str(error)
    else:
        assert seen == octets and place == address, f"{element.text} in {framework}: other bytes, or a copy"
        assert _same_meaning(element_of(dtype), element), f"{element.text} in {framework} is {dtype}"
        return ""
    if (setting := 'jax.config.update("jax_enable_x64", True)') in text:
        import jax

        with jax.enable_x64(True):
            seen, place, dtype = make(memory)
        assert seen == octets and place == address and element_of(dtype) == element, f"{element.text} with {setting}"
        return setting
    assert element.text in text or element.fields, text
    found = _VIEW.search(text)
    assert found is not None and found[1] == framework, f"no view in {text!r}"
    view = (found[2], memory.shape) if found[3] else (found[2],)
    seen, place, _ = make(memory, *view)
    assert seen == octets and place == address, f"the view of {text!r} has other bytes"
    return found[0]


def _same_meaning(found: ElementType, wanted: ElementType) -> bool:
    # PyTorch has two packed numbers of 4 bits as one element, and as many elements less.
    return found == wanted or (found.text, wanted.text) == ("float4_e2m1fn_x2", "float4_e2m1fn_packed")
