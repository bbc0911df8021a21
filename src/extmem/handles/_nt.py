"""`NtHandle`: an entry of this process's handle table that refers to a shared object and owns a reference to it."""

from __future__ import annotations

from typing import overload

from extmem.errors import HandleStateError, ObjectManagerError
from extmem.handles._access import Access
from extmem.handles._owned import CLOSED, OPEN, TAKEN, OwnedHandle
from extmem.handles._table import HandleEntry, HandleInfo, NtHandleTable

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

    __slots__ = ("_entry", "_table")
    _word = "NT handle"

    def __init__(self, value: int | HandleEntry, table: NtHandleTable) -> None:
        """value: owned from now on. An entry has recorded it when it was made."""
        number = value if isinstance(value, int) else value.value
        if number <= 0 or number & 0xC000_0000 or number.bit_length() > 32:
            raise HandleStateError(
                f"{number:#x} cannot be an NT handle: those are small multiples of 4 with bits 30 and 31 clear; "
                "a value with those bits is a KMT number (KmtHandle)"
            )
        self._table = table
        self._entry = HandleEntry(table, value) if isinstance(value, int) else value
        super().__init__(number)

    def take(self) -> int:
        """Stop owning and return the value: closing it is now the caller's duty.

        The table is not told when the raw value is closed later.
        """
        taking = False
        try:
            with self._table.lock:  # a verb in another thread is done with the value
                self.check_open()
                self._state, taking = TAKEN, True
            # From here to the return no signal handler runs once the value has been disowned.
            self._entry.disown()
        except BaseException:
            if taking:
                self._state = OPEN
            raise
        return self._value

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
        with self._table.lock:
            source = int(self)
            entry = HandleEntry(self._table)
            try:
                value = self._table.duplicate(
                    source,
                    desired=desired,
                    inherit=inherit,
                    same_attributes=same_attributes,
                    close_source=close_source,
                    into=into,
                    entry=None if into is not None else entry,
                    source_entry=self._entry,
                )
            finally:
                if not self._entry.owes:
                    self._state = CLOSED
            if into is not None:
                return value
            if not entry.value:
                entry.record(value)
            return NtHandle(entry, self._table)

    def same_object(self, other: NtHandle) -> bool:
        """CompareObjectHandles: whether both refer to one shared object. Two shares of one payload are two objects."""
        with self._table.lock:
            return self._table.same_object(int(self), int(other))

    @property
    def info(self) -> HandleInfo:
        """GetHandleInformation and NtQueryObject: flags, granted access, object name and type."""
        with self._table.lock:
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
        with self._table.lock:
            self._table.set_flags(int(self), mask, flags)

    @property
    def _origin(self) -> object:
        return self._entry.origin

    def _close(self) -> None:
        with self._table.lock:
            if self._state is OPEN:
                self._state = CLOSED
            if self._state is not CLOSED:
                return
            try:
                self._entry.close()
            except ObjectManagerError:
                self._state = OPEN  # the object manager refuses (a protected handle), so it is still open
                raise
