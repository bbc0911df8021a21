"""`WriterLock`: the lock that makes a process the one writer of a channel.

How this works. It is the lock of a file that readers do not get: a file for locks with a name of its own, which only
this user can open. With a file of which readers have a descriptor, a reader could keep a new writer out. The file ends
with the writer, so nothing is left of it.
"""

from __future__ import annotations

from extmem.channel import control, names
from extmem.devices.host.range_lock_system import Range, RangeLocks, reopen
from extmem.errors import NameNotFoundError, NameTakenError
from extmem.handles import Access
from extmem.manager import Reference, manager
from extmem.sharing.kinds import ObjectKind

__all__ = ["WriterLock"]

_BYTE = Range(0)
_ATTEMPTS = 1000


class WriterLock:
    """See the module. Ownership: it owns the lock, and the reference to the file, until `close`."""

    __slots__ = ("_locks", "_reference")

    def __init__(self, locks: RangeLocks, reference: Reference) -> None:
        self._locks = locks
        self._reference = reference

    @classmethod
    def taken(cls, identity: bytes) -> WriterLock | None:
        """Return the lock of a channel; None if another writer has it.

        Errors: AccessDeniedError for the channel of another user; OutOfMemoryError.
        """
        name = names.writer(identity)
        for _ in range(_ATTEMPTS):
            try:
                file, reference = control.publish_lock(identity, name)
            except NameTakenError:
                owner = manager()
                reference = Reference(owner)
                try:
                    found = owner.import_by_name(name, int(Access.READ), reference, object_kind=ObjectKind.CHANNEL)
                except NameNotFoundError:
                    continue  # its writer has just ended
                try:
                    locks = RangeLocks(reopen(found.payload.fd, writable=True))
                finally:
                    found.payload.close()
            else:
                with file.hold():
                    locks = RangeLocks(reopen(file.fd, writable=True))
                file.close()
            if locks.try_exclusive(_BYTE):
                return cls(locks, reference)
            locks.close()
            reference.give_back()
            return None
        return None

    def close(self) -> None:
        """Stop being the writer. Safe to call twice."""
        self._locks.close()
        self._reference.give_back()
