"""`NtHandle`: an entry of this process's handle table that refers to a shared object and owns a reference to it."""

from __future__ import annotations

from typing import Any, overload

from extmem.arguments import CheckedWhenMade, check_flag
from extmem.errors import HandleStateError, ObjectManagerError
from extmem.handles._access import Access
from extmem.handles._owned import CLOSED, OPEN, TAKEN, OwnedHandle
from extmem.handles._table import HandleEntry, HandleInfo, NtHandleTable
from extmem.handles.arguments import handle_number

__all__ = ["NtHandle"]

HANDLE_FLAG_INHERIT = 1
HANDLE_FLAG_PROTECT_FROM_CLOSE = 2


class NtHandle(CheckedWhenMade, OwnedHandle):
    """An NT handle that this process owns (OPAQUE_WIN32 and, on Windows, the D3D NT types).

    Ownership: the handle owns a reference to the shared object, and so to the payload and its name. An import does not
    transfer it; the application closes it (VK_KHR_external_memory_win32). `int(handle)` is the value, while open.

    Errors: every method raises HandleStateError for a closed or taken handle, and the object manager's errors
    (`InvalidHandleError`, `AccessDeniedError`, …).
    """

    __slots__ = ("_entry", "_table")
    _type_text = "NT handle"
    _made_by = "export_handle() of memory or of a semaphore, extmem.open_handle(…) or extmem.raw.nt_handle(…)"

    @classmethod
    def _is_from_library(cls, given: tuple[Any, ...]) -> bool:
        return len(given) == 2 and hasattr(given[1], "when_lost")

    def __init__(self, value: int | HandleEntry, table: NtHandleTable) -> None:
        """value: owned from now on. A HandleEntry recorded its value when the call of the system returned it."""
        number = value.value if isinstance(value, HandleEntry) else handle_number(value, "an NT handle")
        if number <= 0 or number & 0xC000_0000 or number.bit_length() > 32:
            raise HandleStateError(
                f"{number:#x} cannot be an NT handle: those are small multiples of 4 with bits 30 and 31 clear; "
                "a value with those bits is a KMT number (KmtHandle)"
            )
        self._table = table
        self._entry = value if isinstance(value, HandleEntry) else HandleEntry(table, number)
        super().__init__(number)

    def take(self) -> int:
        """Stop owning, and return the value, which the caller must close.

        The handle table is not notified when the raw value is closed later.
        """
        taking = False
        try:
            with self._table.lock:  # no method in another thread uses the value now
                self.check_open()
                self._state, taking = TAKEN, True
            # No signal handler runs between disowning the value and the return.
            self._entry.disown()
        except BaseException:
            if taking:
                self._state = OPEN
            raise
        return self._value

    @property
    def table(self) -> NtHandleTable:
        """The handle table that contains the value."""
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
        """Return a second owner of the same object: DuplicateHandle.

        access: the duplicate's rights, mapped; None keeps this handle's (DUPLICATE_SAME_ACCESS). More than this
            handle has is granted only if the object's security allows it (AccessDeniedError).
        inherit: children started with inheritance get the duplicate; this handle's own flag is not copied.
        same_attributes: copy this handle's inherit and protect flags instead.
        close_source: this handle is closed, even where duplicating fails. A protected one stays open.
        into: pid of the process that receives the duplicate; the result is then the value, valid only in that process.
        """
        for what, flag in (("inherit", inherit), ("same_attributes", same_attributes), ("close_source", close_source)):
            check_flag(flag, what)
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
        """Return whether both refer to one shared object: CompareObjectHandles.

        Two exports of one payload are two objects.
        """
        with self._table.lock:
            return self._table.same_object(int(self), int(other))

    @property
    def info(self) -> HandleInfo:
        """Return flags, granted access, object name and type: GetHandleInformation and NtQueryObject."""
        with self._table.lock:
            return self._table.info(int(self))

    @property
    def access(self) -> Access:
        """The granted access, with generic bits mapped to specific ones."""
        return Access(self.info.granted_access)

    def __dir__(self) -> list[str]:
        # Completion and debuggers read all listed attributes, and these raise once the handle is closed.
        asked = ("access", "info") if self.closed else ()
        return [name for name in super().__dir__() if name not in asked]

    def set_info(self, *, inherit: bool | None = None, protect_from_close: bool | None = None) -> None:
        """Set flags: SetHandleInformation. None does not change a flag. `close()` of a protected handle raises."""
        mask = flags = 0
        for value, bit in ((inherit, HANDLE_FLAG_INHERIT), (protect_from_close, HANDLE_FLAG_PROTECT_FROM_CLOSE)):
            if value is not None:
                check_flag(value, "inherit" if bit == HANDLE_FLAG_INHERIT else "protect_from_close")
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
                self._state = OPEN  # the object manager refused (a protected handle), so it is still open
                raise
