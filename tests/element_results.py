"""What each framework makes of memory of each element type: the array itself, byte for byte, or a refusal by name.

How this works. `result` makes an array of a framework over memory with known bytes and checks that it is that memory,
with these bytes and an element type of the same meaning. If the framework is refused the memory, the message must name
the element type, and the view of the bytes that it advises is made and checked, too. tests/unit/interop uses it, and
`python -m scripts.element_types` writes its results to docs/element-types.md.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from typing import Any

from extmem import UnsupportedError
from extmem.api import DeviceMemory
from extmem.sharing.dtypes import element_of
from extmem.sharing.elements import ELEMENT_NAMES, FOREIGN, ElementType, element_type

__all__ = ["FRAMEWORKS", "MODULES", "SHAPE", "TEXTS", "fill", "result"]

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

_VIEW = re.compile(r"memory\.(numpy|torch|jax)\('(\w+)'(, memory\.shape)?\)")


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
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes(), tensor.data_ptr(), tensor.dtype


def _jax(memory: DeviceMemory, *view: Any) -> tuple[bytes, int, Any]:
    import numpy

    array = memory.jax(*view)
    return numpy.asarray(array).tobytes(), array.unsafe_buffer_pointer(), array.dtype


FRAMEWORKS: dict[str, Callable[..., tuple[bytes, int, Any]]] = {"numpy": _numpy, "torch": _torch, "jax": _jax}
"""Methods of memory, and what they make of it: the bytes, the address and the type of the array."""

MODULES = {
    framework: all(importlib.util.find_spec(module) for module in needed)
    for framework, needed in (("numpy", ("numpy", "ml_dtypes")), ("torch", ("torch",)), ("jax", ("jax",)))
}
"""Whether a framework is installed here. NumPy counts with ml_dtypes."""


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
