"""Objects that the object manager itself keeps (`keep=`), and objects whose name another one has got (`replace=`).

How this works. A kept object has one more holder, by the row KEPT of the lifetime table. `forget` ends it, or the end
of its time; the caller of this module has the clock: `take_unused` returns which objects no process holds any more, and
`end_time` is called when their time is over. An object that is kept until it is taken is taken when another process
than its publisher opens it. That the hold ends only when no process has the object any more makes no difference for
processes, and so the opening can be undone.

A replacement takes the name of its rival in one step. Until it is known that the exporter has got the reply (`settle`),
the rival keeps what kept it, and `undo_reference` gives the name back.
"""

from __future__ import annotations

from collections.abc import Collection

from extmem.objects.core import Core
from extmem.objects.entities import Kept, Process, Replacement, SharedObject
from extmem.objects.lifetimes import KEPT
from extmem.objects.names import NameKey
from extmem.objects.object_types import OBJECT_TYPES
from extmem.objects.status import Refused, Status
from extmem.sharing.keeping import NOT_KEPT, Keep, KeepMode
from extmem.sharing.kinds import ObjectKind

__all__ = ["Keeping", "checked_keep"]


class Keeping(Core):
    """Operations on kept and on superseded objects."""

    superseded_before: Collection[int] = ()
    """Objects that an earlier object manager had recorded as superseded, and that may be announced to this one."""
    forgotten_before: Collection[int] = ()
    """Objects that an earlier object manager does not keep any more."""

    def forget(self, process: int, name: str) -> int:
        """End the keeping of the object with this name. Return its id; 0 if it was not kept.

        Refused OBJECT_NAME_NOT_FOUND, or as `resolve_name`; ACCESS_DENIED for what another user keeps (uid 0 may).
        """
        owner = self._process(process)
        shared = self._find_named(name)
        kept = shared.kept
        if kept is None:
            return 0
        if owner.token.uid not in (0, kept.uid):
            raise Refused(
                Status.ACCESS_DENIED,
                f"{name!r} is kept for user {kept.uid}, and you are user {owner.token.uid}. Have that user forget it.",
            )
        self._end_keep(shared)
        return shared.id

    @property
    def has_news(self) -> bool:
        """Whether `take_unused`, `take_superseded` or `Waits.serve_waits` have something to return or to do."""
        return bool(self._unused or self._superseded or self._appeared)

    def take_unused(self) -> list[tuple[int, int]]:
        """Return the objects kept for a time that no process has held since the last call, each with its time in
        milliseconds, which begins now.
        """
        unused, self._unused = self._unused, []
        return unused

    def end_time(self, number: int) -> None:
        """End the keeping of an object whose time is over, unless a process holds it or it has ended."""
        shared = self._objects.get(number)
        if isinstance(shared, SharedObject) and shared.kept is not None and shared.refs - shared.nameless == 1:
            self._end_keep(shared)

    def kept_count(self) -> int:
        """Return how many objects are kept."""
        return sum(self._kept.values())

    def is_live(self, number: int) -> bool:
        """Return whether an object with this id exists."""
        return number in self._objects

    def is_superseded(self, process: int, reference: int) -> bool:
        """Return whether another object has got the name of a reference's object. Refused INVALID_HANDLE."""
        shared = self._reference(self._process(process), reference).object
        return shared is not None and shared.superseded

    def take_superseded(self) -> list[tuple[int, int, bool]]:
        """Return the objects that were superseded since the last call, or (False) are not any more because that was
        undone: their ids, and those of their payloads.
        """
        changed, self._superseded = self._superseded, []
        return changed

    def settle(self, process: int) -> None:
        """Record that the process has got the reply to its last export."""
        self._settle(self._process(process))

    def undo_reference(self, process: int, reference: int) -> None:
        """Undo a call that created a reference and whose reply did not arrive. Refused INVALID_HANDLE."""
        owner = self._process(process)
        found = self._reference(owner, reference)
        shared = found.object
        if shared is not None and found.exporting:
            self._end_keep(shared)
        elif shared is not None:
            self._taken(owner, shared, -1)
        self._drop_reference(owner, reference)
        replaced = owner.replaced
        if replaced is not None and replaced.made is shared:
            if self._give_name_back(replaced):
                owner.replaced = None
            else:
                self._settle(owner)

    def _give_name_back(self, replaced: Replacement) -> bool:
        """Return False if the replaced object has ended, or if others have opened the one that replaced it."""
        rival = replaced.rival
        if self._objects.get(rival.id) is not rival or self._directory.taken(replaced.name) is not None:
            return False
        rival.superseded = False
        rival.name = replaced.name
        self._directory.add(rival)
        self._superseded.append((rival.id, rival.payload.id, False))
        return True

    def _check_terms(self, name: str | None, replace: bool, keep: Keep) -> None:
        """Refuse terms of an export that require a name without one."""
        if name is None and (replace or keep):
            raise Refused(
                Status.INVALID_PARAMETER,
                f"A payload without a name cannot be {'kept: nothing could find it' if keep else 'a replacement'}. "
                "Give it a name.",
            )

    def _check_replaceable(self, owner: Process, rival: SharedObject, kind: ObjectKind, name: NameKey) -> None:
        """Refuse a replacement by a process that may not make it, or of another kind of object."""
        if rival.payload.object_kind is not kind:
            raise Refused(
                Status.OBJECT_TYPE_MISMATCH,
                f"The name {name.display!r} belongs to {rival.type.noun}, which cannot be replaced by "
                f"{OBJECT_TYPES[kind].noun}. Choose another name.",
            )
        if owner.token.uid != rival.owner:
            raise Refused(
                Status.ACCESS_DENIED,
                f"The name {name.display!r} belongs to an object of user {rival.owner}, and you are user "
                f"{owner.token.uid}: only that user may replace it. Choose another name.",
            )
        if rival.publisher != owner.who and rival.publisher in self._running:
            raise Refused(
                Status.OBJECT_NAME_COLLISION,
                f"The name {name.display!r} belongs to an object of process {rival.publisher[0]}, which is running: "
                "only that process may replace it. End it, or choose another name.",
            )

    def _keep_room(self, uid: int) -> None:
        if self._kept[uid] >= self.limits.kept:
            raise Refused(
                Status.QUOTA_EXCEEDED,
                f"{self._kept[uid]} objects of user {uid} are kept, the limit of one user. Forget some "
                "(extmem.forget, or `extmem forget NAME`).",
            )

    def _keep_object(self, shared: SharedObject, keep: Keep, uid: int) -> None:
        shared.kept = Kept(keep, uid)
        self._kept[uid] += 1
        self._retain(KEPT, shared.payload, shared)

    def _keep_restored(self, shared: SharedObject, keep: Keep, uid: int) -> None:
        """Keep an announced object again, unless it was forgotten, or the user has too many."""
        forgotten = shared.name is None or shared.id in self.forgotten_before
        if keep and not forgotten and self._kept[uid] < self.limits.kept:
            self._keep_object(shared, keep, uid)

    def _supersede(self, rival: SharedObject) -> None:
        """Remove the name of an object, which another one gets."""
        self._directory.remove(rival)
        rival.name = None
        rival.superseded = True
        self._superseded.append((rival.id, rival.payload.id, True))


def checked_keep(mode: int, milliseconds: int) -> Keep:
    """Return how an object is kept, from the numbers of a message. Refused INVALID_PARAMETER for others."""
    if mode > max(KeepMode) or (mode == KeepMode.TIME) is not (milliseconds > 0):
        raise Refused(
            Status.INVALID_PARAMETER,
            f"An object cannot be kept in the mode {mode} for {milliseconds} ms. Give a mode of 0 to 3, and a time "
            "with mode 3 alone.",
        )
    return Keep(KeepMode(mode), milliseconds) if mode else NOT_KEPT
