"""The things that the object manager keeps, as bare state. Who changes what, and when things end, is in `core.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from extmem.objects.access import RESOURCE_WRITE, VALID_BITS
from extmem.objects.lifetimes import Keeps
from extmem.objects.names import NameKey
from extmem.objects.results import TYPE_NAME
from extmem.objects.security import SecurityDescriptor, Token, allowed
from extmem.sharing.kinds import Share

if TYPE_CHECKING:
    from extmem.objects.table import HandleTable

__all__ = ["KernelObject", "Memory", "Payload", "Process", "SharedObject", "Ticket", "User"]


class Payload:
    """The memory itself. `refs` counts all that keeps it, `kmt_refs` what keeps its KMT number, `exporters` exporting
    memory.
    """

    __slots__ = (
        "descriptor", "exporters", "id", "identity", "kmt", "kmt_refs", "objects", "refs", "share", "strict_kmt",
        "tickets", "uid", "writable",
    )  # fmt: skip

    def __init__(
        self,
        payload: int,
        identity: tuple[int, int],
        descriptor: bytes,
        share: Share,
        *,
        uid: int,
        writable: bool,
        strict_kmt: bool,
    ) -> None:
        self.id = payload
        self.identity = identity
        self.descriptor = descriptor
        self.share = share
        self.uid = uid  # the user whose process shared it first
        self.writable = writable  # whether any exporter could write: a KMT import has no other rights to ask about
        self.strict_kmt = strict_kmt
        self.kmt: int | None = None
        self.refs = 0
        self.kmt_refs = 0
        self.exporters = 0
        self.objects: dict[int, SharedObject] = {}
        self.tickets: dict[int, Ticket] = {}  # every ticket that leads here: they end with the payload


class KernelObject:
    """Anything in the object directory or behind a handle. On Windows events, mutexes and sections share the directory
    (B2).
    """

    __slots__ = ("ceiling", "handles", "id", "name", "refs", "type_name")

    def __init__(self, object_id: int, type_name: str, name: NameKey | None) -> None:
        self.id = object_id
        self.type_name = type_name
        self.name = name
        self.refs = 0
        self.handles = 0
        self.ceiling = VALID_BITS  # what anybody may have of it at most

    def rights(self, token: Token) -> int:
        """What `token` may have of the object. Other types are there to be told apart, not to be protected."""
        return VALID_BITS

    @property
    def owner(self) -> int:
        """The uid of its owner; objects of other types have none: -1."""
        return -1

    @property
    def name_path(self) -> str:
        """The full path in the creator's case, empty for unnamed objects."""
        return "" if self.name is None else self.name.display


class SharedObject(KernelObject):
    """The named or unnamed object that refers to a payload; NT handles refer to it."""

    __slots__ = ("_rights", "_token", "born", "creator", "nameless", "payload", "sd", "sddl", "tickets", "writable")

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
        super().__init__(object_id, TYPE_NAME, name)
        self.nameless = 0  # of `refs`, those that do not keep the name
        self.born = born  # a number that grows from object to object, over restarts too
        self.payload = payload
        self.sd = sd
        self.sddl = sddl
        self.creator = creator
        self.writable = writable
        if not writable:  # memory that its exporter could only read gives nobody the right to write
            self.ceiling = VALID_BITS & ~RESOURCE_WRITE
        self.tickets: dict[int, Ticket] = {}
        self._token: Token | None = None
        self._rights = 0

    @property
    def owner(self) -> int:
        """The uid of its owner."""
        return int(self.sd.owner.rpartition("-")[2])

    def rights(self, token: Token) -> int:
        """`security.allowed`, remembered for the last token: nearly all openers of an object are one user."""
        if token is not self._token and token != self._token:
            self._rights = allowed(self.sd, token)
            self._token = token
        return self._rights


class Memory:
    """One process's view of a payload. For exporting ones `granted` and `inherit` are what their handles get (B29,
    B32).
    """

    __slots__ = ("exporting", "granted", "inherit", "keeps", "object", "payload")

    def __init__(
        self,
        payload: Payload,
        shared: SharedObject | None,
        keeps: Keeps,
        granted: int,
        *,
        exporting: bool = False,
        inherit: bool = False,
    ) -> None:
        self.payload = payload
        self.object = shared
        self.keeps = keeps
        self.granted = granted
        self.exporting = exporting
        self.inherit = inherit


class User:
    """A user whose processes have sent tickets that are in flight: all of them, and those that were demoted, oldest
    first.
    """

    __slots__ = ("tickets", "uid", "weak")

    def __init__(self, uid: int) -> None:
        self.uid = uid
        self.tickets: dict[int, Ticket] = {}
        self.weak: dict[int, Ticket] = {}


class Ticket:
    """A reference in flight. `keeps` is what it keeps alive now: nothing, once demoted. `sender` is None once that has
    ended.
    """

    __slots__ = ("granted", "id", "keeps", "kind", "object", "payload", "sender", "user")

    def __init__(
        self,
        ticket: int,
        user: User,
        sender: Process | None,
        kind: str,
        payload: Payload,
        shared: SharedObject | None,
        granted: int,
        keeps: Keeps,
    ) -> None:
        self.id = ticket
        self.user = user
        self.sender = sender
        self.kind = kind
        self.payload = payload
        self.object = shared
        self.granted = granted
        self.keeps = keeps


class Process:
    """A client: its token, its handle table and all that it holds. `parent` is who started it, until it shows up."""

    __slots__ = (
        "announced_objects", "announced_payloads", "children", "ended", "given", "id", "memories", "next_memory",
        "objects", "parent", "pid", "table", "tickets", "token",
    )  # fmt: skip

    def __init__(self, process: int, token: Token, pid: int, table: HandleTable) -> None:
        self.id = process
        self.token = token
        self.pid = pid
        self.table = table
        self.parent: Process | None = None
        self.children = 0  # inherited ones that have not shown up
        self.given = 0  # handles that it put into others' tables and that count against it
        self.ended = False
        self.objects = 0  # live shared objects that it made
        self.memories: dict[int, Memory] = {}
        self.next_memory = 1
        self.tickets: dict[int, Ticket] = {}
        self.announced_payloads: dict[int, Payload] = {}
        self.announced_objects: dict[int, SharedObject] = {}
