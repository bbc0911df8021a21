"""B80–B87: exporting."""

from __future__ import annotations

import pytest

import extmem
from extmem import vk
from extmem.api import Device, Image
from extmem.handles import NtHandle
from tests.behaviours.platforms import FD_TYPES, W32_AND_FD, by_fd, one_name_for_life
from tests.behaviours.steps import (
    FD,
    KMT,
    READ_WRITE,
    SIZE,
    W32,
    by_name,
    export,
    fd,
    get,
    import_win32,
    kmt,
    nt,
    put,
)

_GET = "VUID-VkMemoryGetWin32HandleInfoKHR-handleType"


def test_B80_a_handle_type_must_have_been_asked_for_at_allocation(device: Device) -> None:
    plain = device.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0))
    with plain, export(device, types=KMT) as by_number, export(device) as by_handle:
        for memory, wrong in ((plain, W32), (plain, KMT), (by_number, W32), (by_handle, KMT)):
            with pytest.raises(extmem.RuleViolation) as error:
                device.get_memory_win32_handle(vk.MemoryGetWin32HandleInfoKHR(memory, wrong))
            assert f"{_GET}-00662" in error.value.vuids
        with pytest.raises(extmem.RuleViolation) as error:
            device.get_memory_fd(vk.MemoryGetFdInfoKHR(by_handle, FD))
        assert "VUID-VkMemoryGetFdInfoKHR-handleType-00671" in error.value.vuids
        assert int(kmt(device, by_number))
        nt(device, by_handle).close()


@by_fd
def test_B80_memory_for_fds_has_no_nt_handle(device: Device) -> None:
    with export(device, types=FD) as memory:
        with pytest.raises(extmem.RuleViolation) as error:
            device.get_memory_win32_handle(vk.MemoryGetWin32HandleInfoKHR(memory, W32))
        assert f"{_GET}-00662" in error.value.vuids
        fd(device, memory).close()


def test_B81_the_type_must_be_a_win32_one(device: Device) -> None:
    with export(device, types=W32_AND_FD) as memory:
        with pytest.raises(extmem.RuleViolation) as error:
            device.get_memory_win32_handle(vk.MemoryGetWin32HandleInfoKHR(memory, FD))
        assert f"{_GET}-00664" in error.value.vuids
        nt(device, memory).close()


def test_B82_the_device_is_asked_once_and_repeats_are_duplicates(device: Device) -> None:
    with export(device) as memory, nt(device, memory) as first:
        with pytest.raises(extmem.RuleViolation) as error:
            nt(device, memory)
        assert error.value.vuids == (f"{_GET}-00663",)
        second, third = memory.export_handle(W32), memory.export_handle()
        assert isinstance(second, NtHandle) and isinstance(third, NtHandle)
        assert len({int(first), int(second), int(third)}) == 3
        assert first.same_object(second) and first.same_object(third)
        second.close()
        third.close()


def test_B83_handle_types_0_is_an_ordinary_allocation(device: Device) -> None:
    info = vk.MemoryAllocateInfo(SIZE, 0, vk.ExportMemoryAllocateInfo(0))
    with device.allocate_memory(info) as memory:
        put(memory, b"zero")
        assert get(memory) == b"zero"
        with pytest.raises(extmem.RuleViolation):
            nt(device, memory)


def _attachment(device: Device) -> Image:
    return device.create_image(
        vk.ImageCreateInfo(
            image_type=vk.ImageType.TYPE_2D,
            format=vk.Format.R8G8B8A8_UNORM,
            extent=vk.Extent3D(64, 64, 1),
            mip_levels=1,
            array_layers=1,
            samples=vk.SampleCountFlagBits.COUNT_1,
            usage=vk.ImageUsageFlagBits.COLOR_ATTACHMENT,
            p_next=vk.ExternalMemoryImageCreateInfo(W32),
        )
    )


def test_B84_where_dedication_is_required_it_is_mandatory_on_export_and_import(device: Device) -> None:
    with _attachment(device) as image, _attachment(device) as twin:
        assert image.requirements.requires_dedicated
        size = image.requirements.size
        alone = vk.MemoryDedicatedAllocateInfo(image, None)
        export_info = vk.ExportMemoryAllocateInfo(W32, alone)
        info = vk.MemoryAllocateInfo(size, 0, export_info)
        with device.allocate_memory(info) as memory, nt(device, memory) as handle:
            device.bind_image_memory(image, memory)
            dedicated = vk.MemoryDedicatedAllocateInfo(twin, None)
            source = vk.ImportMemoryWin32HandleInfoKHR(W32, handle, None, dedicated)
            with device.allocate_memory(vk.MemoryAllocateInfo(size, 0, source)) as imported:
                device.bind_image_memory(twin, imported)
            with pytest.raises(extmem.RuleViolation):
                import_win32(device, handle, size=size)
            assert not handle.closed
        with export(device, size=size) as suballocated, _attachment(device) as third:
            with pytest.raises(extmem.RuleViolation):
                device.bind_image_memory(third, suballocated)


@one_name_for_life
def test_B85_export_from_imported_memory_only_where_the_device_reports_it(device: Device, name: str) -> None:
    with export(device) as memory, nt(device, memory) as handle:
        put(memory, b"pass")
        with import_win32(device, handle) as imported, pytest.raises(extmem.RuleViolation) as error:
            nt(device, imported)  # import info alone makes the memory not exportable
        assert f"{_GET}-00662" in error.value.vuids
        chain = vk.ImportMemoryWin32HandleInfoKHR(
            W32,
            handle,
            None,
            vk.ExportMemoryAllocateInfo(W32, vk.ExportMemoryWin32HandleInfoKHR(None, READ_WRITE, name)),
        )
        with device.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0, chain)), by_name(device, name) as other:
            assert get(other) == b"pass"
        refused = vk.ImportMemoryWin32HandleInfoKHR(W32, handle, None, vk.ExportMemoryAllocateInfo(KMT))
        with pytest.raises(extmem.RuleViolation) as error:
            device.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0, refused))
        assert "VUID-VkExportMemoryAllocateInfo-handleTypes-09860" in error.value.vuids


def test_B86_compatible_types_images_alone_buffers_with_others(device: Device) -> None:
    for kind in (W32, KMT, *FD_TYPES):
        asked = vk.PhysicalDeviceImageFormatInfo2(
            vk.Format.R8G8B8A8_UNORM,
            vk.ImageType.TYPE_2D,
            usage=vk.ImageUsageFlagBits.TRANSFER_SRC,
            p_next=vk.PhysicalDeviceExternalImageFormatInfo(kind),
        )
        found = vk.find(device.get_physical_device_image_format_properties2(asked), vk.ExternalImageFormatProperties)
        assert found is not None and found.external_memory_properties.compatible_handle_types == kind
        buffers = device.get_physical_device_external_buffer_properties(
            vk.PhysicalDeviceExternalBufferInfo(usage=vk.BufferUsageFlagBits.TRANSFER_SRC, handle_type=kind)
        )
        assert buffers.external_memory_properties.compatible_handle_types & kind


@by_fd
def test_B86_buffers_are_shared_by_nt_handle_and_fd_at_once(device: Device) -> None:
    with export(device, types=W32 | FD) as memory:
        nt(device, memory).close()
        fd(device, memory).close()


def test_B87_a_resource_names_the_types_that_its_memory_is_shared_by(device: Device) -> None:
    info = vk.BufferCreateInfo(size=SIZE, usage=vk.BufferUsageFlagBits.TRANSFER_SRC)
    named = vk.BufferCreateInfo(
        size=SIZE, usage=vk.BufferUsageFlagBits.TRANSFER_SRC, p_next=vk.ExternalMemoryBufferCreateInfo(W32)
    )
    with export(device) as memory, device.create_buffer(info) as plain, device.create_buffer(named) as external:
        with pytest.raises(extmem.RuleViolation) as error:
            device.bind_buffer_memory(plain, memory)
        assert error.value.vuids == ("VUID-vkBindBufferMemory-memory-02726",)
        device.bind_buffer_memory(external, memory)
        with nt(device, memory) as handle, import_win32(device, handle) as imported:
            with device.create_buffer(info) as other, pytest.raises(extmem.RuleViolation) as error:
                device.bind_buffer_memory(other, imported)
            assert error.value.vuids == ("VUID-vkBindBufferMemory-memory-02985",)
