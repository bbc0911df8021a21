r"""What the kernel says of the memory that GPU drivers share: objects of type `DxgkSharedResource`.

How this works. A driver makes them (vkAllocateMemory with VkExportMemoryAllocateInfo) under the very name that the
program gave, in the session's directory of named objects, and gives handles to them. The handle table treats them like
any other object: NtDuplicateObject, NtQueryObject, NtCompareObjects. By name they open through
D3DKMTOpenNtHandleFromName alone, which ignores case (B5). Nothing about their bytes is told, so extmem's memory has a
companion section that describes it::

    extmem.open("Camera")  ->  \Sessions\1\BaseNamedObjects\Camera                  the driver's object
                               \Sessions\1\BaseNamedObjects\extmem.CAMERA.extmem    its companion, the description

A host payload of that name has the same companion, so the two cannot stand side by side.
"""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("these are the objects of Windows's GPU drivers; extmem.manager selects what the system has")

import contextlib
import ctypes
import functools
import os
import re
import secrets
from collections.abc import Iterator
from typing import Any

from extmem.handles._win32 import calls, sections
from extmem.handles._win32.calls import StatusError, attributes, check
from extmem.handles._win32.tables import D3DKMT_OPENNTHANDLEFROMNAME, later
from extmem.manager.windows import names, payloads, processes, status_errors
from extmem.objects import (
    MAXIMUM_ALLOWED,
    MEMORY,
    READ_CONTROL,
    RESOURCE_WRITE,
    NameKey,
    Refused,
    Status,
    error_for,
)
from extmem.objects.names import parse_path

__all__ = [
    "TYPES",
    "DriverObjects",
    "companion_path",
    "hidden_name",
    "is_hidden",
    "kernel",
    "not_a_driver_s",
    "open_named",
    "refuse_taken",
    "stood_in_by",
]

TYPES = (MEMORY.name, "DxgkSharedBundleObject")
"""Types of kernel objects that hold a driver's memory; a bundle has a keyed mutex beside it."""
_HIDDEN = "extmem.gpu."
_IS_HIDDEN = re.compile(r".*\\extmem\.gpu\.[0-9a-f]{32}", re.DOTALL)
_GONE = (Status.OBJECT_NAME_NOT_FOUND, Status.OBJECT_PATH_NOT_FOUND)
_LADDER = (MEMORY.all, READ_CONTROL | RESOURCE_WRITE, READ_CONTROL)


class DriverObjects:
    """What the kernel tells of them. Rights are those of shared memory, which are theirs."""

    def kind_of(self, value: int) -> str:
        """The type of the object that a handle of this process refers to. StatusError for none."""
        return calls.type_of(value)

    def open_named(self, path: str, access: int, flags: int = 0) -> int:
        """A handle by full path. StatusError: OBJECT_NAME_NOT_FOUND also where Windows has no such objects."""
        call = _opener()
        if call is None:
            raise StatusError(Status.OBJECT_NAME_NOT_FOUND)
        how = attributes(path, 0, flags)
        asked = D3DKMT_OPENNTHANDLEFROMNAME(access, ctypes.pointer(how), 0)
        check(call(ctypes.byref(asked)))
        return int(asked.hNtHandle)

    def to_kernel(self, mask: int) -> int:
        """A mapped mask of shared memory, for the kernel object."""
        return mask

    def from_kernel(self, granted: int) -> int:
        """The kernel object's granted access, for shared memory."""
        return granted


@functools.cache
def _opener() -> Any:
    return later("gdi32", "D3DKMTOpenNtHandleFromName", ctypes.c_long, ctypes.POINTER(D3DKMT_OPENNTHANDLEFROMNAME))


_now: list[DriverObjects] = [DriverObjects()]


def kernel() -> DriverObjects:
    """Whom to ask: the kernel, or what stands in for it."""
    return _now[-1]


@contextlib.contextmanager
def stood_in_by(objects: DriverObjects) -> Iterator[None]:
    """Within the block a driver in Python has objects of its own kind (for tests)."""
    _now.append(objects)
    try:
        yield
    finally:
        _now.remove(objects)


def hidden_name() -> str:
    """A name that no program chose, for memory whose bare handles are to lead to its description."""
    return f"{_HIDDEN}{secrets.token_hex(16)}"


def is_hidden(path: str) -> bool:
    """Whether a kernel object's path ends in a name that `hidden_name` drew."""
    return _IS_HIDDEN.fullmatch(path) is not None


def companion_path(path: str, session: int) -> str | None:
    """The path whose companion describes the driver's object at `path`; None for an unnamed one, or one elsewhere."""
    try:
        return names.payload_path(parse_path(path, session)) if path else None
    except Refused:
        return None


def open_named(key: NameKey, desired: int, flags: int = 0) -> int | None:
    """A handle to the driver's object of that name with the mapped rights; None where there is no such object.

    desired: MAXIMUM_ALLOWED takes as much as the object's security allows. StatusError: ACCESS_DENIED,
    OBJECT_TYPE_MISMATCH where the name is another kind of object's.
    """
    objects = kernel()
    ladder = _LADDER if desired & MAXIMUM_ALLOWED else (desired,)
    for asked in ladder:
        try:
            return objects.open_named(key.display, objects.to_kernel(asked), flags)
        except StatusError as error:
            if error.status in _GONE:
                return None
            if error.status != Status.ACCESS_DENIED or asked == ladder[-1]:
                raise
    raise AssertionError("the last step of the ladder either opens or raises")


def refuse_taken(name: str) -> None:
    """Refuse a name that an object has already, before a driver is asked to give it to its memory (B10, G2).

    Errors: NameTakenError, ObjectTypeError, NameInvalidError, NameNotFoundError for a directory that is not there.
    """
    key = names.resolve(name, calls.session(os.getpid()))
    holder = _holder(key)
    if holder is not None:
        status, path = holder
        raise status_errors.of_creating(StatusError(status), name, path)


def _holder(key: NameKey) -> tuple[int, str] | None:
    """The status of whatever has the name (a collision or another type) and its path; None where nothing has it."""
    try:
        handle = open_named(key, READ_CONTROL)
    except StatusError as error:
        mismatch = error.status == Status.OBJECT_TYPE_MISMATCH
        return error.status if mismatch else Status.OBJECT_NAME_COLLISION, key.display
    if handle is not None:
        calls.close_handle(handle)
        return Status.OBJECT_NAME_COLLISION, key.display
    path = names.payload_path(key)
    try:
        calls.close_handle(sections.open_named(path, sections.QUERY))
    except StatusError as error:
        if _lent_by_the_living(path):
            return Status.OBJECT_NAME_COLLISION, names.companion_of(path)
        return (Status.OBJECT_NAME_COLLISION, path) if error.status == Status.ACCESS_DENIED else None
    return Status.OBJECT_NAME_COLLISION, path


def _lent_by_the_living(path: str) -> bool:
    """Whether a companion alone gives something that name (`lent`), and its exporter still runs."""
    said = payloads.read_companion(path)
    return said is not None and said.lent is not None and processes.start_time(said.lent[0]) == said.lent[1]


def not_a_driver_s(value: int, kind: str) -> Exception:
    """A handle of another type than GPU memory has, where a driver would be given it."""
    return error_for(
        Status.OBJECT_TYPE_MISMATCH,
        f"The handle {value:#x} refers to an object of type {kind}, and GPU memory is a {MEMORY.name}. Pass the handle "
        "that the exporter's driver gave; another program's section is imported with extmem.raw.import_payload.",
    )
