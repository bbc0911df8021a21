"""Operations on handles: open, duplicate, close, compare, set flags (B15, B18, B20, B29–B32, B36–B49)."""

from __future__ import annotations

from extmem.objects.access import MAXIMUM_ALLOWED
from extmem.objects.core import Core
from extmem.objects.entities import Process, SharedObject
from extmem.objects.kernel_object import KernelObject
from extmem.objects.names import resolve_name
from extmem.objects.object_types import foreign_type
from extmem.objects.results import HandleInfo
from extmem.objects.security import Token, grant
from extmem.objects.status import Refused, Status
from extmem.objects.table import FLAG_INHERIT, FLAG_PROTECT, Entry

__all__ = ["Handles"]


class Handles(Core):
    """Operations on handle tables."""

    def get_handle(self, process: int, reference: int) -> int:
        """Return a new handle to the object that this reference exports, with the access and the inherit flag of the
        export (B29). It is not checked against the object's own security (B32). It outlives the reference (B77).

        Refused INVALID_PARAMETER for a reference that was imported or is shared by KMT, INVALID_HANDLE, QUOTA_EXCEEDED.
        """
        owner = self._process(process)
        found = self._reference(owner, reference)
        if found.object is None or not found.exporting:
            why = "is shared by KMT number" if found.object is None else "was imported here, not exported"
            raise Refused(
                Status.INVALID_PARAMETER,
                f"The payload of reference {reference} {why}, so it has no NT handle. Export it by NT handle to get "
                "one.",
            )
        granted = found.granted & found.object.may_give
        return self._add_handle(owner, found.object, granted, FLAG_INHERIT if found.inherit else 0)

    def open_handle(self, process: int, name: str, desired: int, inherit: bool = False) -> int:
        """Return a new handle by name (B15), checked by the object's security.

        Access 0 is refused after the look-up (B18).
        """
        owner = self._process(process)
        shared = self._find_named(name)
        token = owner.token
        granted = grant(
            shared.rights(token), desired, shared.type, user=token.uid, ceiling=shared.may_give, frozen=shared.frozen
        )
        return self._add_handle(owner, shared, granted, FLAG_INHERIT if inherit else 0)

    def close_handle(self, process: int, handle: int) -> None:
        """CloseHandle. Refused INVALID_HANDLE (B47), HANDLE_NOT_CLOSABLE for protected ones, which stay open (B46)."""
        owner = self._process(process)
        if owner.table.find(handle).flags & FLAG_PROTECT:
            raise Refused(
                Status.HANDLE_NOT_CLOSABLE,
                f"The handle {handle:#x} is protected from close. Clear HANDLE_FLAG_PROTECT_FROM_CLOSE first.",
            )
        self._close(owner, handle)

    def discard_handle(self, process: int, handle: int) -> None:
        """Undo a call that created a handle and whose reply did not arrive, whatever the handle's flags.

        Nothing happens if the handle is closed, or the process has ended.
        """
        owner = self._processes.get(process)
        if owner is not None and handle in owner.table:
            target = owner.table.find(handle).object
            if isinstance(target, SharedObject):
                self._taken(owner, target, -1)
            self._close(owner, handle)

    def burn_handle(self, process: int, handle: int) -> None:
        """Never reuse this value of a closed handle: its process may not have got the reply to the close."""
        self._process(process).table.burn(handle)

    def duplicate(
        self,
        process: int,
        handle: int,
        *,
        target: int | None = None,
        desired: int | None,
        inherit: bool = False,
        same_attributes: bool = False,
        close_source: bool = False,
    ) -> int:
        """DuplicateHandle into process `target` (None: the caller). Return the new value, valid only there (B43).

        `desired` None is DUPLICATE_SAME_ACCESS; 0 gives a handle without rights (B20); more than the source has is
        granted if the object's security allows it to both processes (B38). `same_attributes` copies both flags and
        overrides `inherit` (B36). `close_source` closes the source also after a failure (B40), unless it is protected
        (B39).
        """
        owner = self._process(process)
        source = None
        try:
            source = owner.table.find(handle)
            receiver = self._receiver(owner, target)
            if same_attributes:
                flags = source.flags
            else:
                flags = FLAG_INHERIT if inherit else 0
            if close_source and receiver is owner and desired is None and not source.flags & FLAG_PROTECT:
                source.flags = flags  # B39: the same value is returned
                close_source = False
                return handle & ~3
            granted = (
                source.granted if desired is None else self._enlarged(source, desired, owner.token, receiver.token)
            )
            giver = None if receiver is owner else self._giver(owner)
            return self._add_handle(receiver, source.object, granted, flags, giver)
        finally:
            if close_source and source is not None and not source.flags & FLAG_PROTECT:
                self._close(owner, handle)

    def same_object(self, process: int, a: int, b: int) -> bool:
        """CompareObjectHandles: return whether both refer to one shared object (B44).

        Two exports of one payload are two objects.
        """
        table = self._process(process).table
        return table.find(a).object is table.find(b).object

    def handle_info(self, process: int, handle: int) -> HandleInfo:
        """NtQueryObject and GetHandleInformation (B1, B16, B25, B45)."""
        entry = self._process(process).table.find(handle)
        found = entry.object
        return HandleInfo(
            inherit=bool(entry.flags & FLAG_INHERIT),
            protect=bool(entry.flags & FLAG_PROTECT),
            granted=entry.granted,
            object=found.id,
            name=found.name_path,
            type_name=found.type.name,
            handle_count=found.handles,
            pointer_count=found.refs,
        )

    def handle_values(self, process: int, after: int, limit: int) -> tuple[list[int], int]:
        """Return a page of the open handle values above `after`, and the next page's `after` (`HandleTable.page`)."""
        return self._process(process).table.page(after, limit)

    def set_handle_flags(self, process: int, handle: int, mask: int, flags: int) -> None:
        """SetHandleInformation: set the bits of `mask` to those of `flags`.

        Refused INVALID_PARAMETER for unknown bits in `mask`.
        """
        entry = self._process(process).table.find(handle)
        if mask & ~(FLAG_INHERIT | FLAG_PROTECT):
            raise Refused(
                Status.INVALID_PARAMETER,
                f"Handle flags are INHERIT (1) and PROTECT_FROM_CLOSE (2), the mask is {mask:#x}. Use these two.",
            )
        entry.flags = entry.flags & ~mask | flags & mask

    # -- objects of other types, which share directory and handle tables on Windows ---------------------------------

    def insert_foreign(self, name: str, type_name: str) -> int:
        """Enter an object of another type into the directory (B2), case-sensitively (B6). Return its id.

        It stays until `remove_foreign`. Refused OBJECT_NAME_COLLISION, OBJECT_TYPE_MISMATCH, or as `resolve_name`.
        """
        key = resolve_name(name, self.session)
        other = KernelObject(self._fresh_id(self._objects), foreign_type(type_name), key)
        self._directory.add_foreign(other, key)
        self._objects[other.id] = other
        return other.id

    def open_foreign(self, process: int, object_id: int, granted: int) -> int:
        """Return a handle to an object of another type, with `granted` unchanged. KeyError for an unknown id."""
        return self._add_handle(self._process(process), self._objects[object_id], granted, 0)

    def remove_foreign(self, object_id: int) -> None:
        """Remove an object of another type from the directory. Handles to it stay valid until they are closed."""
        other = self._objects.pop(object_id)
        if other.name is not None:
            self._directory.remove_foreign(other.name)

    def _receiver(self, owner: Process, target: int | None) -> Process:
        if target is None or target == owner.id:
            return owner
        receiver = self._process(target)
        if owner.token.uid not in (0, receiver.token.uid):
            raise Refused(
                Status.ACCESS_DENIED,
                f"User {owner.token.uid} cannot put handles into process {receiver.pid} of user {receiver.token.uid} "
                "(PROCESS_DUP_HANDLE). Let that process open the memory by name.",
            )
        return receiver

    def _giver(self, owner: Process) -> Process:
        """Return the process that a handle in another's table counts against.

        Refused QUOTA_EXCEEDED if it has too many.
        """
        left = self._left_behind[owner.token.uid]
        if left + owner.given >= self.limits.handles:
            raise Refused(
                Status.QUOTA_EXCEEDED,
                f"This process has put {owner.given} handles into other processes that have not used them yet, and "
                f"processes of user {owner.token.uid} that have ended left {left} there; both together may be "
                f"{self.limits.handles}. Have the receivers use or close them.",
            )
        owner.given += 1
        return owner

    def take_over(self, process: int, handle: int) -> None:
        """Count a handle that another process put into the table as the table's own, because its process uses it.

        Nothing changes if the process has reached its limit of handles.
        """
        table = self._process(process).table
        entry = table.find(handle)
        if entry.giver is not None and table.own < table.limit:
            table.foreign -= 1
            self._discharge(entry)

    @staticmethod
    def _enlarged(source: Entry, desired: int, caller: Token, receiver: Token) -> int:
        """Return the access of a duplicate with a requested mask (B37, B38)."""
        target = source.object
        wanted = target.type.requested(desired)
        named = wanted & ~MAXIMUM_ALLOWED
        if named & ~source.granted:
            for token in (caller, receiver):
                grant(
                    target.rights(token),
                    named,
                    target.type,
                    user=token.uid,
                    ceiling=target.may_give,
                    frozen=target.frozen,
                )
        if wanted == named:
            return named
        both = target.rights(caller) & target.rights(receiver) & target.may_give
        return named | both | source.granted
