r"""The kernel objects that GPU drivers share: memory, of type `DxgkSharedResource`, and semaphores and fences, of type
`DxgkSharedSyncObject`.

How this works. A driver creates them (vkAllocateMemory with VkExportMemoryAllocateInfo) under the exact name that the
program stated, in the session's directory of named objects, and returns handles to them. The handle table treats them
like other objects: NtDuplicateObject, NtQueryObject, NtCompareObjects. They are opened by name only with
D3DKMTOpenNtHandleFromName, which ignores case (B5), and D3DKMTOpenSyncObjectNtHandleFromName. The kernel does not
report anything about their contents, so memory of extmem has a companion section that describes it, and so have
semaphores and fences::

    extmem.open("Camera")  ->  \Sessions\1\BaseNamedObjects\Camera                  the driver's object
                               \Sessions\1\BaseNamedObjects\extmem.CAMERA.extmem    its companion, the description

A host payload of that name has the same companion, so the two cannot exist at the same time.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
import secrets
from collections.abc import Iterator
from typing import Any

from extmem.handles._win32 import calls, sections
from extmem.handles._win32.tables import D3DKMT_OPENNTHANDLEFROMNAME, later
from extmem.manager.windows import names, payloads, processes, status_errors
from extmem.objects import (
    MAXIMUM_ALLOWED,
    MEMORY,
    OBJECT_TYPES,
    READ_CONTROL,
    RESOURCE_WRITE,
    NameKey,
    Refused,
    Status,
    parse_path,
)
from extmem.objects.object_types import SYNC_SIGNAL, SYNC_WAIT
from extmem.sharing.kinds import ObjectKind

__all__ = [
    "SYNC_TYPE",
    "TYPES",
    "DriverObjects",
    "companion_path",
    "hidden_name",
    "is_hidden",
    "kernel",
    "open_named",
    "refuse_taken",
    "stood_in_by",
]

SYNC_TYPE = OBJECT_TYPES[ObjectKind.SEMAPHORE].name
"""The type of a driver's semaphores and fences."""
TYPES = (MEMORY.name, "DxgkSharedBundleObject", SYNC_TYPE)
"""Types of kernel objects that a driver shares; a bundle contains memory and a keyed mutex."""
_HIDDEN = "extmem.gpu."
_IS_HIDDEN = re.compile(r".*\\extmem\.gpu\.[0-9a-f]{32}", re.DOTALL)
_GONE = (Status.OBJECT_NAME_NOT_FOUND, Status.OBJECT_PATH_NOT_FOUND)
_LADDER = (MEMORY.all, READ_CONTROL | RESOURCE_WRITE, READ_CONTROL)
_SYNC_LADDER = (
    OBJECT_TYPES[ObjectKind.SEMAPHORE].all,
    READ_CONTROL | SYNC_WAIT | SYNC_SIGNAL,
    READ_CONTROL | SYNC_WAIT,
    READ_CONTROL,
)


class DriverObjects:
    """The kernel's calls for these objects. Their access rights are those that programs state."""

    def kind_of(self, value: int) -> str:
        """Return the type of the object of a handle of this process. StatusError for an invalid handle."""
        return calls.type_of(value)

    def open_named(self, path: str, access: int, flags: int = 0, kind: ObjectKind = ObjectKind.MEMORY) -> int:
        """Return a handle by full path, to memory, or to a semaphore or fence (`kind`).

        StatusError: OBJECT_NAME_NOT_FOUND also where Windows does not have such objects.
        """
        call = _opener("D3DKMTOpenNtHandleFromName" if kind is ObjectKind.MEMORY else _OPEN_SYNC)
        if call is None:
            raise calls.StatusError(Status.OBJECT_NAME_NOT_FOUND)
        how = calls.attributes(path, 0, flags)
        asked = D3DKMT_OPENNTHANDLEFROMNAME(access, ctypes.pointer(how), 0)
        calls.check(call(ctypes.byref(asked)))
        return int(asked.hNtHandle)

    def to_kernel(self, mask: int, kind: ObjectKind = ObjectKind.MEMORY) -> int:
        """Return the kernel object's access mask for a mapped mask of an object of this kind."""
        return mask

    def from_kernel(self, granted: int, kind: ObjectKind = ObjectKind.MEMORY) -> int:
        """Return the access mask of an object of this kind for the kernel object's granted access."""
        return granted


_OPEN_SYNC = "D3DKMTOpenSyncObjectNtHandleFromName"
"""Its parameter has the same members as that of the call for memory."""


@functools.cache
def _opener(name: str) -> Any:
    return later("gdi32", name, ctypes.c_long, ctypes.POINTER(D3DKMT_OPENNTHANDLEFROMNAME))


_now: list[DriverObjects] = [DriverObjects()]


def kernel() -> DriverObjects:
    """Return the kernel's calls, or those that replace them."""
    return _now[-1]


@contextlib.contextmanager
def stood_in_by(objects: DriverObjects) -> Iterator[None]:
    """Replace the kernel's calls within the block by those of a driver in Python (for tests)."""
    _now.append(objects)
    try:
        yield
    finally:
        _now.remove(objects)


def hidden_name() -> str:
    """Return a random name, for memory that the program did not name, so that its handles lead to its description."""
    return f"{_HIDDEN}{secrets.token_hex(16)}"


def is_hidden(path: str) -> bool:
    """Return whether a kernel object's path ends in a name of `hidden_name`."""
    return _IS_HIDDEN.fullmatch(path) is not None


def companion_path(path: str, session: int) -> str | None:
    """Return the path whose companion describes the driver's object at `path`; None for an unnamed or foreign one."""
    try:
        return names.payload_path(parse_path(path, session)) if path else None
    except Refused:
        return None


def open_named(key: NameKey, desired: int, flags: int = 0, kind: ObjectKind = ObjectKind.MEMORY) -> int | None:
    """Return a handle to the driver's object of that name with the mapped rights; None if there is no such object.

    kind: MEMORY, or SEMAPHORE for semaphores and fences, whose objects have one type.

    desired: MAXIMUM_ALLOWED takes all that the object's security allows. StatusError: ACCESS_DENIED,
    OBJECT_TYPE_MISMATCH if the name belongs to an object of another type.
    """
    objects = kernel()
    ladder: tuple[int, ...] = (desired,)
    if desired & MAXIMUM_ALLOWED:
        ladder = _LADDER if kind is ObjectKind.MEMORY else _SYNC_LADDER
    for asked in ladder:
        try:
            return objects.open_named(key.display, objects.to_kernel(asked, kind), flags, kind)
        except calls.StatusError as error:
            if error.status in _GONE:
                return None
            if error.status != Status.ACCESS_DENIED or asked == ladder[-1]:
                raise
    raise AssertionError("the last step of the ladder either opens or raises")


def refuse_taken(name: str) -> None:
    """Refuse a name that an object has already, before a driver creates memory under it (B10, G2).

    Errors: NameTakenError, ObjectTypeError, NameInvalidError, NameNotFoundError for a directory that does not exist.
    """
    key = names.resolve(name, calls.session(os.getpid()))
    holder = _holder(key)
    if holder is not None:
        status, path = holder
        raise status_errors.of_creating(calls.StatusError(status), name, path)


def _holder(key: NameKey) -> tuple[int, str] | None:
    """Return the status (collision or type mismatch) and path of the object with the name; None if there is none."""
    try:
        handle = open_named(key, READ_CONTROL)
    except calls.StatusError as error:
        mismatch = error.status == Status.OBJECT_TYPE_MISMATCH
        return error.status if mismatch else Status.OBJECT_NAME_COLLISION, key.display
    if handle is not None:
        calls.close_handle(handle)
        return Status.OBJECT_NAME_COLLISION, key.display
    path = names.payload_path(key)
    try:
        calls.close_handle(sections.open_named(path, sections.QUERY))
    except calls.StatusError as error:
        if _has_living_exporter(path):
            return Status.OBJECT_NAME_COLLISION, names.companion_of(path)
        taken = error.status in (Status.ACCESS_DENIED, Status.OBJECT_TYPE_MISMATCH)
        return (Status.OBJECT_NAME_COLLISION, path) if taken else None
    return Status.OBJECT_NAME_COLLISION, path


def _has_living_exporter(path: str) -> bool:
    """Return whether an exporter that still runs provides memory under that name (`exporter_names`)."""
    description = payloads.read_companion(path)
    return (
        description is not None
        and description.exporter_handle is not None
        and processes.start_time(description.exporter_handle[0]) == description.exporter_handle[1]
    )
