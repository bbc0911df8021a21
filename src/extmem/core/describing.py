"""The descriptors of payloads that this process makes, and of those that came without one."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from extmem import vk
from extmem.core import exporting
from extmem.handles.process_id import current_process
from extmem.manager import start_time
from extmem.sharing.descriptor.descriptor import ArrayInfo, Descriptor, ImageInfo, PlaneInfo
from extmem.vk.handle_types import MemoryHandleType
from extmem.vk.modifiers import LINEAR

if TYPE_CHECKING:
    from extmem.core.device_state import DeviceState
    from extmem.core.resources import ResourceObject
    from extmem.devices.resources import NativeResource

__all__ = ["describe", "describe_allocation"]


def describe_allocation(
    device: DeviceState, size: int, memory_type: int, handle_types: MemoryHandleType, dedicated: ResourceObject | None
) -> Descriptor:
    """The descriptor of a payload that this device makes, or of one that came without: bytes, and no more."""
    if dedicated is not None:
        return describe(device, size, memory_type, handle_types, dedicated)
    # It cannot be changed, so all payloads that are alike share it; a forked child's are its own.
    key = (current_process.pid, size, memory_type, handle_types)
    known = device.described_payloads.get(key)
    if known is None:
        known = device.described_payloads.keep(key, describe(device, size, memory_type, handle_types, None))
    return known


def describe(
    device: DeviceState,
    size: int,
    memory_type: int,
    handle_types: MemoryHandleType,
    dedicated: ResourceObject | None,
    *,
    payload_size: int | None = None,
    array: ArrayInfo | None = None,
    usage: int = 0,
    read_only: bool = False,
) -> Descriptor:
    """The self-description of a payload of this device."""
    types, identity = device.facts.memory_types, device.backend.identity
    return Descriptor(
        handle_types=handle_types,
        allocation_size=size,
        payload_size=size if payload_size is None else payload_size,
        memory_type_index=memory_type,
        memory_property_flags=types[memory_type].property_flags if 0 <= memory_type < len(types) else 0,
        device_uuid=identity.device_uuid,
        driver_uuid=identity.driver_uuid if device.described is None else None,
        luid=identity.luid,
        device_name=identity.device_name,
        driver_name=identity.driver_name,
        dedicated=dedicated.facts.create_info if dedicated is not None else None,
        usage=usage,
        array=array,
        image=_placed(dedicated.native) if dedicated is not None and dedicated.native.planes else None,
        share=int(exporting.share_for(handle_types)),
        read_only=read_only,
        owner_pid=current_process.pid,
        owner_start_time=_started(current_process.pid),
        made_by_vulkan=device.described is None,
        producer=device.described.producer if device.described is not None else "",
    )


def _placed(image: NativeResource) -> ImageInfo | None:
    """Where the texels of an image with a DRM format modifier lie."""
    made = image.create_info
    explicit = vk.find(made, vk.ImageDrmFormatModifierExplicitCreateInfoEXT) if made is not None else None
    if explicit is None or not isinstance(made, vk.ImageCreateInfo):
        return None
    extent = int(made.extent.width), int(made.extent.height), int(made.extent.depth)
    planes = tuple(PlaneInfo(p.offset, p.size, p.row_pitch, p.array_pitch, p.depth_pitch) for p in image.planes)
    modifier = int(explicit.drm_format_modifier)
    pitch = planes[0].row_pitch if modifier == LINEAR else 0
    return ImageInfo(int(made.format), extent, int(made.tiling), modifier, pitch, planes)


@lru_cache(maxsize=1)
def _started(pid: int) -> int:
    return start_time(pid)
