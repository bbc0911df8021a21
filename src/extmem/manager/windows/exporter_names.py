r"""Names for memory whose driver does not take a name for it, such as CUDA's: the kernel object has none.

How this works. Only the companion has the name. Beside the description it contains where the exporter keeps a handle of
the memory. A process that opens the name is checked by the companion's security, which is the export's, and duplicates
that handle from the exporter::

    extmem.open("Weights")  ->  \Sessions\1\BaseNamedObjects\extmem.WEIGHTS.extmem     the companion
                            ->  process 1234, created then, handle 0x98                 the memory

So such a name ends with its exporter, and with the exporter's last reference and handle, while the name of a kernel
object lives until the last handle of any process is closed. The value of a handle may be reused for another object
before it is duplicated. So the companion is read again afterwards: if it still exists, the exporter had not closed that
handle, which it closes last.
"""

from __future__ import annotations

import os

import msgspec

from extmem.errors import ObjectManagerError
from extmem.handles._win32 import calls, sections
from extmem.manager.windows import driver_memory, names, payloads, processes, rights, status_errors
from extmem.manager.windows.section_frame import Description
from extmem.objects import MAXIMUM_ALLOWED, MEMORY, READ_CONTROL, RESOURCE_WRITE, NameKey, Status
from extmem.owning import OwnedDescriptor, OwnedFd

__all__ = ["announce", "open_exporter_name", "has_exporter_name"]

_LADDER = (MEMORY.all, READ_CONTROL | RESOURCE_WRITE, READ_CONTROL)


class _Companion(OwnedDescriptor):
    """A companion's handle, and the handle of its memory, which is closed after it."""

    __slots__ = ("memory",)

    def __init__(self, companion: int, memory: OwnedFd) -> None:
        super().__init__(companion)
        self.memory = memory

    def give_back(self) -> None:
        """See `Owner`."""
        super().give_back()
        self.memory.settle()


def announce(handle: int, path: str, description: Description, name: str, sddl: str | None) -> OwnedFd:
    """Create the companion of a nameless object, which gives it that name until the result is closed.

    handle: borrowed for the call. path: of a payload with that name. Errors: as `payloads.create_companion`.
    """
    kept = OwnedDescriptor(status_errors.duplicate(handle, options=calls.SAME_ACCESS))
    in_companion = msgspec.structs.replace(
        description, exporter_handle=(os.getpid(), processes.start_time(os.getpid()), kept.fd)
    )
    return _Companion(payloads.create_companion(path, in_companion, name, sddl), kept)


def has_exporter_name(key: NameKey) -> bool:
    """Return whether an exporter provides memory under that name."""
    description = payloads.read_companion(names.payload_path(key))
    return description is not None and description.exporter_handle is not None


def open_exporter_name(name: str, key: NameKey, desired: int, flags: int = 0) -> tuple[int, Description] | None:
    """Return a handle to the memory that an exporter provides under a name, and its description; None without one.

    The caller owns the handle. desired: mapped rights; MAXIMUM_ALLOWED takes all that the companion's security allows.
    Errors: AccessDeniedError.
    """
    path = names.payload_path(key)
    description = payloads.read_companion(path)
    if description is None or description.exporter_handle is None:
        return None
    try:
        granted = _granted(path, desired)
    except calls.StatusError as error:
        if error.status == Status.OBJECT_NAME_NOT_FOUND:
            return None
        raise status_errors.of_opening(error, name, path, desired) from None
    pid, created, value = description.exporter_handle
    try:
        with processes.opened_process(pid, created) as exporter:
            made = calls.duplicate(value, driver_memory.kernel().to_kernel(granted), flags, source=exporter)
    except (ObjectManagerError, calls.StatusError) as error:
        if _status(error) == Status.ACCESS_DENIED:
            raise status_errors.denied(granted, f"opening {name!r}, which process {pid} provides,") from None
        return None  # the exporter has ended, or is closing it
    with calls.closed_on_error(made):
        is_same = payloads.read_companion(path) == description and _is_memory(made)
    if not is_same:
        calls.close_handle(made)
        return None
    return made, msgspec.structs.replace(description, exporter_handle=None)


def _granted(path: str, desired: int) -> int:
    """Return the requested rights that the companion's security allows. StatusError if it does not allow them."""
    ladder = _LADDER if desired & MAXIMUM_ALLOWED else (desired,)
    for asked in ladder:
        try:
            calls.close_handle(sections.open_named(names.companion_of(path), rights.to_section(asked)))
            return asked
        except calls.StatusError as error:
            if error.status != Status.ACCESS_DENIED or asked == ladder[-1]:
                raise
    raise AssertionError("the last step of the ladder either opens or raises")


def _status(error: ObjectManagerError | calls.StatusError) -> int:
    return error.status if isinstance(error, calls.StatusError) else error.ntstatus


def _is_memory(handle: int) -> bool:
    try:
        return driver_memory.kernel().kind_of(handle) in driver_memory.TYPES
    except calls.StatusError:
        return False
