"""The descriptors of payloads that this process creates, and of payloads that were imported without a descriptor."""

from __future__ import annotations

from functools import lru_cache

from extmem import vk
from extmem.core import exporting
from extmem.core.device_state import DeviceState
from extmem.core.resources import ResourceObject
from extmem.devices.host import HAS_FDS
from extmem.devices.resources import NativeResource
from extmem.handles.process_id import current_process
from extmem.manager import start_time
from extmem.sharing.descriptor.descriptor import ArrayInfo, Descriptor, ImageInfo, PlaneInfo
from extmem.vk.handle_types import MemoryHandleType
from extmem.vk.modifiers import LINEAR

__all__ = ["describe", "describe_allocation", "needs_control_page", "start_time_of"]

start_time_of = lru_cache(maxsize=1)(start_time)
"""The start time of the process with this pid, cached for the current process."""


def needs_control_page(device: DeviceState) -> bool:
    """Return whether new memory of the device gets a control page as companion, because its own file has none."""
    return device.backend.kind != "host" or not HAS_FDS


def describe_allocation(
    device: DeviceState, size: int, memory_type: int, handle_types: MemoryHandleType, dedicated: ResourceObject | None
) -> Descriptor:
    """Return the descriptor of a payload of this device that has no array or image: its size and memory type."""
    if dedicated is not None:
        return describe(device, size, memory_type, handle_types, dedicated)
    # A descriptor is immutable, so equal payloads share one. It contains the pid, which differs in a forked child.
    key = (current_process.pid, size, memory_type, handle_types)
    cached = device.descriptors.get(key)
    return cached or device.descriptors.keep(key, describe(device, size, memory_type, handle_types, None))


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
    pages: tuple[int, ...] = (),
) -> Descriptor:
    """Return the descriptor of a payload of this device. pages: the roles of its companion pages."""
    types, identity, importer = device.facts.memory_types, device.backend.identity, device.descriptor_importer
    return Descriptor(
        handle_types=handle_types,
        allocation_size=size,
        payload_size=size if payload_size is None else payload_size,
        memory_type_index=memory_type,
        memory_property_flags=types[memory_type].property_flags if 0 <= memory_type < len(types) else 0,
        device_uuid=identity.device_uuid,
        driver_uuid=identity.driver_uuid if importer is None else None,
        luid=identity.luid,
        device_name=identity.device_name,
        driver_name=identity.driver_name,
        dedicated=dedicated.facts.create_info if dedicated is not None else None,
        usage=usage,
        array=array,
        image=_image_layout(dedicated.native) if dedicated is not None and dedicated.native.planes else None,
        share=int(exporting.share_for(handle_types)),
        read_only=read_only,
        owner_pid=current_process.pid,
        owner_start_time=start_time_of(current_process.pid),
        made_by_vulkan=importer is None,
        producer=importer.producer if importer is not None else "",
        pages=pages,
    )


def _image_layout(image: NativeResource) -> ImageInfo | None:
    """Return the memory layout of an image with a DRM format modifier; None for other images."""
    info = image.create_info
    explicit = vk.find(info, vk.ImageDrmFormatModifierExplicitCreateInfoEXT) if info is not None else None
    if explicit is None or not isinstance(info, vk.ImageCreateInfo):
        return None
    extent = int(info.extent.width), int(info.extent.height), int(info.extent.depth)
    planes = tuple(PlaneInfo(p.offset, p.size, p.row_pitch, p.array_pitch, p.depth_pitch) for p in image.planes)
    modifier = int(explicit.drm_format_modifier)
    pitch = planes[0].row_pitch if modifier == LINEAR else 0
    return ImageInfo(int(info.format), extent, int(info.tiling), modifier, pitch, planes)
