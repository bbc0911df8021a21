"""The state of the object manager, and the end of its objects.

How this works. A holder begins with `_retain` and its row of the lifetime table (`lifetimes.KEEPS`), and ends with
`_release` and the same row. A count of zero ends an object (its name is free in the same call), a KMT number, or a
payload. Ended payloads are collected until the owner of their bytes calls `take_released`. Every operation checks all
that can be refused before it changes anything, so after a `Refused` nothing has changed. No operation searches: each
step is a dictionary look-up, whatever the number of objects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from extmem.objects.access import READ_CONTROL
from extmem.objects.directory import Directory
from extmem.objects.entities import Identity, Payload, Process, Reference, SharedObject, Ticket, User, Wait, Who
from extmem.objects.kernel_object import KernelObject
from extmem.objects.kmt import KmtTable
from extmem.objects.lifetimes import ANNOUNCEMENT, KEPT, NT_HANDLE, ORPHANED_TICKET, Keeps
from extmem.objects.names import NameKey, resolve_name
from extmem.objects.object_types import ObjectType
from extmem.objects.results import Limits
from extmem.objects.security import Token
from extmem.objects.status import Refused, Status
from extmem.objects.table import Entry, HandleTable
from extmem.sharing.keeping import KeepMode
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
        self._running: Counter[Who] = Counter()
        """The processes that have not ended, each as often as it is attached."""
        self._kept: Counter[int] = Counter()
        """By uid, the number of objects that are kept."""
        self._superseded: list[tuple[int, int, bool]] = []
        """Changes for `Keeping.take_superseded`."""
        self._unused: list[tuple[int, int]] = []
        """Objects kept for a time that no process holds any more, with the time in milliseconds."""
        self._waiting: dict[str, dict[Wait, None]] = {}
        """Waits by the key of the name, oldest first."""
        self._user_waits: Counter[int] = Counter()
        self._appeared: set[str] = set()
        """Keys of names that appeared while a process waits for them."""

    # -- processes and payloads -------------------------------------------------------------------------------------

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

    def _new_process(self, token: Token, pid: int, start: int = 0) -> Process:
        self._last_process += 1
        number = self._last_process
        new = Process(number, token, pid, HandleTable(self.limits.handles), self._who(number, pid, start))
        self._running[new.who] += 1
        self._processes[new.id] = new
        return new

    @staticmethod
    def _who(process: int, pid: int, start: int) -> Who:
        return (pid, start) if pid else (0, process)  # the pid of a process of another pid namespace is 0

    def _stops(self, who: Who) -> None:
        self._running[who] -= 1
        if not self._running[who]:
            del self._running[who]

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
        elif shared is not None and shared.kept is not None and shared.refs - shared.nameless == 1:
            self._only_kept(shared)

    def _only_kept(self, shared: SharedObject) -> None:
        """Handle that no process holds the name of a kept object any more."""
        kept = shared.kept
        if kept is None:
            return
        if kept.takes:
            self._end_keep(shared)
        elif kept.keep.mode is KeepMode.TIME:
            self._unused.append((shared.id, kept.keep.milliseconds))

    def _end_keep(self, shared: SharedObject) -> None:
        """End the hold of the object manager, if there is one."""
        kept, shared.kept = shared.kept, None
        if kept is None:
            return
        self._kept[kept.uid] -= 1
        if not self._kept[kept.uid]:
            del self._kept[kept.uid]
        self._release(KEPT, shared.payload, shared)

    def _settle(self, owner: Process) -> None:
        """Record that a process has got the reply to its export that replaced another object."""
        replaced, owner.replaced = owner.replaced, None
        if replaced is not None:
            self._end_keep(replaced.rival)

    def _taken(self, owner: Process, shared: SharedObject, count: int) -> None:
        """Count that a process opens an object (1), or that this is undone (-1)."""
        kept = shared.kept
        if kept is not None and kept.keep.mode is KeepMode.TAKEN and owner.who != shared.publisher:
            kept.takes += count

    def _forget_wait(self, wait: Wait) -> None:
        """Remove a wait. The reference that it may have got stays with its process."""
        del wait.process.waits[wait.number]
        uid = wait.process.token.uid
        self._user_waits[uid] -= 1
        if not self._user_waits[uid]:
            del self._user_waits[uid]
        self._stop_waiting(wait)

    def _stop_waiting(self, wait: Wait) -> None:
        same = self._waiting.get(wait.key)
        if same is not None:
            same.pop(wait, None)
            if not same:
                del self._waiting[wait.key]

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
        if isinstance(target, SharedObject):
            self._taken(owner, target, 1)
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
        self._release_reference(owner, owner.references.pop(reference))

    def _release_reference(self, owner: Process, gone: Reference) -> None:
        gone.payload.exporters -= gone.exporting
        if gone.writes:
            writers = gone.payload.writers
            writers[owner.id] -= 1
            if not writers[owner.id]:
                del writers[owner.id]
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
        if new.writes:
            writers = new.payload.writers
            writers[owner.id] = writers.get(owner.id, 0) + 1
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
