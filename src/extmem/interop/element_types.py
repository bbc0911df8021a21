"""Element types in the frameworks: the dtypes of NumPy and PyTorch, and what to use where a framework has none.

How this works. A framework that lacks an element type gets a *carrier* where that is exact: an unsigned integer of the
same size, whose array the framework then views as its own type. Nobody sees the carrier. Where a framework has no type
of the same meaning, the memory is refused to it, with the view of the bytes that works. No type is replaced by a
similar one: float8_e4m3 is not float8_e4m3fn, and packed elements are not those that take a byte each.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from extmem import optional
from extmem.errors import UnsupportedError
from extmem.sharing.dtypes import element_of
from extmem.sharing.elements import ElementType, element_type
from extmem.sharing.layout import ArrayLayout, contiguous_strides

__all__ = [
    "NUMPY_NAMES",
    "carried",
    "element_of",
    "in_numpy",
    "jax_name",
    "not_in",
    "numpy_dtype",
    "numpy_module",
    "torch_dtype",
]

NUMPY_NAMES = frozenset(
    ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
     "complex64", "complex128")
)  # fmt: skip
"""NumPy's own types of numbers, which are also those of its DLPack capsules."""
_LONG = frozenset(("float128", "complex256"))
"""Types that NumPy has only where C's `long double` takes 16 bytes."""
_JAX = (NUMPY_NAMES | {"bfloat16"} | {
    f"float8_{form}" for form in ("e3m4", "e4m3", "e4m3b11fnuz", "e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu")
})  # fmt: skip
"""The types that JAX takes from a DLPack capsule. It has small integers and float4 too, but not from one."""
_CARRIERS = {1: "uint8", 2: "uint16", 4: "uint32", 8: "uint64", 16: "complex128"}
_SIGNED = {1: "uint8", 2: "int16", 4: "int32", 8: "int64"}
"""The integers that every framework and every version of it has."""
_CODES = {"bytes": "S", "str": "U", "void": "V"}


def numpy_module() -> Any:
    """Return the module NumPy. Errors: UnsupportedError with the reason, where it cannot be imported."""
    return optional.load(
        "numpy",
        what="NumPy",
        advice="share(), numpy(), read(), DLPack, and write() of values that are not bytes need it: pip install "
        "'extmem[numpy]', or use allocate() and the bytes of map()",
        package="numpy",
    )


def not_in(framework: str, element: ElementType, call: str, reason: str = "") -> UnsupportedError:
    """Return the error for an element type that a framework lacks. call: the method of the memory, as "numpy"."""
    view = _SIGNED.get(element.itemsize or 0)
    wide = call == "jax" and element.itemsize == 8  # which JAX has in a mode that is off by default
    if view is None or wide or element.kind in ("bytes", "str", "void", "struct"):
        advice = f"memory.{call}('uint8') has its bytes"
    else:
        advice = f"memory.{call}({view!r}, memory.shape) has its bits as integers"
    return UnsupportedError(
        f"{framework} has no element type {element.text}{f' ({reason})' if reason else ''}; {advice}",
        requires_one_of=["a view of the bytes", "memory.read_bytes()"],
    )


def in_numpy(element: ElementType) -> bool:
    """Return whether it is one of NumPy's own numbers in this machine's byte order, which all frameworks exchange."""
    return element.text in NUMPY_NAMES


def numpy_dtype(element: ElementType) -> Any:
    """Return the dtype of NumPy or ml_dtypes.

    Errors: UnsupportedError without NumPy, for a type that neither has, and where ml_dtypes is needed and not
    installed; with the view that works.
    """
    numpy = numpy_module()
    if element.text in NUMPY_NAMES:
        return numpy.dtype(element.text)
    return _numpy_dtype(element.text, numpy)


@lru_cache(maxsize=256)
def _numpy_dtype(text: str, numpy: Any) -> Any:
    element = element_type(text)
    if element.fields:
        formats = [(numpy_dtype(one.element), one.shape) if one.shape else numpy_dtype(one.element)
                   for one in element.fields]  # fmt: skip
        names, offsets = [one.name for one in element.fields], [one.offset for one in element.fields]
        return numpy.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": element.itemsize})
    name = element.name
    if element.kind in _CODES:
        found = numpy.dtype(f"{_CODES[element.kind]}{name.removeprefix(element.kind)}")
    elif element.kind in ("datetime", "timedelta") or name in NUMPY_NAMES:
        found = numpy.dtype(name)
    elif name in _LONG:
        if name not in numpy.sctypeDict:
            raise not_in("NumPy on this machine", element, "numpy", "C's long double does not take 16 bytes here")
        found = numpy.dtype(name)
    else:
        return _of_ml_dtypes(element, numpy)
    return found if element.native else found.newbyteorder()


def _of_ml_dtypes(element: ElementType, numpy: Any) -> Any:
    if element.packed:
        raise not_in("NumPy", element, "numpy", "its elements take at least a byte")
    module = optional.load(
        "ml_dtypes",
        what="ml_dtypes",
        advice=f"NumPy has no {element.name} without it: pip install ml_dtypes, or use "
        f"memory.numpy({_SIGNED[element.itemsize or 1]!r}, memory.shape), its bits as integers",
        package="ml_dtypes",
    )
    found = getattr(module, element.name, None)
    if found is None:
        raise not_in(f"NumPy with ml_dtypes {getattr(module, '__version__', '')}", element, "numpy")
    if not element.native:
        raise not_in("NumPy with ml_dtypes", element, "numpy", "ml_dtypes has this machine's byte order only")
    return numpy.dtype(found)


def torch_dtype(element: ElementType, torch: Any) -> Any:
    """Return the dtype of PyTorch. torch: the module. Errors: UnsupportedError with the view that works.

    A row of an even number of packed float4_e2m1fn is a row of half as many float4_e2m1fn_x2.
    """
    name = "float4_e2m1fn_x2" if element.text == "float4_e2m1fn_packed" else element.text
    found = getattr(torch, name, None) if element.native and not element_type(name).packed else None
    if found is None or not isinstance(found, torch.dtype) or element.kind in ("bytes", "str", "void", "struct"):
        raise not_in(f"PyTorch {torch.__version__}", element, "torch")
    return found


def jax_name(element: ElementType) -> str:
    """Return the name of the type in JAX. Errors: UnsupportedError with the view that works."""
    if element.text not in _JAX:
        raise not_in("JAX", element, "jax", "for memory that it did not allocate")
    return element.text


def carried(layout: ArrayLayout) -> ArrayLayout:
    """Return the same bytes as an array of the carrier.

    Errors: ValueError for packed elements whose rows do not begin at bytes, or that are not in row-major order.
    """
    element = layout.element
    if in_numpy(element):
        return layout
    if not element.packed:
        return ArrayLayout(layout.shape, _CARRIERS[element.itemsize or 1], layout.strides, layout.offset)
    bits, shape = element.bits, layout.shape
    if not layout.row_major or not shape or (shape[-1] * bits) % 8:
        raise ValueError(
            f"{element.text} of shape {shape} with strides {layout.strides} (bits) has gaps, or rows that do not begin "
            "at a byte; use the bytes: dtype 'uint8'"
        )
    extents = (*shape[:-1], shape[-1] * bits // 8)
    return ArrayLayout(extents, "uint8", contiguous_strides(extents, 1), layout.offset)
