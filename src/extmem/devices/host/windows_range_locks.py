r"""Locks of ranges on Windows: names of kernel objects, which end with the processes that have the objects open.

::

    \Sessions\1\BaseNamedObjects\extmem.channel.<identity>                   a directory: who may read opens it
    \Sessions\1\BaseNamedObjects\extmem.channel.<identity>\writer            the lock of the writer
    \Sessions\1\BaseNamedObjects\extmem.channel.<identity>\locks             a directory: who may read creates in it
    \Sessions\1\BaseNamedObjects\extmem.channel.<identity>\locks\<start>     a lock: an event (shared), or a mutex

How this works. A shared lock is a handle of an event of that name, which the first holder creates and others open. An
exclusive lock is a mutex of that name, which is created, and never opened. (Nobody waits for either.) The kernel
decides in one step whether a name exists and which type has it: an event is refused where there is a mutex, and a mutex
where there is anything. The name ends with the last handle, and a process that has ended, in whatever way, has none.
Handles are not inherited. Creating and closing go through one lock of the directory in the kernel, which orders the
bytes that were written before the release for whoever takes the lock afterwards.

Locks of a file (LockFileEx) are not used. A file that is to end with its processes is one to delete when it is closed
(FILE_FLAG_DELETE_ON_CLOSE). As soon as the first of its handles is closed, nobody can open it any more, although others
still have it: a reader that comes after the end of the first writer, or the next writer, would not find the locks. Any
other file is left behind when all processes are killed. And a file does not tell whether a range is locked.

Rights. Only who may read the channel can open the directories, and create in the second one. The objects have the
access list of that directory. Only this user can create in the first one, so no other user can take the lock of the
writer. The right to lock shared and that to lock alone are one right here: a hostile reader can keep others from a slot
by a mutex in its name, as it can keep the writer from it.
"""

from __future__ import annotations

import ctypes
import errno
import operator
import os
import sys
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakValueDictionary

from extmem.errors import NameNotFoundError
from extmem.handles._win32 import calls, directories, waitables
from extmem.handles._win32.tables import HANDLE, OBJECT_ATTRIBUTES, ntdll
from extmem.manager.windows import names, status_errors
from extmem.manager.windows.channel_security import access_list_of, lock_directory_sddl, root_directory_sddl
from extmem.manager.windows.security_descriptors import security_descriptor
from extmem.objects import READ_CONTROL, Status, error_for
from extmem.owning import Making, OwnedDescriptor

if sys.platform != "win32":
    raise ImportError("these are objects of Windows; extmem.devices.host.range_lock_system picks what the platform has")

__all__ = ["Directories", "Range", "RangeLocks", "create", "reopen", "take_name"]

_LOCKS: Final = "locks"
_OF_LOCK: Final = 0x1
"""EVENT_QUERY_STATE and MUTANT_QUERY_STATE: the right of a handle that only exists, which each access list grants."""
_OF_ROOT: Final = READ_CONTROL | directories.QUERY | directories.TRAVERSE
_OF_LOCKS: Final = _OF_ROOT | directories.CREATE_OBJECT
_NOTIFICATION: Final = 0
_MOST_PINNED: Final = 512
_BUSY: Final = frozenset((Status.OBJECT_NAME_COLLISION, Status.OBJECT_TYPE_MISMATCH, Status.ACCESS_DENIED))
"""Denied: an object that somebody has made there with an access list of its own."""


class Directories(OwnedDescriptor):
    """Owner of handles of both directories of a channel: `root`, and as `fd` that of the locks."""

    __slots__ = ("root",)

    def __init__(self) -> None:
        super().__init__()
        self.root = 0

    def own(self, call: Callable[..., int], *arguments: Any) -> int:
        """Own what a call of the kernel makes, with these arguments after the first one, too. Return its handle.

        Errors: StatusError; nothing is owned any more then.
        """
        made = (HANDLE * 1)()
        making = Making(call, (made, *arguments), made, calls.close_handle)
        self.owe(making.steps)
        if making.result < 0:
            self.close()
            raise calls.StatusError(making.result & 0xFFFF_FFFF)
        return made[0]


def create(identity: bytes, security: str | None) -> Directories:
    """Create the directories of a channel, or open those that there are, with all rights.

    security: SDDL of the channel. Errors: AccessDeniedError for the channel of another user; SecurityDescriptorError;
    OutOfMemoryError.
    """
    found = Directories()
    make = ntdll.NtCreateDirectoryObject
    try:
        with security_descriptor(root_directory_sddl(security)) as address:
            how = calls.attributes(_root_path(identity), address, waitables.OPEN_IF)
            found.root = found.own(make, directories.ALL, how)
        with security_descriptor(lock_directory_sddl(security)) as address:
            how = directories.inside(found.root, _LOCKS, address, waitables.OPEN_IF)
            found.fd = found.own(make, directories.ALL, how)
    except calls.StatusError as error:
        raise _failed(error) from None
    return found


def reopen(identity: bytes) -> Directories:
    """Open the directories of a channel that exists, with the rights of a reader.

    Errors: NameNotFoundError if nobody has them open any more; AccessDeniedError; OutOfMemoryError.
    """
    found = Directories()
    try:
        found.root = found.own(ntdll.NtOpenDirectoryObject, _OF_ROOT, calls.attributes(_root_path(identity)))
        found.fd = found.own(ntdll.NtOpenDirectoryObject, _OF_LOCKS, directories.inside(found.root, _LOCKS))
    except calls.StatusError as error:
        raise _failed(error) from None
    return found


def take_name(identity: bytes, name: str, security: str | None) -> Directories | None:
    """Take a name in the directory of a channel, which is created if need be; None if somebody has it.

    The owner that is returned has it. Errors: as `create`.
    """
    found = create(identity, security)
    try:
        found.own(ntdll.NtCreateMutant, _OF_LOCK, directories.inside(found.root, name), False)
    except calls.StatusError as error:
        if error.status in _BUSY:
            return None
        raise _failed(error) from None
    return found


def _root_path(identity: bytes) -> str:
    return names.channel_directory(calls.session(os.getpid()), identity)


def _failed(error: calls.StatusError) -> Exception:
    if error.status in (Status.OBJECT_NAME_NOT_FOUND, Status.OBJECT_PATH_NOT_FOUND):
        return NameNotFoundError(
            "the locks of this channel do not exist: its writer has ended, and no reader has kept it; start the writer "
            "again",
            ntstatus=int(Status.OBJECT_NAME_NOT_FOUND),
            winerror=2,
        )
    if error.status == Status.ACCESS_DENIED:
        return error_for(
            Status.ACCESS_DENIED,
            "The locks of this channel may not be taken by this user: they belong to the user that created it, who "
            "alone can be its writer. Open it by extmem.open_channel, to read.",
        )
    return status_errors.out_of_memory(error, "NtCreateDirectoryObject", "a lock of a channel") or status_errors.other(
        error, "The locks of a channel cannot be used."
    )


class Range:
    """A range of numbers, by whose start it is named."""

    __slots__ = ("length", "start")

    def __init__(self, start: int, length: int = 1) -> None:
        self.start = start
        self.length = length


class _Lock:
    """What one description has of one range. The methods are called in the path of each frame."""

    __slots__ = ("__weakref__", "_event", "_mutex", "owners", "unlock")

    def __init__(self, directory: int, start: int, security: int) -> None:
        name = f"{start:x}"
        self._event = directories.inside(directory, name, security, waitables.OPEN_IF)
        self._mutex = directories.inside(directory, name, security)
        self.owners: list[OwnedDescriptor] = []
        """The owners of its handles: none, or one."""
        self.unlock: Callable[[], None] = self.owners.clear
        """Releases the lock, if there is one: the handle is closed with its owner, in this one call of C code."""

    def shared(self) -> None:
        """Lock the range together with others. Errors: BlockingIOError if somebody has it alone."""
        self._lock(ntdll.NtCreateEvent, self._event, _NOTIFICATION, False)

    def exclusive(self) -> None:
        """Lock the range alone. Errors: BlockingIOError if it is locked."""
        self._lock(ntdll.NtCreateMutant, self._mutex, False)

    def _lock(self, call: Callable[..., int], how: OBJECT_ATTRIBUTES, *more: Any) -> None:
        made = (HANDLE * 1)()
        owner = OwnedDescriptor()
        making = Making(call, (made, _OF_LOCK, how, *more), made, calls.close_handle)
        try:
            owner.owe(making.steps)
            status = making.result & 0xFFFF_FFFF
            if status & 0x8000_0000:
                owner.forget()
                if status in _BUSY:
                    raise BlockingIOError(errno.EAGAIN, "the range is locked by somebody else")
                raise _failed(calls.StatusError(status))
            self.owners.append(owner)
        except BaseException:
            # The traceback of the exception refers to the owner, which must not have the lock until that is gone.
            owner.give_back()
            raise


class RangeLocks:
    """The locks of one opening of a channel's directories. Ownership: it owns them until `close`."""

    __slots__ = ("_kept", "_locks", "_names", "_pinned", "_security", "hold", "owner")

    call: Callable[..., Any] = operator.call  # a C function, so no method
    """Locks and unlocks, with the arguments of `shared`, `exclusive` and `unlocking`: for the path of each frame. It
    raises BlockingIOError if somebody else has the range. The caller keeps `hold` meanwhile."""

    def __init__(self, owner: Directories) -> None:
        """owner: of `create` or `reopen`."""
        self.owner = owner
        self.hold: Any = owner.hold()
        """The hold on the directories. Whoever keeps it keeps the locks, and may use `call`."""
        self._locks: WeakValueDictionary[int, _Lock] = WeakValueDictionary()
        """What this has of each range that is in use, by its start."""
        self._names: dict[Range, list[tuple[int, OBJECT_ATTRIBUTES]]] = {}
        """The names in the ranges that `has_foreign` was asked for: the writer asks for one, again and again."""
        self._pinned: dict[int, _Lock] = {}
        """Those that `try_shared` and `try_exclusive` have locked. The others are kept by the arguments of `call`."""
        try:
            self._kept = access_list_of(owner.fd)
        except calls.StatusError as error:
            self.close()
            raise _failed(error) from None
        self._security = ctypes.addressof(self._kept)

    def _of(self, place: Range) -> _Lock:
        return self._locks.get(place.start) or self._locks.setdefault(
            place.start, _Lock(self.owner.fd, place.start, self._security)
        )

    def _pin(self, place: Range) -> _Lock:
        lock = self._pinned[place.start] = self._of(place)
        if len(self._pinned) > _MOST_PINNED:
            for start, other in list(self._pinned.items()):
                if not other.owners and other is not lock:
                    self._pinned.pop(start, None)
        return lock

    def try_shared(self, place: Range) -> bool:
        """Lock the range together with others, unless somebody has it exclusively. Return whether it is locked."""
        try:
            self._pin(place).shared()
        except BlockingIOError:
            return False
        return True

    def try_exclusive(self, place: Range) -> bool:
        """Lock the range alone, unless somebody has a lock there. Return whether it is locked."""
        try:
            self._pin(place).exclusive()
        except BlockingIOError:
            return False
        return True

    def unlock(self, place: Range) -> None:
        """Release this opening's lock of the range, if there is one. Nothing happens after `close`."""
        if self.hold is not None:
            self._of(place).unlock()

    def shared(self, place: Range) -> tuple[Any, ...]:
        """Return the arguments of `call` that lock the range together with others."""
        return (self._of(place).shared,)

    def exclusive(self, place: Range) -> tuple[Any, ...]:
        """Return the arguments of `call` that lock the range alone."""
        return (self._of(place).exclusive,)

    def unlocking(self, place: Range) -> tuple[Any, ...]:
        """Return the arguments of `call` that unlock the range."""
        return (self._of(place).unlock,)

    def has_foreign(self, place: Range) -> bool:
        """Return whether somebody else has a lock in this range. The path of each frame."""
        names = self._names.get(place)
        if names is None:
            names = self._names[place] = self._names_of(place.start, place.length)
        return self._first_foreign(names) is not None

    def any_foreign(self, start: int, length: int) -> int | None:
        """Return the least number in this range that is locked by somebody else; None without.

        One that this opening has locked is passed over.
        """
        return self._first_foreign(self._names_of(start, length))

    def _names_of(self, start: int, length: int) -> list[tuple[int, OBJECT_ATTRIBUTES]]:
        directory = self.owner.fd
        return [(number, directories.inside(directory, f"{number:x}")) for number in range(start, start + length)]

    def _first_foreign(self, names: list[tuple[int, OBJECT_ATTRIBUTES]]) -> int | None:
        own = self._locks
        made = (HANDLE * 1)()
        for number, how in names:
            mine = own.get(number)
            if mine is not None and mine.owners:
                continue
            # No lock is a semaphore, so this opens none: it tells whether there is an object of another type.
            status = ntdll.NtOpenSemaphore(made, _OF_LOCK, how) & 0xFFFF_FFFF
            if status != Status.OBJECT_NAME_NOT_FOUND:
                if not status & 0x8000_0000:  # somebody else has made one
                    calls.close_handle(made[0])
                return number
        return None

    def end_if_closed(self) -> None:
        """Close the directories if `close` has left them to a hold that has ended now."""
        if self.owner.closing:
            self.owner.try_to_end()
            self._end_locks()

    def close(self) -> None:
        """End the hold. The locks end, and the directories are closed, when nobody else holds them. Safe to repeat."""
        self.hold = None
        self.owner.end()
        self._end_locks()

    def _end_locks(self) -> None:
        """End all locks, once the directories are closed."""
        if not self.owner.owes:
            for lock in list(self._locks.values()):
                lock.unlock()
