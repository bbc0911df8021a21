"""Waits for names that do not exist yet.

How this works. `await_name` imports at once if the name exists. Otherwise it records a wait, and the name's appearance
is recorded when an object gets that name. The caller of this module calls `serve_waits` when the appearance is settled
(the exporter has got its reply): each process that waits gets its reference then, by the same checks as an import by
name. So the payload cannot end before the process asks for it. The wait ends with `end_wait`, which returns what it
got, or with `cancel_wait`, or with its process.
"""

from __future__ import annotations

from extmem.objects.entities import Wait
from extmem.objects.references import References
from extmem.objects.results import Imported
from extmem.objects.status import Refused, Status
from extmem.sharing.kinds import ObjectKind

__all__ = ["Waits"]


class Waits(References):
    """Operations on waits."""

    def await_name(
        self, process: int, number: int, name: str, desired: int, object_kind: int = ObjectKind.MEMORY
    ) -> Imported | None:
        """Import by name, or wait for the name. None: the process waits, and the wait has this number, which is new.

        Refused as `import_by_name`, but OBJECT_NAME_NOT_FOUND only for a path that cannot exist; QUOTA_EXCEEDED.
        """
        owner = self._process(process)
        key = self._resolve(name)
        if self._directory.taken(key) is not None:
            return self.import_by_name(process, name, desired, object_kind)
        uid = owner.token.uid
        if len(owner.waits) >= self.limits.waits or self._user_waits[uid] >= self.limits.user_waits:
            raise Refused(
                Status.QUOTA_EXCEEDED,
                f"This process waits for {len(owner.waits)} names, and processes of user {uid} for "
                f"{self._user_waits[uid]}; the limits are {self.limits.waits} and {self.limits.user_waits}. End some "
                "waits first.",
            )
        wait = Wait(number, owner, name, key.key, desired, object_kind)
        owner.waits[number] = wait
        self._user_waits[uid] += 1
        self._waiting.setdefault(key.key, {})[wait] = None
        return None

    def end_wait(self, process: int, number: int) -> Imported:
        """End a wait. Return what it got.

        Refused OBJECT_NAME_NOT_FOUND if the name has not appeared, INVALID_HANDLE for an unknown number, or as an
        import by name was refused when the name appeared.
        """
        owner = self._process(process)
        wait = owner.waits.get(number)
        if wait is None:
            raise Refused(
                Status.INVALID_HANDLE,
                f"This process has no wait with the number {number}: it has ended, or the object manager was replaced. "
                "Wait anew.",
            )
        self._forget_wait(wait)
        if wait.refusal is not None:
            raise wait.refusal
        if wait.imported is None:
            raise Refused(Status.OBJECT_NAME_NOT_FOUND, f"No live object is named {wait.name!r}. Wait longer.")
        return wait.imported

    def cancel_wait(self, process: int, number: int) -> None:
        """End a wait of a process that does not want its result. Nothing happens if it has ended."""
        owner = self._processes.get(process)
        wait = None if owner is None else owner.waits.get(number)
        if owner is None or wait is None:
            return
        self._forget_wait(wait)
        if wait.imported is not None:
            self.undo_reference(process, wait.imported.reference)

    def serve_waits(self) -> list[tuple[int, int]]:
        """Import what has appeared for the processes that wait for it. Return the waits that are over: process and
        number.
        """
        if not self._appeared:
            return []
        over: list[tuple[int, int]] = []
        appeared, self._appeared = self._appeared, set()
        for key in appeared:
            for wait in list(self._waiting.get(key, ())):
                if self._serve(wait):
                    self._stop_waiting(wait)
                    over.append((wait.process.id, wait.number))
        return over

    def wait_count(self) -> int:
        """Return how many waits there are."""
        return sum(self._user_waits.values())

    def _serve(self, wait: Wait) -> bool:
        """Return whether the wait is over."""
        try:
            wait.imported = self.import_by_name(wait.process.id, wait.name, wait.desired, wait.object_kind)
        except Refused as refusal:
            if refusal.status is Status.OBJECT_NAME_NOT_FOUND:
                return False
            wait.refusal = refusal
        return True
