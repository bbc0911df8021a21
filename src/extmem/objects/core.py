"""The state of the object manager, its processes, and the end of its objects.

How this works. A holder begins with `_retain` and its row of the lifetime table (`lifetimes.KEEPS`), and ends with
`_release` and the same row. A count of zero ends an object (its name is free in the same call), a KMT number, or a
payload. Ended payloads are collected until the owner of their bytes calls `take_released`. Every operation checks all
that can be refused before it changes anything, so after a `Refused` nothing has changed. No operation searches: each
step is a dictionary look-up, whatever the number of objects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Final

from extmem.objects.access import READ_CONTROL
from extmem.objects.directory import Directory
from extmem.objects.entities import Identity, Payload, Process, Reference, SharedObject, Ticket, User
from extmem.objects.kernel_object import KernelObject
from extmem.objects.kmt import KmtTable
from extmem.objects.lifetimes import ANNOUNCEMENT, NT_HANDLE, ORPHANED_TICKET, Keeps
from extmem.objects.names import NameKey, resolve_name
from extmem.objects.object_types import ObjectType
from extmem.objects.results import Limits
from extmem.objects.security import Token
from extmem.objects.status import Refused, Status
from extmem.objects.table import FLAG_INHERIT, Entry, HandleTable
from extmem.sharing.kinds import Share

__all__ = ["STEP", "Core"]

STEP: Final = 256
"""Number of items that one step of a long operation ends."""
_ID_RANGE: Final = 1 << 63  # ids are sent as 64-bit integers


class Core:
    """State and lifetimes.

    random: `random(n)` returns an int in [0, n), which must be unpredictable for tickets. epoch: must be above all ids
    of an earlier manager whose objects are announced to this one; a clock in nanoseconds is suitable.
    """

    def __init__(
        self,
        *,
        session: int = 1,
        limits: Limits = Limits(),  # noqa: B008  (frozen: one default for all is right)
        random: Callable[[int], int],
        global_names: bool = True,
        epoch: int = 0,
    ) -> None:
        self.session = session
        self.limits = limits
        self._random = random
        self._global_names = global_names or session == 0
        self._processes: dict[int, Process] = {}
        self._last_process = 0
        self._last_born = epoch
        self._payloads: dict[int, Payload] = {}
        self._by_identity: dict[Identity, Payload] = {}
        self._objects: dict[int, KernelObject] = {}
        self._directory = Directory()
        self._kmt = KmtTable(random)
        self._tickets: dict[int, Ticket] = {}
        self._users: dict[int, User] = {}
        """Users with tickets in flight."""
        self._released: list[int] = []
        self._left_behind: Counter[int] = Counter()
        """By uid, the number of handles in tables of others that count against processes which have ended."""

    # -- processes --------------------------------------------------------------------------------------------------

    def attach(self, token: Token, pid: int) -> int:
        """Add a process. Return the id with which it makes calls; ids are never reused."""
        return self._new_process(token, pid).id

    def detach(self, process: int) -> None:
        """Remove a process that has ended: all that it held is closed, also protected handles (B78).

        Its tickets stay in flight, unless their time is over. They keep the payload, but not its name and KMT number.
        """
        for _ in self.detaching(process):
            pass

    def detaching(self, process: int) -> Iterator[None]:
        """`detach` in steps, for a process that may hold much: it yields after each `STEP` items that have ended.

        The process must not make calls from now on.
        """
        gone = self._process(process)
        if gone.parent is not None:
            gone.parent.children -= 1
            gone.parent = None
        gone.ended = True
        if gone.given:
            self._left_behind[gone.token.uid] += gone.given
        done = 0
        for ticket in list(gone.tickets.values()):
            if ticket.id in self._tickets:
                self._orphan(ticket)
            if not (done := done + 1) % STEP:
                yield
        while len(gone.table):
            self._release_handle(gone.table.take_last())
            if not (done := done + 1) % STEP:
                yield
        while gone.references:
            self._release_reference(gone.references.popitem()[1])
            if not (done := done + 1) % STEP:
                yield
        yield from self._ending_announcements(gone)
        del self._processes[gone.id]

    def inherit(self, parent: int, *, only: Collection[int] | None = None) -> int:
        """CreateProcess with bInheritHandles: add a process with copies of the parent's inheritable handles.

        They have the same values, rights and flags (B30, B31). only: PROC_THREAD_ATTRIBUTE_HANDLE_LIST, the handles to
        inherit; each must be inheritable, else Refused INVALID_PARAMETER. The caller calls `adopt` when the child
        connects, and `detach` if it does not.
        """
        mother = self._process(parent)
        if mother.children >= self.limits.children:
            raise Refused(
                Status.QUOTA_EXCEEDED,
                f"This process has started {mother.children} children that have not connected yet, the limit. Wait "
                "for them, or end them.",
            )
        listed = None if only is None else {value & ~3 for value in only}
        for value in sorted(listed or ()):
            if not mother.table.find(value).flags & FLAG_INHERIT:
                raise Refused(
                    Status.INVALID_PARAMETER,
                    f"The handle {value:#x} is to be inherited but is not inheritable. Set HANDLE_FLAG_INHERIT on "
                    "it first.",
                )
        child = self._new_process(mother.token, 0)
        child.parent = mother
        mother.children += 1
        for value, entry in mother.table:
            if entry.flags & FLAG_INHERIT and (listed is None or value in listed):
                child.table.put(value, Entry(entry.object, entry.granted, entry.flags))
                self._retain_handle(entry.object)
        return child.id

    def begin_handles_above(self, process: int, value: int) -> None:
        """Give handles of a process only values above this one: it may still use the values of lost handles."""
        self._process(process).table.begin_above(value)

    def adopt(self, process: int, token: Token, pid: int) -> None:
        """Record that the child of an `inherit` has connected. Refused INVALID_PARAMETER if it had already."""
        child = self._process(process)
        if child.parent is None:
            raise Refused(
                Status.INVALID_PARAMETER, f"Process {process} (pid {child.pid}) has connected before. Attach anew."
            )
        child.token = token
        child.pid = pid
        child.parent.children -= 1
        child.parent = None

    def take_released(self) -> list[int]:
        """Return the payloads that have ended since the last call, in that order.

        Their bytes are not needed any more.
        """
        released, self._released = self._released, []
        return released

    def kmt_alive(self, number: int) -> bool:
        """Return whether an import by that KMT number would succeed."""
        try:
            self._kmt.find(number)
        except Refused:
            return False
        return True

    def _new_process(self, token: Token, pid: int) -> Process:
        self._last_process += 1
        new = Process(self._last_process, token, pid, HandleTable(self.limits.handles))
        self._processes[new.id] = new
        return new

    def _process(self, process: int) -> Process:
        found = self._processes.get(process)
        if found is None:
            raise Refused(
                Status.INVALID_CID,
                f"Process {process} is not attached: it has ended, or never connected. Check that it is still running.",
            )
        return found

    # -- references -------------------------------------------------------------------------------------------------

    def _retain(self, keeps: Keeps, payload: Payload, shared: SharedObject | None) -> None:
        payload.refs += keeps.payload
        payload.kmt_refs += keeps.kmt
        if shared is not None:
            shared.refs += keeps.object
            shared.nameless += keeps.object - keeps.name

    def _release(self, keeps: Keeps, payload: Payload, shared: SharedObject | None) -> None:
        if shared is not None:
            shared.refs -= keeps.object
            shared.nameless -= keeps.object - keeps.name
            if shared.refs <= shared.nameless:
                if not shared.refs:
                    self._end_object(shared)
                elif shared.name is not None:
                    self._unname(shared)
        payload.kmt_refs -= keeps.kmt
        if payload.kmt is not None and (not payload.kmt_refs or (payload.strict_kmt and not payload.exporters)):
            self._kmt.remove(payload.kmt)
            payload.kmt = None
        payload.refs -= keeps.payload
        if not payload.refs:
            self._end_payload(payload)

    def _end_object(self, shared: SharedObject) -> None:
        self._directory.remove(shared)
        del self._objects[shared.id]
        del shared.payload.objects[shared.id]
        shared.creator.objects -= 1
        for ticket in list(shared.tickets.values()):  # demoted ones: any other would have kept the object
            self._forget_ticket(ticket)

    def _unname(self, shared: SharedObject) -> None:
        """Remove the name of an object that continues to exist. The name is free."""
        self._directory.remove(shared)
        shared.name = None

    def _end_payload(self, payload: Payload) -> None:
        del self._payloads[payload.id]
        del self._by_identity[payload.identity]
        self._released.append(payload.id)
        for ticket in list(payload.tickets.values()):
            self._forget_ticket(ticket)

    def _retain_handle(self, target: KernelObject) -> None:
        target.handles += 1
        if isinstance(target, SharedObject):
            self._retain(NT_HANDLE, target.payload, target)
        else:
            target.refs += 1

    def _add_handle(
        self, owner: Process, target: KernelObject, granted: int, flags: int, giver: Process | None = None
    ) -> int:
        value = owner.table.add(Entry(target, granted, flags, giver))
        self._retain_handle(target)
        return value

    def _close(self, owner: Process, value: int) -> None:
        self._release_handle(owner.table.remove(value))

    def _release_handle(self, entry: Entry) -> None:
        self._discharge(entry)
        target = entry.object
        target.handles -= 1
        if isinstance(target, SharedObject):
            self._release(NT_HANDLE, target.payload, target)
        else:
            target.refs -= 1

    def _discharge(self, entry: Entry) -> None:
        """Stop counting a handle against the process that put it there."""
        giver, entry.giver = entry.giver, None
        if giver is None:
            return
        giver.given -= 1
        if giver.ended:
            self._left_behind[giver.token.uid] -= 1
            if not self._left_behind[giver.token.uid]:
                del self._left_behind[giver.token.uid]

    def _drop_reference(self, owner: Process, reference: int) -> None:
        self._release_reference(owner.references.pop(reference))

    def _release_reference(self, gone: Reference) -> None:
        gone.payload.exporters -= gone.exporting
        self._release(gone.keeps, gone.payload, gone.object)

    def _orphan(self, ticket: Ticket) -> None:
        """Transfer a ticket to its user, because its sender has ended."""
        if not ticket.keeps.payload:
            self._forget_ticket(ticket)  # its time was over
            return
        kept, ticket.keeps = ticket.keeps, ORPHANED_TICKET
        self._retain(ORPHANED_TICKET, ticket.payload, ticket.object)
        self._release(kept, ticket.payload, ticket.object)
        if ticket.sender is not None:
            del ticket.sender.tickets[ticket.id]
            ticket.sender = None

    def _forget_ticket(self, ticket: Ticket) -> None:
        del self._tickets[ticket.id]
        if ticket.sender is not None:
            del ticket.sender.tickets[ticket.id]
        del ticket.user.tickets[ticket.id]
        ticket.user.weak.pop(ticket.id, None)
        if not ticket.user.tickets:
            self._users.pop(ticket.user.uid, None)
        target = ticket.payload if ticket.object is None else ticket.object
        del target.tickets[ticket.id]

    def _drop_ticket(self, ticket: Ticket) -> None:
        self._forget_ticket(ticket)
        self._release(ticket.keeps, ticket.payload, ticket.object)

    def _announce(self, owner: Process, payload: Payload, shared: SharedObject | None) -> None:
        payload.exporters += 1  # the exporter may announce later, so a strict number is kept for it
        self._retain(ANNOUNCEMENT, payload, shared)

    def _ending_announcements(self, owner: Process) -> Iterator[None]:
        done = 0
        while owner.announced_objects or owner.announced_payloads:
            if owner.announced_objects:
                shared: SharedObject | None = owner.announced_objects.popitem()[1]
            else:
                shared = None
            payload = owner.announced_payloads.popitem()[1] if shared is None else shared.payload
            payload.exporters -= 1
            self._release(ANNOUNCEMENT, payload, shared)
            if not (done := done + 1) % STEP:
                yield

    # -- look-ups for several operations ----------------------------------------------------------------------------

    def _resolve(self, name: str) -> NameKey:
        key = resolve_name(name, self.session)
        self._check_global(key)
        return key

    def _check_global(self, key: NameKey) -> None:
        if key.is_global and not self._global_names:
            raise Refused(
                Status.ACCESS_DENIED,
                f"{key.display!r} is in the global directory, which only a system-wide object manager may serve; "
                "this one serves one user's session. Use the name without 'Global\\'.",
            )

    def _find_named(self, name: str) -> SharedObject:
        return self._directory.find(self._resolve(name))

    def _reference(self, owner: Process, reference: int) -> Reference:
        found = owner.references.get(reference)
        if found is None:
            raise Refused(
                Status.INVALID_HANDLE,
                f"The reference {reference} does not exist in process {owner.pid}: it was released, or it is another "
                "process's. Pass one that this process holds.",
            )
        return found

    def _reference_room(self, owner: Process) -> None:
        if len(owner.references) >= self.limits.references:
            raise Refused(
                Status.QUOTA_EXCEEDED,
                f"This process holds {len(owner.references)} references to shared payloads, the limit of one process. "
                "Free the memory that it no longer needs.",
            )

    def _add_reference(self, owner: Process, new: Reference) -> int:
        reference = owner.next_reference
        owner.next_reference += 1
        owner.references[reference] = new
        new.payload.exporters += new.exporting
        self._retain(new.keeps, new.payload, new.object)
        return reference

    def _fresh_id(self, taken: dict[int, Payload] | dict[int, KernelObject]) -> int:
        while True:
            number = self._random(_ID_RANGE)
            if number and number not in taken:
                return number

    def _check_descriptor(self, descriptor: bytes) -> None:
        if len(descriptor) > self.limits.descriptor:
            raise Refused(
                Status.INVALID_PARAMETER,
                f"The descriptor has {len(descriptor)} bytes, at most {self.limits.descriptor} are allowed.",
            )

    @staticmethod
    def _check_share(share: Share) -> None:
        if share not in (Share.NT, Share.KMT):
            raise Refused(
                Status.INVALID_PARAMETER,
                f"A payload is shared either by NT handle or by KMT number, this requests {share!r}. Request exactly "
                "one.",
            )

    @staticmethod
    def _check_readable(granted: int, object_type: ObjectType) -> None:
        if not granted & READ_CONTROL:
            raise Refused(
                Status.ACCESS_DENIED,
                f"Importing requires READ_CONTROL, and these rights are {object_type.describe(granted)}. "
                "Use a handle or an access mask that contains GENERIC_READ (0x80000000).",
            )
