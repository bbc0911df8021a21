"""`KmtHandle`: a global share handle, a system-wide 32-bit number that owns nothing."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from extmem.errors import HandleStateError
from extmem.handles.arguments import handle_number

__all__ = ["KmtHandle", "is_kmt_value"]


def is_kmt_value(value: int) -> bool:
    """Return whether a HANDLE's value has the form of a KMT handle (bit 30 or 31 set), not that of an NT handle."""
    return 0 < value <= 0xFFFF_FFFF and bool(value & 0xC000_0000)


class KmtHandle:
    """A global share handle (OPAQUE_WIN32_KMT, D3D11_TEXTURE_KMT): the number is the same in every process.

    Ownership: none. It does not add a reference and needs no closing. It becomes invalid with the payload's last memory
    object, and the number may then be assigned to another payload. It has no name and no rights, and is not in a handle
    table.
    """

    __slots__ = ("_value",)

    def __init__(self, value: int) -> None:
        """Errors: TypeError for a value that is not an int; HandleStateError for one that cannot be a KMT handle."""
        value = handle_number(value, "a KMT handle")
        if not 0 <= value <= 0xFFFF_FFFF:
            raise HandleStateError(f"{value:#x} is not a KMT handle: pass the HANDLE's low 32 bits")
        if not is_kmt_value(value):
            raise HandleStateError(
                f"{value:#x} is not a KMT handle: bits 30 and 31 are clear, as in an NT handle's value; "
                "import it as OPAQUE_WIN32, or use the exporter's OPAQUE_WIN32_KMT handle"
            )
        self._value = value

    closed = False
    """Always False: there is nothing to close."""

    def close(self) -> None:
        """Do nothing, because a KMT handle owns nothing."""

    def take(self) -> int:
        """Return the number. No ownership is transferred."""
        return self._value

    def duplicate(self) -> KmtHandle:
        """Return another KmtHandle of the same number."""
        return KmtHandle(self._value)

    def __int__(self) -> int:
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KmtHandle) and other._value == self._value

    def __hash__(self) -> int:
        return hash((KmtHandle, self._value))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def __repr__(self) -> str:
        return f"KmtHandle({self._value:#010x})"
