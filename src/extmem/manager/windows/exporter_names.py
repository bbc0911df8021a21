r"""Names of what has none in the kernel: memory whose driver takes no name for it, as CUDA's does not.

How this works. The name is the companion's alone. It says beside the description where the exporter keeps a handle of
the memory for everybody: whoever opens the name is held against the companion's security, which is the export's, and
duplicates that handle out of the exporter::

    extmem.open("Weights")  ->  \Sessions\1\BaseNamedObjects\extmem.WEIGHTS.extmem     the companion
                            ->  process 1234, created then, handle 0x98                 the memory

So such a name ends with its exporter, and with the last memory and handle that it has there, where a kernel object's
own name lives as long as anybody's last handle. A handle's value may be another object's by the time somebody
duplicates it; so the companion is looked at again afterwards: where it still stands, the exporter had not closed that
handle, which it closes last.
"""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("these are Windows's handles; extmem.manager selects what the system has")

import os

import msgspec

from extmem.errors import ObjectManagerError
from extmem.handles._win32 import calls, sections
from extmem.handles._win32.calls import StatusError
from extmem.manager.windows import driver_memory, names, payloads, processes, rights, status_errors
from extmem.manager.windows.section_frame import Description
from extmem.objects import MAXIMUM_ALLOWED, MEMORY, READ_CONTROL, RESOURCE_WRITE, NameKey, Status
from extmem.owning import OwnedDescriptor, OwnedFd

__all__ = ["announce", "open_lent", "stands"]

_LADDER = (MEMORY.all, READ_CONTROL | RESOURCE_WRITE, READ_CONTROL)


class _Companion(OwnedDescriptor):
    """A companion's handle, and the handle of the memory that it leads to, which is closed after it."""

    __slots__ = ("lends",)

    def __init__(self, companion: int, lends: OwnedFd) -> None:
        super().__init__(companion)
        self.lends = lends

    def give_back(self) -> None:
        """See `Owner`."""
        super().give_back()
        self.lends.settle()


def announce(handle: int, path: str, said: Description, name: str, sddl: str | None) -> OwnedFd:
    """The companion of a nameless object, which gives it that name while the result lives.

    handle: borrowed for the call. path: the payload's that could have the name. Errors: as `payloads.create_companion`.
    """
    kept = OwnedDescriptor(status_errors.duplicate(handle, options=calls.SAME_ACCESS))
    leads = msgspec.structs.replace(said, lent=(os.getpid(), processes.start_time(os.getpid()), kept.fd))
    return _Companion(payloads.create_companion(path, leads, name, sddl), kept)


def stands(key: NameKey) -> bool:
    """Whether something is lent under that name."""
    said = payloads.read_companion(names.payload_path(key))
    return said is not None and said.lent is not None


def open_lent(name: str, key: NameKey, desired: int, flags: int = 0) -> tuple[int, Description] | None:
    """A handle, owned by the caller, to what is lent under a name, and what its companion says; None for nothing.

    desired: mapped rights; MAXIMUM_ALLOWED takes as much as the companion's security allows.
    Errors: AccessDeniedError.
    """
    path = names.payload_path(key)
    said = payloads.read_companion(path)
    if said is None or said.lent is None:
        return None
    try:
        granted = _granted(path, desired)
    except StatusError as error:
        if error.status == Status.OBJECT_NAME_NOT_FOUND:
            return None
        raise status_errors.of_opening(error, name, path, desired) from None
    pid, created, value = said.lent
    try:
        with processes.reached(pid, created) as exporter:
            made = calls.duplicate(value, driver_memory.kernel().to_kernel(granted), flags, source=exporter)
    except (ObjectManagerError, StatusError) as error:
        if _status(error) == Status.ACCESS_DENIED:
            raise status_errors.denied(granted, f"opening {name!r}, which process {pid} lends,") from None
        return None  # the exporter is gone, or closes it just now
    if payloads.read_companion(path) != said or not _is_memory(made):
        calls.close_handle(made)
        return None
    return made, msgspec.structs.replace(said, lent=None)


def _granted(path: str, desired: int) -> int:
    """The rights that the companion's security allows of those that are asked for. StatusError where it does not."""
    ladder = _LADDER if desired & MAXIMUM_ALLOWED else (desired,)
    for asked in ladder:
        try:
            calls.close_handle(sections.open_named(names.companion_of(path), rights.to_section(asked)))
            return asked
        except StatusError as error:
            if error.status != Status.ACCESS_DENIED or asked == ladder[-1]:
                raise
    raise AssertionError("the last step of the ladder either opens or raises")


def _status(error: ObjectManagerError | StatusError) -> int:
    return error.status if isinstance(error, StatusError) else error.ntstatus


def _is_memory(handle: int) -> bool:
    try:
        return driver_memory.kernel().kind_of(handle) in driver_memory.TYPES
    except StatusError:
        return False
