"""`Capabilities`: how a device shares timelines, and how its queues or streams wait for them."""

from __future__ import annotations

import msgspec

from extmem.core.device_state import DeviceState
from extmem.core.sync_facts import sync_facts
from extmem.devices.sync import SyncBackend

__all__ = ["Capabilities", "capabilities_of"]

_EXPORTABLE = 1
_TYPES = {0x1: "OPAQUE_FD", 0x2: "OPAQUE_WIN32", 0x4: "OPAQUE_WIN32_KMT", 0x8: "D3D12_FENCE", 0x10: "SYNC_FD"}
_FENCE_TYPES = {0x1: "OPAQUE_FD", 0x2: "OPAQUE_WIN32", 0x4: "OPAQUE_WIN32_KMT", 0x8: "SYNC_FD"}


class Capabilities(msgspec.Struct, frozen=True):
    """What a device supports of semaphores and fences. See `Device.capabilities`."""

    timelines: str
    """What a timeline of this device is to other processes: "driver" for one of the driver, "host" for a page of the
    host, "none" for a device without timelines."""
    bridged: bool
    """Whether the host makes the waits and signals of the queue: a submission that waits for a timeline is then handed
    to the driver when the value is reached, and a thread signals the timeline when the submission is done. False if
    the driver orders the work without the host."""
    max_timeline_difference: int
    """maxTimelineSemaphoreValueDifference."""
    binary_exports: tuple[str, ...]
    """Handle types that binary semaphores can be exported as."""
    timeline_exports: tuple[str, ...]
    """Handle types that timelines can be exported as."""
    fence_exports: tuple[str, ...]
    """Handle types that fences can be exported as."""


def capabilities_of(device: DeviceState) -> Capabilities:
    """Return the capabilities of a device that is in use."""
    backend = device.backend
    if not isinstance(backend, SyncBackend):
        return Capabilities("none", False, 0, (), (), ())
    facts = sync_facts(device)
    binary, timeline, fence = (
        tuple(names[bit] for bit, answer in answers.items() if answer.features & _EXPORTABLE)
        for answers, names in (
            (facts.binary_types, _TYPES),
            (facts.timeline_types, _TYPES),
            (facts.fence_types, _FENCE_TYPES),
        )
    )
    bridged = backend.timelines == "host" and device.kind == "vulkan"
    return Capabilities(backend.timelines, bridged, backend.max_timeline_difference, binary, timeline, fence)
