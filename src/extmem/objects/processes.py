"""The processes that use the object manager: they are attached, inherit handles, and are detached when they end."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from extmem.objects.core import STEP, Core
from extmem.objects.security import Token
from extmem.objects.status import Refused, Status
from extmem.objects.table import FLAG_INHERIT, Entry

__all__ = ["Processes"]


class Processes(Core):
    """Operations on processes."""

    def attach(self, token: Token, pid: int, start: int = 0) -> int:
        """Add a process. Return the id with which it makes calls; ids are never reused.

        start: a number that distinguishes it from another process with the same pid.
        """
        return self._new_process(token, pid, start).id

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
        self._stops(gone.who)
        self._settle(gone)
        for wait in list(gone.waits.values()):
            self._forget_wait(wait)
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
            self._release_reference(gone, gone.references.popitem()[1])
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

    def adopt(self, process: int, token: Token, pid: int, start: int = 0) -> None:
        """Record that the child of an `inherit` has connected. Refused INVALID_PARAMETER if it had already."""
        child = self._process(process)
        if child.parent is None:
            raise Refused(
                Status.INVALID_PARAMETER, f"Process {process} (pid {child.pid}) has connected before. Attach anew."
            )
        child.token = token
        child.pid = pid
        self._stops(child.who)
        child.who = self._who(child.id, pid, start)
        self._running[child.who] += 1
        child.parent.children -= 1
        child.parent = None
