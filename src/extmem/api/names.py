"""The functions `open_async`, `names` and `forget` of the package `extmem`."""

from __future__ import annotations

from extmem.api.device import Device, DeviceMemory
from extmem.api.memory_kinds import memory_of
from extmem.arguments import a_type
from extmem.core import naming, operations, shared_devices
from extmem.core.naming import SharedName
from extmem.owning import unsettled, work_off

__all__ = ["forget", "names", "open_async"]


async def open_async(
    name: str, *, timeout: float | None = None, access: int | None = None, device: Device | None = None
) -> DeviceMemory:
    """As `extmem.open`, for a name that is waited for while other coroutines run. A cancelled wait leaves nothing.

    timeout: seconds; None waits without limit. The other arguments and the errors are those of `extmem.open`.
    """
    operations.opening.refuse_timeout(name)
    if device is not None and not isinstance(device, Device):
        raise TypeError(f"device is {device!r}, {a_type(device)}; give a Device, or None for the device of the memory")
    name = str.__str__(name)
    if unsettled:
        work_off()
    candidates = list(shared_devices.devices_by_key.values()) if device is None else [device]
    if device is not None:
        device.check_open()
    for candidate in candidates:
        held = operations.opening.find_open(candidate, name, access)
        if held is not None:
            return memory_of(*held)
    owner, imported = await operations.opening.find_payload_async(name, access, timeout)
    device_of = shared_devices.device_of if device is None else lambda _: device
    return memory_of(*operations.opening.open_payload(device_of, owner, imported, name, device is None))


def names(prefix: str = "") -> list[SharedName]:
    """Return what is shared under names that begin with `prefix` (ignoring case) and that this process may open.

    The list is sorted by name. It is of one moment: a name may be gone when it is opened. No broker is started for it,
    unless this process holds shared memory, which the next broker then learns of.
    """
    return naming.names(prefix)


def forget(name: str) -> bool:
    """End the keeping (`keep=`) of the memory with this name. Return False if it is not kept.

    If no process has the memory open, it ends. Others keep it as long as they have it open.
    Errors: NameNotFoundError, NameInvalidError; AccessDeniedError for what another user keeps.
    """
    if unsettled:
        work_off()
    return naming.forget(name)
