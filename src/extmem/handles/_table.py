"""What an NT handle needs of whoever keeps the handle table: the Windows kernel, or on Linux the broker's client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["HandleInfo", "NtHandleTable"]


@dataclass(frozen=True, slots=True)
class HandleInfo:
    """NtQueryObject and GetHandleInformation of one NT handle.

    `granted_access` is the mapped mask (B16: no generic bits). `name` is the full object path, empty for unnamed.
    `object_id` tells shared objects apart (CompareObjectHandles); it never comes from a value.
    """

    inherit: bool
    protect_from_close: bool
    granted_access: int
    type_name: str
    name: str
    object_id: int
    handle_count: int


class NtHandleTable(Protocol):
    """The calling process's handle table. Values are ints; refusals are ObjectManagerError classes."""

    def close(self, value: int) -> None:
        """CloseHandle. InvalidHandleError for unknown (INVALID_HANDLE) or protected (HANDLE_NOT_CLOSABLE) values."""

    def close_later(self, value: int) -> None:
        """Close soon, from a finalizer: must not block, call back or raise."""

    def duplicate(
        self,
        value: int,
        *,
        desired: int | None,
        inherit: bool,
        same_attributes: bool,
        close_source: bool,
        into: int | None,
    ) -> int:
        """DuplicateHandle; `desired` None is DUPLICATE_SAME_ACCESS; `into` is a pid or None. The new value."""

    def same_object(self, a: int, b: int) -> bool:
        """CompareObjectHandles."""

    def info(self, value: int) -> HandleInfo:
        """GetHandleInformation and NtQueryObject."""

    def set_flags(self, value: int, mask: int, flags: int) -> None:
        """SetHandleInformation: HANDLE_FLAG_INHERIT 1, HANDLE_FLAG_PROTECT_FROM_CLOSE 2."""
