"""DLPack capsules of element types and devices that NumPy lacks: its capsules, with the type or the device replaced.

How this works. NumPy makes capsules of its own types only, on the CPU. The capsule of an array of unsigned integers of
the same size has the right address, extents and owner, and a function in C that ends it, at any time and on any thread.
Before the capsule is passed on, the element type in its structure is replaced by the real one. The extents and strides
of packed elements, of which a byte has several, are replaced too; their number stays the same. An array on a GPU is one
of NumPy at that address, which nothing reads, and its device is replaced.

Structures: dlpack.h 1.1, DLManagedTensor ("dltensor") and DLManagedTensorVersioned ("dltensor_versioned").
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from extmem.errors import InternalError
from extmem.sharing.elements import ElementType
from extmem.sharing.layout import contiguous_strides

__all__ = ["on_device", "retyped"]

_PADDED = 4
"""DLPACK_FLAG_BITMASK_IS_SUBBYTE_TYPE_PADDED, since DLPack 1.1."""


class _Tensor(ctypes.Structure):
    """DLTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Versioned(ctypes.Structure):
    """DLManagedTensorVersioned."""

    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


_name_of = ctypes.pythonapi.PyCapsule_GetName
_name_of.restype, _name_of.argtypes = ctypes.c_char_p, (ctypes.py_object,)
_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype, _pointer_of.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)


def retyped(capsule: object, element: ElementType, shape: Sequence[int]) -> object:
    """Return the capsule, which is of an array of carriers, with this element type, which DLPack has.

    shape: in elements. Errors: InternalError for a capsule that is not one of DLPack.
    """
    if element.dlpack is None:
        raise InternalError(f"a capsule was made for {element.text}, which DLPack lacks")
    tensor, versioned = _contents(capsule)
    if versioned is not None:
        versioned.minor = max(versioned.minor, 1) if versioned.major == 1 else versioned.minor
        versioned.flags |= _PADDED if element.padded else 0
    tensor.code, tensor.bits, tensor.lanes = element.dlpack
    if element.packed:
        if tensor.ndim != len(shape):
            raise InternalError(f"a capsule of {tensor.ndim} axes was made for an array of {len(shape)}")
        for axis, (extent, stride) in enumerate(zip(shape, contiguous_strides(shape, 1), strict=True)):
            tensor.shape[axis] = extent
            if tensor.strides:
                tensor.strides[axis] = stride
    return capsule


def on_device(capsule: object, device: tuple[int, int]) -> object:
    """Return the capsule, which is of an array of NumPy, with this device: DLDeviceType and number.

    Errors: InternalError for a capsule that is not one of DLPack.
    """
    tensor, _ = _contents(capsule)
    tensor.device_type, tensor.device_id = device
    return capsule


def _contents(capsule: object) -> tuple[_Tensor, _Versioned | None]:
    """Return the structures in a capsule, valid while it is; None for the second before DLPack 1.0."""
    name = _name_of(capsule)
    if name == b"dltensor":
        return _Tensor.from_address(_pointer_of(capsule, name)), None
    if name != b"dltensor_versioned":
        raise InternalError(f"a capsule with the name {name!r} was made for DLPack")
    versioned = _Versioned.from_address(_pointer_of(capsule, name))
    return versioned.tensor, versioned
