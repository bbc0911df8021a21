"""The control page of a channel on Windows, its locks, and the lock of the writer: a section and directories of names.

How this works. The page is a named section of the kind of channels. The directory of its locks is found by the identity
of the channel, which is in its description (`devices.host.windows_range_locks` has the rights, too). The lock of the
writer is a name in a directory in which only this user can create. The kernel releases all of them with the process.

A channel is of one session: its parts have names there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from extmem.core.describing import start_time_of
from extmem.devices.host import section
from extmem.devices.host.windows_range_locks import Directories, RangeLocks, create, reopen, take_name
from extmem.errors import ChannelCorruptError, DescriptorError, UnsupportedError
from extmem.handles import Access
from extmem.handles.process_id import current_process
from extmem.manager import Imported, Reference, manager
from extmem.owning import OwnedFd
from extmem.sharing.descriptor.channel import ChannelDescriptor
from extmem.sharing.kinds import ObjectKind, Share
from extmem.sharing.terms import ShareTerms

if sys.platform != "win32":
    raise ImportError("sections are Windows's; extmem.channel.system picks what the platform has")

__all__ = ["HAS_GPU_FRAMES", "WriterLock", "locks_of", "publish"]

HAS_GPU_FRAMES: Final = False
"""Whether frames can be memory of a GPU, or read on one. It has not been tried with a driver of Windows."""
_WRITER: Final = "writer"


def publish(
    name: str, size: int, identity: bytes, write: Callable[[int], None], security: str | None
) -> tuple[OwnedFd, RangeLocks, Reference]:
    """Create a control page of this size, and give it the name. Return its section, its locks, and the reference.

    write: writes its first contents, into the section of this handle. The caller owns what is returned.
    Errors: NameTakenError, NameInvalidError, SecurityDescriptorError; OutOfMemoryError; UnsupportedError for a name of
    another directory than the session's.
    """
    if name.casefold().startswith(("global\\", "session\\")):
        raise UnsupportedError(
            f"the channel {name!r} would have its name in another directory than the session of this process, and its "
            "parts could not be found from there; give it a name without Global\\ and Session\\",
            requires_one_of=["a name of the session"],
        )
    pid = current_process.pid
    descriptor = ChannelDescriptor(
        identity=identity, share=int(Share.NT), owner_pid=pid, owner_start_time=start_time_of(pid)
    ).encode()
    terms = ShareTerms(Share.NT, name, security, late=True)
    file = section.create(size, descriptor, terms, kind=ObjectKind.CHANNEL)
    reference = Reference(manager())
    locks = None
    try:
        with file.hold():
            write(file.fd)
            locks = RangeLocks(create(identity, security))
            reference.manager.export(
                (file.fd,),
                descriptor,
                share=Share.NT,
                name=name,
                access=int(Access.ALL),
                sddl=security,
                inherit=False,
                object_kind=ObjectKind.CHANNEL,
                reference=reference,
            )
    except BaseException:
        if locks is not None:
            locks.close()
        reference.give_back()
        file.close()
        raise
    return file, locks, reference


def locks_of(name: str, imported: Imported, security: str | None, *, writable: bool) -> RangeLocks:
    """Return new locks of the control page that was imported. writable: whether this is the side of the writer.

    security: SDDL for the directories, which a writer creates if nobody has kept them.

    Errors: NameNotFoundError if nobody has them open any more; ChannelCorruptError; AccessDeniedError;
    OutOfMemoryError.
    """
    try:
        identity = ChannelDescriptor.parse(imported.descriptor).identity
    except DescriptorError as error:
        raise ChannelCorruptError(
            f"the description of the channel {name!r} cannot be true ({error}); its writer is faulty, or of another "
            "version of extmem. Restart the writer, or open another channel"
        ) from None
    return RangeLocks(create(identity, security) if writable else reopen(identity))


class WriterLock:
    """The lock that makes a process the one writer of a channel. Ownership: it owns the lock until `close`."""

    __slots__ = ("_owner",)

    def __init__(self, owner: Directories) -> None:
        self._owner = owner

    @classmethod
    def taken(cls, identity: bytes, security: str | None) -> WriterLock | None:
        """Return the lock of a channel; None if another writer has it. security: SDDL of the channel.

        Errors: AccessDeniedError for the channel of another user; OutOfMemoryError.
        """
        owner = take_name(identity, _WRITER, security)
        return None if owner is None else cls(owner)

    def close(self) -> None:
        """Stop being the writer. Safe to call twice."""
        self._owner.close()
