"""The functions `open_timeline`, `wait_any` and `wait_all` of the package `extmem`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from extmem.api.device import Device
from extmem.api.fence import Fence
from extmem.api.semaphore import Semaphore
from extmem.api.sync_objects import sync_object_of
from extmem.api.timeline import Timeline
from extmem.arguments import a_type
from extmem.core import operations, sync_operations
from extmem.owning import Uses, unsettled, work_off

if TYPE_CHECKING:
    from extmem.core.device_state import DeviceState
    from extmem.handles import FdHandle, KmtHandle, NtHandle
    from extmem.manager import Imported
    from extmem.sharing.descriptor.sync import SyncDescriptor

__all__ = ["open_claimed", "open_timeline", "wait_all", "wait_any"]


def open_timeline(
    source: str | NtHandle | KmtHandle | FdHandle, *, device: Device | None = None, access: int | None = None
) -> Timeline:
    """Open a shared timeline by name or handle.

    source: a name or a handle. The caller keeps the handle, except an FdHandle, which is consumed on success. Waits of
        others are not told of the end of a process that opened it by FdHandle: no broker knows of it.
    device: the device whose queues or streams use it; a timeline of the host opens on every device. None selects the
        device of the payload: the host device, or the GPU with that UUID.
    access: rights to request when opening by name: `Access.READ` to wait, `Access.READ_WRITE` to wait and to signal;
        None requests all rights that are granted.
    Errors: NameNotFoundError, NameInvalidError, AccessDeniedError, ObjectTypeError (memory, a fence or a binary
    semaphore), InvalidHandleError, HandleStateError; DriverError for an fd that is not a timeline's; RuleViolation
    for a payload of another device; DescriptorError.
    """
    if device is not None and not isinstance(device, Device):
        raise TypeError(f"device is {device!r}, {a_type(device)}; give a Device, or None")
    if unsettled:
        work_off()
    chosen = device

    def choose(said: SyncDescriptor | None) -> DeviceState:
        if chosen is not None:
            return chosen
        return sync_operations.sync_opening.device_for(operations.shared_devices.device_for, said)

    return sync_operations.sync_opening.open_timeline(choose, source, access, Timeline)


def open_claimed(imported: Imported) -> Semaphore | Fence:
    """Return the semaphore, timeline or fence of a claimed ticket, on the device of its payload."""

    def choose(said: SyncDescriptor | None) -> DeviceState:
        return sync_operations.sync_opening.device_for(operations.shared_devices.device_for, said)

    return sync_object_of(sync_operations.sync_opening.open_claimed(choose, operations.manager(), imported))


def wait_all(waits: Iterable[tuple[Timeline, int]] | tuple[Timeline, int], *, timeout: float | None = None) -> None:
    """Wait until every one of these timelines has reached its value. An empty list is satisfied at once.

    waits: pairs (timeline, value), of one or several devices; one pair may stand alone. timeout: seconds; None for no
        limit.
    Errors: WaitTimeoutError, which lists the timelines that are behind; PeerGoneError as soon as the signaler of one of
    them is gone; TypeError, ValueError; HandleStateError for one that is closed, and in a forked child.
    """
    with Uses() as uses:
        pairs = sync_operations.order_pairs.timeline_pairs(waits, uses)
        sync_operations.host_waits.wait_many(pairs, timeout, any_of=False)


def wait_any(waits: Iterable[tuple[Timeline, int]] | tuple[Timeline, int], *, timeout: float | None = None) -> int:
    """Wait until one of these timelines has reached its value, and return its index (the lowest one, if several have).

    Arguments and errors: as `wait_all`; ValueError for an empty list; PeerGoneError only when the signalers of all are
    gone.
    """
    with Uses() as uses:
        pairs = sync_operations.order_pairs.timeline_pairs(waits, uses)
        if not pairs:
            raise ValueError("wait_any() got no timelines, and could never return; give at least one pair")
        return sync_operations.host_waits.wait_many(pairs, timeout, any_of=True)[0]
