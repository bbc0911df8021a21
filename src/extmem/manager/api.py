"""The interface of an object manager on every system: its calls and their results."""

from __future__ import annotations

import abc
import socket
from collections.abc import Iterable, Sequence
from typing import Self

import msgspec

from extmem import objects
from extmem.errors import UnsupportedError
from extmem.handles import HandleEntry, NtHandleTable
from extmem.objects import MAXIMUM_ALLOWED, Status, error_for
from extmem.owning import Owner, Step
from extmem.sharing.keeping import NOT_KEPT, Keep
from extmem.sharing.kinds import Backing, ObjectKind, Share
from extmem.sharing.payload import FilesAgain, Page
from extmem.sharing.terms import Exported, Imported

__all__ = ["BrokerStatus", "Lease", "Manager", "NameWait", "OtherBroker", "Reference", "held_number"]


class Reference(Owner):
    """The owner of a reference in the object manager, which `give_back` releases, or the loss of this object.

    It is created empty, before the call that creates the reference and records it here, so that an interrupt does not
    lose it.
    """

    __slots__ = ("manager", "names_count", "number")

    def __init__(self, manager: Manager, names_count: int | None = None) -> None:
        """names_count: the number in `Manager.names_counter` before the call, of an import by name."""
        Owner.__init__(self)
        self.manager = manager
        self.names_count = names_count
        self.number = 0
        """The number of the reference; 0 before it exists."""

    def record(self, number: int) -> None:
        """Own the reference of this number."""
        self.number = number
        self._owed.extend(self.manager.when_reference_lost(number))

    def give_back(self) -> None:
        """Release the reference, once. Errors: as `Manager.release`; it can be tried again then."""
        if self.owes:
            self.manager.release_once(self.number)
            self.forget()
        super().give_back()


def held_number(references: Sequence[Reference]) -> int:
    """Return the number of the first reference that exists; 0 if none does."""
    return next((reference.number for reference in references if reference.number), 0)


class OtherBroker(msgspec.Struct, frozen=True):
    """A running broker of another version of extmem, by the version of its wire format (2 also stands for older ones).

    `pid` is 0 where it is not known.
    """

    version: int
    pid: int
    socket: str


class BrokerStatus(msgspec.Struct, frozen=True):
    """A running broker. `uptime` and `longest_turn` (of its loop, so far) in seconds, `resident` in bytes.

    Of the `limit` file descriptors that it may have open, `used` are used for clients (`fds` of them for payloads), and
    `reserve` are kept for control. One client could get `client_share` more now, one user `user_share`.
    """

    pid: int
    version: int
    socket: str
    uptime: float
    clients: int
    payloads: int
    fds: int
    resident: int
    limit: int
    used: int
    reserve: int
    client_share: int
    user_share: int
    longest_turn: float
    kept: int = 0
    """Objects that it keeps itself."""
    waiting: int = 0
    """Waits for names."""


class NameWait(abc.ABC):
    """A wait for a name that did not exist when it began. `close()` ends it; nothing of it is left then.

    Use it in one thread, or in coroutines of one event loop.
    """

    @abc.abstractmethod
    def sleep(self, seconds: float | None) -> None:
        """Wait until the name has probably appeared, for so many seconds at most; None: without limit."""

    @abc.abstractmethod
    async def sleep_async(self) -> None:
        """As `sleep` without limit, while other coroutines run. It may be cancelled."""

    @abc.abstractmethod
    def take(self, reference: Reference) -> Imported | None:
        """End the wait. Return the import, which `reference` records; None if the name has not appeared.

        Errors: as `Manager.import_by_name`, except NameNotFoundError.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """End the wait. Safe to call twice, and after `take`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Lease(abc.ABC):
    """The right to be the only one that updates the contents of some memory; at first, a wait for that.

    It ends with `close()`, with the process, and with its last reference. Use it in one thread.
    """

    @abc.abstractmethod
    def obtain(self, seconds: float | None) -> bool | None:
        """Wait until this process has the lease, for so many seconds at most; None: without limit.

        Return whether it has it; None if the object manager has ended, so that another lease must be asked for.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Give it back. Safe to call twice."""


class Manager(NtHandleTable, abc.ABC):
    """Shared objects, their names and this process's handle table. Thread-safe.

    Errors of every call: the object manager's refusals (`ObjectManagerError` classes), PeerGoneError if it does not
    answer, UnsupportedError where there is none.
    """

    has_broker = True
    """Whether a separate process is the object manager. False where the kernel is."""
    names_counter: Sequence[int | None] = (0,)
    """Its first item is a number that changes whenever a live name begins to refer to another object, or another broker
    is asked; None until `watch_names` was called. An attribute, because each open by name reads it.
    """

    @abc.abstractmethod
    def export(
        self,
        handles: Sequence[int],
        descriptor: bytes,
        *,
        share: Share,
        name: str | None,
        access: int,
        sddl: str | None,
        inherit: bool,
        strict_kmt: bool = False,
        object_kind: ObjectKind = ObjectKind.MEMORY,
        backing: Backing = Backing.HOST_FILE,
        identity: int = 0,
        pages: Sequence[Page] = (),
        reference: Reference | None = None,
        replace: bool = False,
        keep: Keep = NOT_KEPT,
    ) -> Exported:
        """Share a payload. Its name, shared object and KMT number exist from here on (B13).

        handles: what the payload consists of, borrowed: fds, in order; on Windows one HANDLE, of an object that was
            created under this name and security. pages: its companion pages, which importers get after them.
        backing: what the handles are. identity: distinguishes payloads whose fds the kernel does not distinguish.
        reference: records the reference, here and in all calls that create one. Without it, the caller must release the
            number.
        replace: it takes the name of the object that has it, in the same step. keep: how long the object manager itself
            keeps the object. UnsupportedError for both where the kernel is the object manager.
        """

    @abc.abstractmethod
    def security_text(self, security: str | bytes | int | None) -> str | None:
        """Return a security descriptor of `vk.SecurityAttributes` as the SDDL text that `export` takes.

        Errors: UnsupportedError for a binary one on a system without them; SecurityDescriptorError.
        """

    def reading_alone(self) -> str:
        """Return SDDL that permits this user to read and permits writing to no user."""
        return "D:(A;;GR;;;OW)"

    @abc.abstractmethod
    def import_by_name(
        self,
        name: str,
        desired: int = MAXIMUM_ALLOWED,
        reference: Reference | None = None,
        *,
        of_a_gpu: bool = False,
        object_kind: ObjectKind = ObjectKind.MEMORY,
    ) -> Imported:
        """Import by name, with the requested rights, or all that the object's security allows.

        of_a_gpu: prefer the memory of a GPU. On Windows a host payload and another program's GPU memory may have the
            same name; on other systems a name belongs to one object.
        object_kind: ObjectTypeError for an object of another kind, here and in `import_by_handle`.
        """

    @abc.abstractmethod
    def await_name(
        self,
        name: str,
        desired: int,
        reference: Reference,
        *,
        object_kind: ObjectKind = ObjectKind.MEMORY,
    ) -> Imported | NameWait:
        """Import by name, as `import_by_name`; return a wait for the name if it does not exist."""

    def watch_names(self) -> int:
        """Return the number in `names_counter`, which is known from now on."""
        return 0

    def is_superseded(self, number: int) -> bool:
        """Return whether another object has got the name of a reference's object."""
        return False

    def lease(self, number: int) -> Lease:
        """Ask for the lease of the memory of a reference, which has the right to write, or exports.

        Errors: AccessDeniedError without that right; UnsupportedError where the kernel is the object manager.
        """
        raise UnsupportedError(
            "the Windows kernel gives the right to update by a mutex beside the control page, not by a reference",
            requires_one_of=["Linux"],
        )

    def freeze(self, numbers: Sequence[int]) -> tuple[int, ...]:
        """Let nobody write any more to the memory of these references, all of one memory of this process.

        It has the lease, and seals the files before it gives it back; it calls this again after that. Return the pids
        of processes that may write, as far as they are known: then nothing has changed. A pid is 0 for a process of
        another pid namespace. Errors: as `lease`.
        """
        raise UnsupportedError(
            "Windows has no seals, so nothing keeps processes from writing that have memory open for writing; open it "
            "with Access.READ where it is only read",
            requires_one_of=["Linux"],
        )

    @abc.abstractmethod
    def forget_name(self, name: str) -> bool:
        """End the keeping of the object with this name by the object manager. Return False if it is not kept.

        Errors: NameNotFoundError, AccessDeniedError for what another user keeps.
        """

    @abc.abstractmethod
    def import_by_handle(
        self, handle: int, reference: Reference | None = None, *, object_kind: ObjectKind = ObjectKind.MEMORY
    ) -> Imported:
        """Import by NT handle, with the handle's rights. The handle stays the caller's (B76)."""

    @abc.abstractmethod
    def import_by_kmt(
        self, number: int, reference: Reference | None = None, *, object_kind: ObjectKind = ObjectKind.MEMORY
    ) -> Imported:
        """Import by KMT number. InvalidHandleError (INVALID_PARAMETER) for one of another kind of object."""

    def import_stranger(
        self, number: int, reference: Reference | None = None, *, object_kind: ObjectKind = ObjectKind.MEMORY
    ) -> Imported:
        """Import by a KMT number that does not belong to extmem, but to another program. The driver checks it.

        InvalidHandleError where the number cannot be one.
        """
        raise error_for(Status.INVALID_PARAMETER, objects.bad_number(number))

    @abc.abstractmethod
    def release(self, number: int) -> None:
        """Release a reference. In a forked child, nothing happens for one of its parent."""

    def set_files_aside(self, number: int, count: int, again: FilesAgain | None) -> None:
        """Close the first `count` handles of the payload of this reference, which an import does not need any more.

        again: that import; None for one that failed. New ones are needed after another broker has come, by whichever
        thread finds that. Nothing happens on systems without a broker.
        """

    def release_once(self, number: int) -> None:
        """`release` for the owner of a reference: nothing happens if it is released already."""
        self.release(number)

    @abc.abstractmethod
    def when_reference_lost(self, number: int) -> Iterable[Step]:
        """Return the steps that release a reference when its owner is lost: C code, which cannot block or raise."""

    @abc.abstractmethod
    def get_handle(self, number: int, entry: HandleEntry | None = None) -> int:
        """Return a new handle of the object that a reference exports, with the access and inherit flag of the export
        (B29).
        """

    @abc.abstractmethod
    def open_handle(self, name: str, desired: int, inherit: bool = False, entry: HandleEntry | None = None) -> int:
        """Return a new handle by name (B15)."""

    def open_section(self, name: str, desired: int, entry: HandleEntry | None = None) -> int:
        """Return a new handle to another program's section by its exact name. UnsupportedError on other systems."""
        raise UnsupportedError(
            f"{name!r} cannot name a section on this system: sections exist on Windows only; open what extmem shares "
            "with extmem.open_handle",
            requires_one_of=["Windows"],
        )

    @abc.abstractmethod
    def kmt_alive(self, number: int) -> bool:
        """Return whether an import by this number would succeed now."""

    @abc.abstractmethod
    def offer(self, *, reference: int | None = None, handle: int | None = None, kmt: int | None = None) -> bytes:
        """Return a ticket (some bytes) for exactly one of the three, to be sent to another process by any channel.

        It keeps its payload alive until it is claimed or withdrawn, for a minute at most, or (`bind_offer`) for the
        lifetime of the process that it is bound to. It outlives this process; the payload then has no name and no KMT
        number. On Windows, where no other process can keep the payload, the ticket ends with this process.
        """

    @abc.abstractmethod
    def claim(
        self, ticket: bytes, reference: Reference | None = None, entry: HandleEntry | None = None
    ) -> Imported | int:
        """Claim a ticket, once: return an import, a handle of this process, or a KMT number."""

    @abc.abstractmethod
    def bind_offer(self, ticket: bytes, pid: int) -> None:
        """Bind a ticket to a process: it lasts until it is claimed, and is withdrawn when the process ends."""

    @abc.abstractmethod
    def bind_offer_to(self, ticket: bytes, child: object) -> None:
        """As `bind_offer`, for a child that is being started: its object gets a `pid` soon.

        Returns at once. If the object ends without a pid, the ticket is withdrawn.
        """

    @abc.abstractmethod
    def withdraw(self, ticket: bytes) -> bool:
        """Withdraw a ticket. Return False if it was claimed or has ended."""

    @abc.abstractmethod
    def inherit_socket(self, handles: Sequence[int] | None = None) -> socket.socket:
        """Return a channel for a child that will be started and inherits the handles that are inheritable now (B30).

        handles: only these (each must be inheritable, or InvalidHandleError); None is all inheritable ones.
        Ownership: the caller's. Pass its fd to the child, with the text of `wire.peers.inheritance` as
        `EXTMEM_INHERIT_FD` in its environment (`extmem.process.Popen` does so), and close it here once the child has
        started: the handles of a child that ends before it connects are then released.
        UnsupportedError on Windows, where the kernel does this: pass `handles` to CreateProcess.
        """

    @abc.abstractmethod
    def snapshot(self) -> list[objects.PayloadRow]:
        """Return all live payloads and their holders."""

    @property
    def holds_payloads(self) -> bool:
        """Whether this process holds payloads that it would announce to the next broker."""
        return False

    @abc.abstractmethod
    def status(self) -> BrokerStatus | None:
        """Return the status of the running broker; None where none runs. None is started."""

    def other_brokers(self) -> list[OtherBroker]:
        """Return the running brokers of other versions of extmem, which share nothing with this process."""
        return []

    @abc.abstractmethod
    def stop(self, *, force: bool = False) -> bool:
        """End the broker. Return False if other processes use it and `force` is not set; True if none runs any more.

        With `force`, no process loses anything: those that hold references start a new broker and announce them to it.
        """

    @abc.abstractmethod
    def disconnect(self) -> None:
        """Close the connection now. All references and handles of this manager end; it cannot be used again."""
