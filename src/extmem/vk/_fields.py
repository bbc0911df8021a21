"""One row of the generated table that says how a struct's members go to C and back."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["FieldSpec"]


class FieldSpec(NamedTuple):
    """One member. sType, pNext and counts of sequences have no row: the first two are alike everywhere, counts follow.

    `kind`, and for arrays and sequences `element`: int, bool, float, enum, flags, handle, pointer_handle, address,
    wstr, security, struct, bytes, chars, array, sequence, inline_sequence. `length` is the room of a fixed array,
    `counter` the C member that counts a sequence, `type_name` the Python class of an enum, flag or struct value,
    `c_type` the C type of one element of a sequence.
    """

    c_name: str
    name: str
    kind: str
    element: str
    length: int
    counter: str
    type_name: str
    c_type: str
