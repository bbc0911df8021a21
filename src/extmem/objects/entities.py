"""What the object manager keeps, as plain state. `core` contains the changes, and when objects end."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from extmem.objects.kernel_object import KernelObject
from extmem.objects.lifetimes import Keeps
from extmem.objects.names import NameKey
from extmem.objects.object_types import OBJECT_TYPES, ObjectType
from extmem.objects.results import Imported
from extmem.objects.security import SecurityDescriptor, Token, allowed
from extmem.objects.status import Refused
from extmem.objects.table import HandleTable
from extmem.sharing.keeping import Keep
from extmem.sharing.kinds import ObjectKind, Share

__all__ = [
    "Identity",
    "Kept",
    "Payload",
    "Process",
    "Reference",
    "Replacement",
    "SharedObject",
    "Ticket",
    "User",
    "Wait",
    "Who",
]

Identity: TypeAlias = tuple[tuple[int, int], ...]
"""What identifies a payload: a pair of numbers for each of its handles, in order (st_dev and st_ino of a file)."""
Who: TypeAlias = tuple[int, int]
"""A process across a restart of the object manager: its pid and its start time."""


class Payload:
    """A shared payload, such as memory.

    `refs` counts everything that keeps it alive, `kmt_refs` what keeps its KMT number alive, `exporters` the exporting
    references.
    """

    __slots__ = (
        "descriptor", "exporters", "frozen", "id", "identity", "kmt", "kmt_refs", "object_kind", "objects", "refs",
        "share", "strict_kmt", "tickets", "type", "uid", "writable", "writers",
    )  # fmt: skip

    def __init__(
        self,
        payload: int,
        identity: Identity,
        descriptor: bytes,
        share: Share,
        *,
        object_kind: ObjectKind,
        uid: int,
        writable: bool,
        strict_kmt: bool,
    ) -> None:
        self.id = payload
        self.identity = identity
        self.descriptor = descriptor
        self.share = share
        self.object_kind = object_kind
        self.type: ObjectType = OBJECT_TYPES[object_kind]
        self.uid = uid  # the user whose process shared it first
        self.writable = writable  # whether any exporter could write: these are the rights of a KMT import
        self.strict_kmt = strict_kmt
        self.frozen = False  # whether nobody may write to it any more
        self.writers: dict[int, int] = {}  # process → how many of its references have the right to write
        self.kmt: int | None = None
        self.refs = 0
        self.kmt_refs = 0
        self.exporters = 0
        self.objects: dict[int, SharedObject] = {}
        self.tickets: dict[int, Ticket] = {}  # all tickets for this payload: they end with it


class SharedObject(KernelObject):
    """The named or unnamed object that refers to a payload. NT handles refer to it."""

    __slots__ = (
        "_rights", "_token", "born", "creator", "kept", "nameless", "payload", "publisher", "sd", "sddl", "superseded",
        "tickets", "writable",
    )  # fmt: skip

    def __init__(
        self,
        object_id: int,
        name: NameKey | None,
        payload: Payload,
        sd: SecurityDescriptor,
        sddl: str,
        creator: Process,
        *,
        born: int,
        writable: bool,
    ) -> None:
        super().__init__(object_id, payload.type, name)
        self.nameless = 0  # the number of `refs` that do not keep the name
        self.born = born  # a number that grows from object to object, across restarts too
        self.payload = payload
        self.sd = sd
        self.sddl = sddl
        self.creator = creator
        self.publisher = creator.who  # the process that exported it; it may replace it
        self.superseded = False  # whether another object has got its name
        self.kept: Kept | None = None
        self.writable = writable
        if not writable:  # an exporter that can only read gives no one the right to write
            self.ceiling &= ~self.type.modify
        self.tickets: dict[int, Ticket] = {}
        self._token: Token | None = None
        self._rights = 0

    @property
    def may_give(self) -> int:
        """See `KernelObject`."""
        return self.ceiling & ~self.type.modify if self.payload.frozen else self.ceiling

    @property
    def frozen(self) -> bool:
        """See `KernelObject`."""
        return self.payload.frozen

    @property
    def owner(self) -> int:
        """The uid of its owner."""
        return int(self.sd.owner.rpartition("-")[2])

    def rights(self, token: Token) -> int:
        """`security.allowed`, cached for the last token: nearly all openers of an object are one user."""
        if token is not self._token and token != self._token:
            self._rights = allowed(self.sd, token, self.type)
            self._token = token
        return self._rights


class Reference:
    """A reference of one process to a payload, which an object of one of its devices holds (a VkDeviceMemory, say).

    For an exporting reference, `granted` and `inherit` are the rights and the flag of its handles (B29, B32).
    `writes`: its device may write to the payload. Several processes can have one object of this class, which does not
    change.
    """

    __slots__ = ("exporting", "granted", "inherit", "keeps", "object", "payload", "writes")

    def __init__(
        self,
        payload: Payload,
        shared: SharedObject | None,
        keeps: Keeps,
        granted: int,
        *,
        exporting: bool = False,
        inherit: bool = False,
        writes: bool = False,
    ) -> None:
        self.payload = payload
        self.writes = writes
        self.object = shared
        self.keeps = keeps
        self.granted = granted
        self.exporting = exporting
        self.inherit = inherit


class Kept:
    """The object manager's own hold on an object, by `keep=`. It counts against the user `uid`."""

    __slots__ = ("keep", "takes", "uid")

    def __init__(self, keep: Keep, uid: int) -> None:
        self.keep = keep
        self.uid = uid
        self.takes = 0  # how often another process than the publisher has opened it


class Replacement(msgspec.Struct, frozen=True):
    """An export that took the name of another object, until it is known that the exporter got the reply."""

    made: SharedObject
    rival: SharedObject
    name: NameKey


class Wait:
    """A process's wait for a name. It is over when one of `imported` and `refusal` is set."""

    __slots__ = ("desired", "imported", "key", "name", "number", "object_kind", "process", "refusal")

    def __init__(self, number: int, process: Process, name: str, key: str, desired: int, object_kind: int) -> None:
        self.number = number
        self.process = process
        self.name = name
        self.key = key
        self.desired = desired
        self.object_kind = object_kind
        self.imported: Imported | None = None
        self.refusal: Refused | None = None


class User:
    """A user whose processes have sent tickets that are in flight: all of them, and the demoted ones, oldest first."""

    __slots__ = ("tickets", "uid", "weak")

    def __init__(self, uid: int) -> None:
        self.uid = uid
        self.tickets: dict[int, Ticket] = {}
        self.weak: dict[int, Ticket] = {}


class Ticket:
    """A reference in flight.

    `source` is what the sender offered: "reference", "handle" or "kmt". `keeps` is what the ticket keeps alive now:
    nothing, once it is demoted. `sender` is None after the sender has ended.
    """

    __slots__ = ("granted", "id", "keeps", "object", "payload", "sender", "source", "user")

    def __init__(
        self,
        ticket: int,
        user: User,
        sender: Process | None,
        source: str,
        payload: Payload,
        shared: SharedObject | None,
        granted: int,
        keeps: Keeps,
    ) -> None:
        self.id = ticket
        self.user = user
        self.sender = sender
        self.source = source
        self.payload = payload
        self.object = shared
        self.granted = granted
        self.keeps = keeps


class Process:
    """A client: its token, its handle table and all that it holds.

    `parent` is the process that started it, until it connects.
    """

    __slots__ = (
        "announced_objects", "announced_payloads", "children", "ended", "given", "id", "next_reference", "objects",
        "parent", "pid", "references", "replaced", "table", "tickets", "token", "waits", "who",
    )  # fmt: skip

    def __init__(self, process: int, token: Token, pid: int, table: HandleTable, who: Who) -> None:
        self.id = process
        self.token = token
        self.pid = pid
        self.who = who
        self.table = table
        self.parent: Process | None = None
        self.children = 0  # the number of inheriting children that have not connected yet
        self.given = 0  # the number of handles that it put into other tables and that count against it
        self.ended = False
        self.objects = 0  # the number of live shared objects that it created
        self.references: dict[int, Reference] = {}
        self.next_reference = 1
        self.tickets: dict[int, Ticket] = {}
        self.announced_payloads: dict[int, Payload] = {}
        self.announced_objects: dict[int, SharedObject] = {}
        self.waits: dict[int, Wait] = {}
        self.replaced: Replacement | None = None
