"""The interface of a handle table for NT handles: of the Windows kernel, or on Linux of the broker's client."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Protocol

import msgspec

from extmem.owning import Owner, Step

__all__ = ["HandleEntry", "HandleInfo", "NtHandleTable"]


class HandleInfo(msgspec.Struct, frozen=True):
    """The result of NtQueryObject and GetHandleInformation for one NT handle.

    `granted_access` is the mapped mask (B16: no generic bits). `name` is the full object path, empty for unnamed.
    `object_id` is unique for each shared object (CompareObjectHandles); it does not depend on the handle's value.
    """

    inherit: bool
    protect_from_close: bool
    granted_access: int
    type_name: str
    name: str
    object_id: int
    handle_count: int


class NtHandleTable(Protocol):
    """The handle table of the calling process. Values are ints; errors are ObjectManagerError classes.

    A value is used only while `lock` is held, after a check that the handle object is open. So no other thread can
    close it in between.
    """

    @property
    def lock(self) -> AbstractContextManager[object]:
        """Lock that is held while a value is read and used; reentrant."""

    def close(self, value: int, entry: HandleEntry | None = None) -> None:
        """Close a handle: CloseHandle.

        entry: the owner of the value; if the table has closed it already, nothing is done. Errors: InvalidHandleError
        for unknown (INVALID_HANDLE) or protected (HANDLE_NOT_CLOSABLE) values.
        """

    def when_lost(self, value: int) -> Iterable[Step]:
        """Return the steps that close the value when its entry is garbage-collected.

        They are C code, which does not block or raise.
        """

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
        """Duplicate a handle, and return the new value: DuplicateHandle.

        `desired` None is DUPLICATE_SAME_ACCESS; `into` is a pid or None. entry: records the new value, if it belongs to
        this process. source_entry: the owner of `value`, which owes nothing any more once `value` is closed.
        """

    def same_object(self, a: int, b: int) -> bool:
        """CompareObjectHandles."""

    def info(self, value: int) -> HandleInfo:
        """Return flags, granted access, object name and type: GetHandleInformation and NtQueryObject."""

    def set_flags(self, value: int, mask: int, flags: int) -> None:
        """Set flags: SetHandleInformation. HANDLE_FLAG_INHERIT is 1, HANDLE_FLAG_PROTECT_FROM_CLOSE is 2."""


class HandleEntry(Owner):
    """An entry of a handle table. The call that creates it records it here, so that an interrupt cannot leak it."""

    __slots__ = ("table", "value")

    def __init__(self, table: NtHandleTable, value: int = 0) -> None:
        """value: owned from now on; 0 for an entry that is not created yet."""
        super().__init__()
        self.table = table
        self.value = value
        if value:
            self.record(value)

    def record(self, value: int) -> None:
        """Record the value, which is owned from now on."""
        self.value = value
        self.owe(self.table.when_lost(value))

    def close(self) -> None:
        """Close the handle, once: CloseHandle. Errors: as `NtHandleTable.close`; the entry is still open then."""
        if self.owes:
            self.table.close(self.value, self)
            self.forget()
