"""The control page of a channel on Linux, its locks, and the lock of the writer: memory files.

How this works. The page is a sealed memory file. Its companion page is the file of its locks, of which the writer and
each reader have an open file description of their own (`devices.host.range_locks`).

The lock of the writer is the lock of a file that readers do not get: a file for locks with a name of its own, which
only this user can open. With a file of which readers have a descriptor, a reader could keep a new writer out. The file
ends with the writer, so nothing is left of it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from extmem.channel import names
from extmem.core.describing import start_time_of
from extmem.devices.host import memfd
from extmem.devices.host.range_locks import Range, RangeLocks, create, reopen
from extmem.errors import ChannelCorruptError, NameNotFoundError, NameTakenError
from extmem.handles import Access
from extmem.handles.process_id import current_process
from extmem.manager import Imported, Reference, manager
from extmem.owning import OwnedFd
from extmem.sharing.descriptor.channel import ChannelDescriptor
from extmem.sharing.kinds import ObjectKind, Share
from extmem.sharing.payload import Page

if sys.platform != "linux":
    raise ImportError("memory files are Linux's; extmem.channel.system picks what the platform has")

__all__ = ["HAS_GPU_FRAMES", "WriterLock", "locks_of", "publish"]

HAS_GPU_FRAMES: Final = True
"""Whether frames can be memory of a GPU, or read on one."""
_BYTE = Range(0)
_ATTEMPTS = 1000


def publish(
    name: str, size: int, identity: bytes, write: Callable[[int], None], security: str | None
) -> tuple[OwnedFd, RangeLocks, Reference]:
    """Create a control page of this size, and give it the name. Return its file, its locks, and the reference.

    write: writes its first contents, into the file of this fd. The caller owns what is returned.
    Errors: NameTakenError, NameInvalidError, SecurityDescriptorError; OutOfMemoryError; UnsupportedError.
    """
    file: OwnedFd = memfd.create(size, b"")
    lock_file = create()
    reference = Reference(manager())
    with file.hold(), lock_file.hold():
        write(file.fd)
        _export(file.fd, name, _descriptor(identity), security, reference, (Page(lock_file.fd, False),))
        try:
            locks = RangeLocks(reopen(lock_file.fd, writable=True))
        except BaseException:
            reference.give_back()
            raise
    lock_file.close()
    return file, locks, reference


def locks_of(name: str, imported: Imported, security: str | None, *, writable: bool) -> RangeLocks:
    """Return new locks of the control page that was imported. writable: whether to lock exclusively.

    security: unused: the file has its own.

    Errors: ChannelCorruptError; AccessDeniedError; UnsupportedError without /proc; OutOfMemoryError.
    """
    pages = imported.payload.pages
    if len(pages) != 1:
        raise ChannelCorruptError(
            f"the channel {name!r} has {len(pages)} companion pages, and a channel has one; its writer is faulty, "
            "or of another version of extmem. Restart the writer, or open another channel"
        )
    return RangeLocks(reopen(pages[0].handle, writable=writable))


class WriterLock:
    """The lock that makes a process the one writer of a channel. Ownership: it owns the lock until `close`."""

    __slots__ = ("_locks", "_reference")

    def __init__(self, locks: RangeLocks, reference: Reference) -> None:
        """locks, reference: of its file; owned from now on."""
        self._locks = locks
        self._reference = reference

    @classmethod
    def taken(cls, identity: bytes, security: str | None) -> WriterLock | None:
        """Return the lock of a channel; None if another writer has it. security: unused; see the module.

        Errors: AccessDeniedError for the channel of another user; OutOfMemoryError.
        """
        name = names.writer(identity)
        owner = manager()
        for _ in range(_ATTEMPTS):
            reference = Reference(owner)
            file = create()
            try:
                with file.hold():
                    _export(file.fd, name, _descriptor(identity, lock=True), None, reference)
                    locks = RangeLocks(reopen(file.fd, writable=True))
            except NameTakenError:
                try:
                    found = owner.import_by_name(name, int(Access.READ), reference, object_kind=ObjectKind.CHANNEL)
                except NameNotFoundError:
                    continue  # its writer has just ended
                try:
                    locks = RangeLocks(reopen(found.payload.fd, writable=True))
                finally:
                    found.payload.close()
            finally:
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


def _descriptor(identity: bytes, *, lock: bool = False) -> ChannelDescriptor:
    pid = current_process.pid
    return ChannelDescriptor(
        identity=identity, lock=lock, share=int(Share.NT), owner_pid=pid, owner_start_time=start_time_of(pid)
    )


def _export(
    fd: int,
    name: str,
    descriptor: ChannelDescriptor,
    security: str | None,
    reference: Reference,
    pages: tuple[Page, ...] = (),
) -> None:
    reference.manager.export(
        (fd,),
        descriptor.encode(),
        share=Share.NT,
        name=name,
        access=int(Access.ALL),
        sddl=security,
        inherit=False,
        object_kind=ObjectKind.CHANNEL,
        pages=pages,
        reference=reference,
    )
