"""The heart of the object manager: its state, its processes, and when things end.

How this works. Whatever holds something calls `_retain` with its row of the lifetime table (`lifetimes.KEEPS`) and
`_release` with the same row when it goes. Counts at zero end an object (its name is free in the same call), a KMT
number, a payload; ended payloads are collected until the owner of their bytes asks (`take_released`). Every operation
checks all that can be refused before it changes anything, so a `Refused` means that nothing happened. Nothing here
searches: every step is a dictionary look-up, whatever the number of objects.
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
from extmem.objects.lifetimes import KEEPS, Holder, Keeps
from extmem.objects.names import NameKey, resolve_name
from extmem.objects.object_types import ObjectType
from extmem.objects.results import Limits
from extmem.objects.security import Token
from extmem.objects.status import Refused, Status
from extmem.objects.table import FLAG_INHERIT, Entry, HandleTable
from extmem.sharing.kinds import Share

__all__ = ["STEP", "Core"]

_HANDLE: Final = KEEPS[Holder.NT_HANDLE]
_ANNOUNCEMENT: Final = KEEPS[Holder.ANNOUNCEMENT]
_ORPHANED: Final = KEEPS[Holder.ORPHANED_TICKET]
STEP: Final = 256
"""Things that a step of a long operation ends."""
_ID_RANGE: Final = 1 << 63  # ids travel as 64-bit integers


class Core:
    """State and lifetimes. `random(n)` must give an int in [0, n); tickets need it unpredictable. `epoch` must be above
    what an earlier manager, whose objects are announced here, has counted from its own (a clock in nanoseconds is).
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
        """Those who have tickets in flight."""
        self._released: list[int] = []
        self._left_behind: Counter[int] = Counter()
        """By uid, handles in others' tables that count against processes which have ended."""

    # -- processes --------------------------------------------------------------------------------------------------

    def attach(self, token: Token, pid: int) -> int:
        """A client arrives. Returns the id by which it calls; ids are never used twice."""
        return self._new_process(token, pid).id

    def detach(self, process: int) -> None:
        """It died or left: all that it held is closed, protected handles too (B78). Its tickets are in flight still,
        unless their time is over: they keep what they stand for, but for its name and its KMT number.
        """
        for _ in self.detaching(process):
            pass

    def detaching(self, process: int) -> Iterator[None]:
        """`detach` in steps, for a process that may hold a lot: it yields after each `STEP` things that have ended. The
        process makes no calls from now on.
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
        """CreateProcess with bInheritHandles: a new process that has copies of the parent's inheritable handles, with
        the same values, rights and flags (B30, B31). `only` is PROC_THREAD_ATTRIBUTE_HANDLE_LIST: these and no others;
        each must be inheritable, else Refused INVALID_PARAMETER. The child is `adopt`ed when it shows up, `detach`ed
        when it won't.
        """
        mother = self._process(parent)
        if mother.children >= self.limits.children:
            raise Refused(
                Status.QUOTA_EXCEEDED,
                f"This process has started {mother.children} children that have not connected yet, as many as one may. "
                "Wait for them, or end them.",
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
        """A process that has lost its handles, but not its memory of their values, gets none of those again."""
        self._process(process).table.begin_above(value)

    def adopt(self, process: int, token: Token, pid: int) -> None:
        """The child of an `inherit` has shown up. Refused INVALID_PARAMETER for a process that already has."""
        child = self._process(process)
        if child.parent is None:
            raise Refused(
                Status.INVALID_PARAMETER, f"Process {process} (pid {child.pid}) has connected before. Attach anew."
            )
        child.token = token
        child.pid = pid
        child.parent.children -= 1
        child.parent = None

    def processes(self) -> tuple[int, ...]:
        """The ids of all attached processes, oldest first."""
        return tuple(self._processes)

    def take_released(self) -> list[int]:
        """Payloads whose last reference went since this was last asked, in that order: nobody will ask for their bytes
        again.
        """
        released, self._released = self._released, []
        return released

    def kmt_alive(self, number: int) -> bool:
        """Whether an import by that KMT number would find its payload."""
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
                f"No process {process} is attached here: it ended, or never connected. Check that it is still running.",
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
        """The object lives on without its name, which is free."""
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
            self._retain(_HANDLE, target.payload, target)
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
            self._release(_HANDLE, target.payload, target)
        else:
            target.refs -= 1

    def _discharge(self, entry: Entry) -> None:
        """The handle counts against nobody but its holder any more."""
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
        """The sender has ended: the ticket is its user's now."""
        if not ticket.keeps.payload:
            self._forget_ticket(ticket)  # its time was over
            return
        kept, ticket.keeps = ticket.keeps, _ORPHANED
        self._retain(_ORPHANED, ticket.payload, ticket.object)
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
        payload.exporters += 1  # the exporter itself may be yet to announce: a strict number waits for it
        self._retain(_ANNOUNCEMENT, payload, shared)

    def _ending_announcements(self, owner: Process) -> Iterator[None]:
        done = 0
        while owner.announced_objects or owner.announced_payloads:
            if owner.announced_objects:
                shared: SharedObject | None = owner.announced_objects.popitem()[1]
            else:
                shared = None
            payload = owner.announced_payloads.popitem()[1] if shared is None else shared.payload
            payload.exporters -= 1
            self._release(_ANNOUNCEMENT, payload, shared)
            if not (done := done + 1) % STEP:
                yield

    # -- look-ups shared by the operations --------------------------------------------------------------------------

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
