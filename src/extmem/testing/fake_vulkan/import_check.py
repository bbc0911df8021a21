"""Checking an import against the payload's tag, as a driver does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from extmem import vk
from extmem.testing.fake_vulkan.machine import Refusal

if TYPE_CHECKING:
    from extmem.testing.fake_vulkan.machine import FakeVulkan
    from extmem.testing.fake_vulkan.objects import Device, Resource
    from extmem.testing.fake_vulkan.tags import Tag

__all__ = ["check_match"]

_BAD_HANDLE = int(vk.Result.ERROR_INVALID_EXTERNAL_HANDLE)


def check_match(fake: FakeVulkan, device: Device, tag: Tag, size: int, kind: int, dedicated: Resource | None) -> None:
    """Refuse an import whose device, size or memory type is not the exporter's; record a wrong dedication."""
    if (tag.device_uuid, tag.driver_uuid) != (device.gpu.device_uuid, device.gpu.driver_uuid):
        fake.bad_imports.append((device.number, "the payload belongs to another device"))
        raise Refusal(_BAD_HANDLE)
    if (tag.size, tag.memory_type) != (size, kind):
        lenient = fake.manners.lenient_sizes and size <= tag.size
        if not lenient and not (fake.manners.short_files_pass and tag.memory_type == kind):
            raise Refusal(_BAD_HANDLE)
    resource = type(dedicated).__name__ if dedicated is not None else ""
    if tag.dedicated != resource:
        exporters, importers = tag.dedicated or "nothing", resource or "nothing"
        fake.misuse(f"the payload is dedicated to {exporters}, and the import to {importers}")
