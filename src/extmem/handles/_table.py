"""What an NT handle needs of whoever keeps the handle table: the Windows kernel, or on Linux the broker's client."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from extmem.owning import Owner, Step

__all__ = ["HandleEntry", "HandleInfo", "NtHandleTable"]


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
    """The calling process's handle table. Values are ints; refusals are ObjectManagerError classes.

    A value is used under `lock` alone, where the handle object that owns it was found open: no other thread can close
    it in between.
    """

    @property
    def lock(self) -> AbstractContextManager[object]:
        """Held while a value is read and used; the same thread may take it again."""

    def close(self, value: int, entry: HandleEntry | None = None) -> None:
        """CloseHandle. InvalidHandleError for unknown (INVALID_HANDLE) or protected (HANDLE_NOT_CLOSABLE) values.

        entry: whose value it is: where the table has closed that already, nothing happens.
        """

    def when_lost(self, value: int) -> Iterable[Step]:
        """What closes the value when the owner of its entry is lost: C code, which does not block or raise."""

    def duplicate(
        self,
        value: int,
        *,
        desired: int | None,
        inherit: bool,
        same_attributes: bool,
        close_source: bool,
        into: int | None,
        entry: HandleEntry | None = None,
        source_entry: HandleEntry | None = None,
    ) -> int:
        """DuplicateHandle; `desired` None is DUPLICATE_SAME_ACCESS; `into` is a pid or None. The new value.

        entry: records the new value, if it is one of this process. source_entry: owns `value`, and owes nothing any
        more once that is closed.
        """

    def same_object(self, a: int, b: int) -> bool:
        """CompareObjectHandles."""

    def info(self, value: int) -> HandleInfo:
        """GetHandleInformation and NtQueryObject."""

    def set_flags(self, value: int, mask: int, flags: int) -> None:
        """SetHandleInformation: HANDLE_FLAG_INHERIT 1, HANDLE_FLAG_PROTECT_FROM_CLOSE 2."""


class HandleEntry(Owner):
    """An entry of a handle table. Calls that make one record it here, so that an interrupt does not lose it."""

    __slots__ = ("table", "value")

    def __init__(self, table: NtHandleTable, value: int = 0) -> None:
        """value: owned from now on; 0 for one that is to be made."""
        super().__init__()
        self.table = table
        self.value = value
        if value:
            self.record(value)

    def record(self, value: int) -> None:
        """This is the value."""
        self.value = value
        self.owe(self.table.when_lost(value))

    def close(self) -> None:
        """CloseHandle, once. Errors: as `NtHandleTable.close`; the entry is still open then."""
        if self.owes:
            self.table.close(self.value, self)
            self.forget()
