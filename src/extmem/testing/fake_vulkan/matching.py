"""What an import must have in common with the export, as a driver sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from extmem import vk
from extmem.testing.fake_vulkan.machine import Refusal

if TYPE_CHECKING:
    from extmem.testing.fake_vulkan.machine import FakeVulkan
    from extmem.testing.fake_vulkan.tags import Tag
    from extmem.testing.fake_vulkan.things import Device, Resource

__all__ = ["alike"]

_BAD_HANDLE = int(vk.Result.ERROR_INVALID_EXTERNAL_HANDLE)


def alike(fake: FakeVulkan, device: Device, tag: Tag, size: int, kind: int, dedicated: Resource | None) -> None:
    """What an import must have in common with the export."""
    if (tag.device_uuid, tag.driver_uuid) != (device.gpu.device_uuid, device.gpu.driver_uuid):
        fake.bad_imports.append((device.number, "the payload is another device's"))
        raise Refusal(_BAD_HANDLE)
    if (tag.size, tag.memory_type) != (size, kind):
        lenient = fake.manners.lenient_sizes and size <= tag.size
        if not lenient and not (fake.manners.short_files_pass and tag.memory_type == kind):
            raise Refusal(_BAD_HANDLE)
    alone = type(dedicated).__name__ if dedicated is not None else ""
    if tag.dedicated != alone:
        fake.misuse(f"the payload is dedicated to {tag.dedicated or 'nothing'}, and the import to {alone or 'nothing'}")
