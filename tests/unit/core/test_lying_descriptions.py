"""`open` of a payload whose description breaks a rule: the error names the exporter, not the caller."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

import extmem
from extmem import raw, vk
from extmem.api import Device
from extmem.core import allocating, describing
from extmem.owning import Uses
from extmem.testing import fake_vulkan

FD = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD
W32 = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32
SIZE = 8192
USAGE = vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST
IMAGE = vk.ImageUsageFlagBits.TRANSFER_SRC


def a_buffer(**changes: Any) -> vk.BufferCreateInfo:
    return vk.BufferCreateInfo(**{"size": SIZE, "usage": USAGE, **changes})


def an_image(**changes: Any) -> vk.ImageCreateInfo:
    known = {"image_type": 1, "format": vk.Format.R8G8B8A8_UNORM, "extent": vk.Extent3D(8, 8, 1), "usage": IMAGE}
    return vk.ImageCreateInfo(**{**known, **changes})


@pytest.fixture(params=["host", "scripted"])
def two(request: pytest.FixtureRequest) -> Iterator[tuple[Device, Device]]:
    """The exporting and the opening device, of one kind: two of them, because a device finds its own payloads again."""
    with contextlib.ExitStack() as stack:
        kind = "host"
        if request.param == "scripted":
            fake = fake_vulkan.FakeVulkan([fake_vulkan.INTEGRATED])
            stack.callback(lambda: fake.misuses and pytest.fail(str(fake.misuses)))
            stack.enter_context(fake_vulkan.installed(fake))
            kind = "vulkan"
        yield stack.enter_context(extmem.open_device(kind=kind)), stack.enter_context(extmem.open_device(kind=kind))


def described(device: Device, name: str | None, types: int = 0, **changes: Any) -> extmem.DeviceMemory:
    """Memory with a false description."""
    share = vk.ExportMemoryWin32HandleInfoKHR(None, 0x8000_0001, name) if name is not None else None
    types = types or int(W32)
    info = vk.MemoryAllocateInfo(SIZE, 0, vk.ExportMemoryAllocateInfo(types, share))
    told = msgspec.structs.replace(
        describing.describe_allocation(device, SIZE, 0, types, None), payload_size=SIZE, **changes
    )
    with Uses(device) as uses:
        memory, _ = allocating.allocate_in(uses, device, info, allocating.ArrayTerms(descriptor=told))
    return extmem.DeviceMemory(*memory)


LIES = (
    ({"dedicated": a_buffer(usage=0)}, "VkBufferCreateInfo-None-09500"),
    ({"dedicated": a_buffer(sharing_mode=7)}, "VkBufferCreateInfo-sharingMode-parameter"),
    ({"dedicated": an_image(mip_levels=30)}, "VkImageCreateInfo-mipLevels-00958"),
    ({"dedicated": an_image(extent=vk.Extent3D(1 << 20, 1, 1))}, "VkImageCreateInfo-extent-02252"),
    ({"memory_type_index": 31}, "vkAllocateMemory-pAllocateInfo-01714"),
)


@pytest.mark.parametrize(("lie", "rule"), LIES)
def test_the_description_is_blamed(two: tuple[Device, Device], name: str, lie: dict[str, Any], rule: str) -> None:
    exporter, opener = two
    with described(exporter, name, **lie):
        with pytest.raises(extmem.DescriptorError, match=rule) as error:
            opener.open(name)
        assert rule in str([one.vuid for one in error.value.violations])
    with described(exporter, name), opener.open(name) as opened:
        assert opened.allocation_size == SIZE


@pytest.mark.linux_only("descriptors are Linux's")
def test_behind_an_fd_as_well(two: tuple[Device, Device]) -> None:
    exporter, opener = two
    types = int(W32 | FD)
    with described(exporter, None, types, dedicated=a_buffer(usage=0)) as memory, memory.export_handle(FD) as handle:
        with pytest.raises(extmem.DescriptorError, match="09500"):
            opener.open(handle)
    with described(exporter, None, types) as memory:
        opener.open(memory.export_handle(FD)).close()


def test_who_opens_on_another_device_breaks_the_rule(two: tuple[Device, Device], name: str) -> None:
    """The caller chose the device; what the description states may be true."""
    exporter, opener = two
    with described(exporter, name, device_uuid=b"x" * 16):
        with pytest.raises(extmem.RuleViolation, match="00644"):
            opener.open(name)


@pytest.mark.linux_only("descriptors are Linux's")
def test_who_states_the_description_breaks_the_rule_as_well(two: tuple[Device, Device]) -> None:
    """For an import with a description of the caller, the error names the caller."""
    exporter, opener = two
    with described(exporter, None, int(FD)) as memory, memory.export_handle(FD) as handle:
        stated = msgspec.structs.replace(memory.descriptor, dedicated=a_buffer(usage=0))
        with pytest.raises(extmem.RuleViolation, match="09500"):
            raw.import_payload(opener, handle.fileno(), stated, borrow=True)
        raw.import_payload(opener, handle.fileno(), memory.descriptor, borrow=True).close()


def test_what_was_made_for_a_refused_import_is_destroyed(name: str) -> None:
    fake = fake_vulkan.FakeVulkan([fake_vulkan.INTEGRATED])
    with fake_vulkan.installed(fake):
        with extmem.open_device(kind="vulkan") as exporter, extmem.open_device(kind="vulkan") as opener:
            with described(exporter, name, dedicated=a_buffer(), memory_type_index=31):
                before = fake.alive()["buffers"]
                with pytest.raises(extmem.DescriptorError, match="01714"):
                    opener.open(name)
                assert fake.alive()["buffers"] == before
    assert not fake.misuses
