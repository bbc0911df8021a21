"""`NtHandle`: an entry of this process's handle table that refers to a shared object and owns a reference to it."""

from __future__ import annotations

from typing import overload

from extmem.errors import HandleStateError
from extmem.handles._access import Access
from extmem.handles._owned import OwnedHandle
from extmem.handles._table import HandleInfo, NtHandleTable

__all__ = ["NtHandle"]

HANDLE_FLAG_INHERIT = 1
HANDLE_FLAG_PROTECT_FROM_CLOSE = 2


class NtHandle(OwnedHandle):
    """An NT handle that this process owns (OPAQUE_WIN32 and, on Windows, the D3D NT types).

    Ownership: the handle holds a reference to the shared object, and so to the payload and its name; an import does not
    take it over, the application closes it (VK_KHR_external_memory_win32). `int(handle)` is the value, only while open.

    Errors: every verb raises HandleStateError on a closed or taken handle, and what the object manager refuses
    (`InvalidHandleError`, `AccessDeniedError`, …) as its own class.
    """

    __slots__ = ("_table",)
    _word = "NT handle"

    def __init__(self, value: int, table: NtHandleTable) -> None:
        if value <= 0 or value & 0xC000_0000 or value.bit_length() > 32:
            raise HandleStateError(
                f"{value:#x} cannot be an NT handle: those are small multiples of 4 with bits 30 and 31 clear; "
                "a value with those bits is a KMT number (KmtHandle)"
            )
        super().__init__(value)
        self._table = table

    def take(self) -> int:
        """See `Owned.take`. Whoever closes the value from now on, the table learns nothing of it."""
        value = super().take()
        forget = getattr(self._table, "forget", None)  # a table that keeps something by the values of its handles
        if forget is not None:
            forget(value)
        return value

    @property
    def table(self) -> NtHandleTable:
        """The handle table that the value belongs to."""
        return self._table

    @overload
    def duplicate(
        self,
        *,
        access: int | None = None,
        inherit: bool = False,
        same_attributes: bool = False,
        close_source: bool = False,
        into: None = None,
    ) -> NtHandle: ...

    @overload
    def duplicate(
        self,
        *,
        access: int | None = None,
        inherit: bool = False,
        same_attributes: bool = False,
        close_source: bool = False,
        into: int,
    ) -> int: ...

    def duplicate(
        self,
        *,
        access: int | None = None,
        inherit: bool = False,
        same_attributes: bool = False,
        close_source: bool = False,
        into: int | None = None,
    ) -> NtHandle | int:
        """DuplicateHandle: a second owner of the same object.

        access: the duplicate's rights, mapped; None keeps this handle's (DUPLICATE_SAME_ACCESS). More than this
            handle has is granted only if the object's security allows it (AccessDeniedError).
        inherit: children started with inheritance get the duplicate; this handle's own flag is not copied.
        same_attributes: copy this handle's inherit and protect flags instead.
        close_source: this handle is closed, even where duplicating fails. A protected one stays open.
        into: pid of the process to get the duplicate; the result is then the value, meaningful only there.
        """
        desired = None if access is None else int(access)
        source = int(self)
        closes = close_source and not self._is_protected()
        try:
            value = self._table.duplicate(
                source,
                desired=desired,
                inherit=inherit,
                same_attributes=same_attributes,
                close_source=close_source,
                into=into,
            )
        finally:
            if closes:
                self._forget()
        return value if into is not None else NtHandle(value, self._table)

    def same_object(self, other: NtHandle) -> bool:
        """CompareObjectHandles: whether both refer to one shared object. Two shares of one payload are two objects."""
        return self._table.same_object(int(self), int(other))

    @property
    def info(self) -> HandleInfo:
        """GetHandleInformation and NtQueryObject: flags, granted access, object name and type."""
        return self._table.info(int(self))

    @property
    def access(self) -> Access:
        """The granted access, as mapped."""
        return Access(self.info.granted_access)

    def __dir__(self) -> list[str]:
        # Completion and debuggers read all that is listed here, and these raise once the handle is closed.
        asked = ("access", "info") if self.closed else ()
        return [name for name in super().__dir__() if name not in asked]

    def set_info(self, *, inherit: bool | None = None, protect_from_close: bool | None = None) -> None:
        """SetHandleInformation. None leaves a flag as it is. A protected handle refuses `close()` until unprotected."""
        mask = flags = 0
        for value, bit in ((inherit, HANDLE_FLAG_INHERIT), (protect_from_close, HANDLE_FLAG_PROTECT_FROM_CLOSE)):
            if value is not None:
                mask |= bit
                flags |= bit if value else 0
        self._table.set_flags(int(self), mask, flags)

    def _is_protected(self) -> bool:
        return self._table.info(int(self)).protect_from_close

    def _forget(self) -> None:
        self._state = "closed"

    def _close(self, value: int) -> None:
        self._table.close(value)

    def _close_lost(self, value: int) -> None:
        self._table.close_later(value)
