"""One row of the generated table by which struct members are converted to C and back."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["FieldSpec"]


class FieldSpec(NamedTuple):
    """One member. sType, pNext and counts of sequences have no row: they follow from the struct or the sequence.

    `kind`, and for arrays and sequences `element`: int, bool, float, enum, flags, handle, pointer_handle, address,
    wstr, security, struct, bytes, chars, array, sequence, inline_sequence. `length` is the length of a fixed array,
    `counter` the C member with the length of a sequence, `type_name` the Python class of an enum, flag or struct
    value, `c_type` the C type of one element of a sequence.
    """

    c_name: str
    name: str
    kind: str
    element: str
    length: int
    counter: str
    type_name: str
    c_type: str
