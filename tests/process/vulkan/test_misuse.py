"""Common mistakes with external memory, and the error of each. Each has a twin that does the same correctly."""

from __future__ import annotations

import os

import pytest

import extmem
from extmem import errors, raw, vk
from extmem.api import Device
from extmem.devices.host import HAS_FDS
from extmem.testing.children import Peer
from tests.behaviours.steps import FD, KMT, PEER, W32, export, fd, get, import_fd, import_win32, kmt, nt, put
from tests.process.vulkan.steps import SHARED

DMA_BUF = vk.ExternalMemoryHandleTypeFlagBits.DMA_BUF

# The owner of the handle.


@pytest.mark.linux_only("file descriptors carry memory on Linux alone")
def test_closing_an_fd_that_an_import_consumed_closes_nobody_elses(device: Device) -> None:
    """The second close used to close whatever had got the number since."""
    with export(device, types=FD) as memory:
        handle = fd(device, memory)
        number = int(handle)
        with import_fd(device, handle):
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(number)
            reused = os.dup2(0, number, inheritable=False)
            handle.close()
            os.fstat(reused)
            assert handle.closed
            with pytest.raises(errors.HandleStateError, match=r"consumed|taken|closed|gave"):
                int(handle)
            os.close(reused)


@pytest.mark.linux_only("file descriptors carry memory on Linux alone")
def test_importing_a_consumed_fd_again_is_refused(device: Device) -> None:
    with export(device, types=FD) as memory:
        handle = fd(device, memory)
        copy = handle.duplicate()
        import_fd(device, handle).close()
        with pytest.raises(errors.HandleStateError):
            import_fd(device, handle)
        import_fd(device, copy).close()


@pytest.mark.linux_only("file descriptors carry memory on Linux alone")
def test_an_fd_of_a_failed_import_is_still_the_callers(device: Device) -> None:
    with export(device, types=FD) as memory, fd(device, memory) as handle:
        with pytest.raises(errors.RuleViolation):
            import_fd(device, handle, size=123)
        assert not handle.closed and os.fstat(int(handle))
        import_fd(device, handle).close()
        assert handle.closed


def test_freeing_memory_while_a_handle_is_open_keeps_the_payload_until_that_closes(device: Device, name: str) -> None:
    """What looked like a leak of vkFreeMemory was the exported handle."""
    memory = export(device, name=name)
    handle = nt(device, memory)
    put(memory, b"kept")
    memory.close()
    with extmem.open(name) as other:
        assert get(other) == b"kept"
    handle.close()
    with pytest.raises(errors.NameNotFoundError):
        extmem.open(name)


def test_a_handle_that_nobody_closes_is_warned_of(device: Device) -> None:
    import gc

    for kind in (W32, *([FD] if HAS_FDS else [])):
        with export(device, types=kind) as memory:
            lost = [memory.export_handle(kind)]
            with pytest.warns(ResourceWarning, match="unclosed"):
                lost.clear()
                gc.collect()
            memory.export_handle(kind).close()


def test_the_nt_handle_is_given_once_and_duplicates_as_often_as_wanted(device: Device) -> None:
    with export(device) as memory, nt(device, memory) as first:
        with pytest.raises(errors.RuleViolation) as error:
            nt(device, memory)
        assert "VUID-VkMemoryGetWin32HandleInfoKHR-handleType-00663" in error.value.vuids
        with first.duplicate() as second, memory.export_handle(W32) as third:
            assert first.same_object(second) and first.same_object(third)


def test_the_value_of_an_nt_handle_means_nothing_in_another_process(device: Device, peer: Peer) -> None:
    peer(PEER + "\nfrom extmem import raw\nfrom extmem.manager import manager\nmanager().kmt_alive(0)")
    with export(device) as memory, nt(device, memory) as handle:
        put(memory, b"sent")
        error = peer.fails("raw.nt_handle(value)", value=int(handle))
        assert error.is_a(errors.InvalidHandleError)
        value = handle.duplicate(into=peer.pid)
        assert peer("handle = raw.nt_handle(value)\nget(import_win32(device, handle))", value=value) == b"sent"
        peer("handle.close()")


def test_a_closed_handle_never_reaches_the_one_that_got_its_value(device: Device) -> None:
    with export(device) as one, export(device) as two:
        put(two, b"two.")
        old = nt(device, one)
        value = int(old)
        old.close()
        with nt(device, two) as new:
            assert int(new) == value
            with pytest.raises(errors.HandleStateError, match="closed"):
                import_win32(device, old)
            with import_win32(device, new) as other:
                assert get(other) == b"two."


def test_a_kmt_number_is_no_nt_handle_and_an_nt_handle_no_number(device: Device) -> None:
    with export(device, types=KMT) as memory, export(device) as other, nt(device, other) as handle:
        number = kmt(device, memory)
        with pytest.raises(errors.ExtmemError) as error:
            import_win32(device, int(number), kind=W32)
        assert isinstance(error.value, errors.RuleViolation | errors.InvalidHandleError)
        with pytest.raises(errors.ExtmemError) as error:
            import_win32(device, int(handle), kind=KMT)
        assert isinstance(error.value, errors.RuleViolation | errors.InvalidHandleError)
        with pytest.raises(errors.HandleStateError, match="KMT"):
            raw.nt_handle(int(number))
        import_win32(device, number, kind=KMT).close()
        import_win32(device, handle, kind=W32).close()


@pytest.mark.linux_only("file descriptors carry memory on Linux alone")
def test_an_fd_is_no_nt_handle(device: Device) -> None:
    with export(device, types=FD | W32) as memory, fd(device, memory) as handle, nt(device, memory) as right:
        with pytest.raises((errors.ExtmemError, TypeError)):
            import_win32(device, handle)
        assert not handle.closed
        import_win32(device, right).close()


# Sizes and memory types.


@pytest.mark.parametrize("tiling", [vk.ImageTiling.OPTIMAL, vk.ImageTiling.LINEAR])
def test_an_image_takes_more_than_its_texels(device: Device, tiling: vk.ImageTiling) -> None:
    """Width × height × 4 works on one GPU and not on the next: VkMemoryRequirements::size counts."""
    info = vk.ImageCreateInfo(
        image_type=vk.ImageType.TYPE_2D,
        format=vk.Format.R8G8B8A8_UNORM,
        extent=vk.Extent3D(61, 61, 1),
        mip_levels=1,
        array_layers=1,
        samples=vk.SampleCountFlagBits.COUNT_1,
        tiling=tiling,
        usage=vk.ImageUsageFlagBits.TRANSFER_SRC | vk.ImageUsageFlagBits.TRANSFER_DST,
        p_next=vk.ExternalMemoryImageCreateInfo(W32),
    )
    texels = 61 * 61 * 4
    with device.create_image(info) as image, device.create_image(info) as other:
        needs = image.requirements
        assert needs.size > texels, "as on every driver that pads rows"
        index = (needs.memory_type_bits & -needs.memory_type_bits).bit_length() - 1
        with export(device, size=texels, types=W32) as short, pytest.raises(errors.RuleViolation) as error:
            device.bind_image_memory(image, short)
        assert str(texels) in str(error.value) and str(needs.size) in str(error.value), "the message has both sizes"
        chain = vk.MemoryDedicatedAllocateInfo(image, None, vk.ExportMemoryAllocateInfo(W32))
        with pytest.raises(errors.RuleViolation):
            device.allocate_memory(vk.MemoryAllocateInfo(texels, index, chain))
        with (
            device.allocate_memory(vk.MemoryAllocateInfo(needs.size, index, chain)) as memory,
            memory.export_handle(W32) as handle,
        ):
            device.bind_image_memory(image, memory)
            source = vk.ImportMemoryWin32HandleInfoKHR(W32, handle)
            again = vk.MemoryDedicatedAllocateInfo(other, None, source)
            with pytest.raises(errors.RuleViolation):
                device.allocate_memory(vk.MemoryAllocateInfo(texels, index, again))
            with device.allocate_memory(vk.MemoryAllocateInfo(needs.size, index, again)) as imported:
                device.bind_image_memory(other, imported)


@pytest.mark.parametrize("change", [-1, 1, 4096, -4096])
def test_an_import_of_another_size_says_both(device: Device, change: int) -> None:
    with export(device, size=65_536) as memory, nt(device, memory) as handle:
        with pytest.raises(errors.RuleViolation) as error:
            import_win32(device, handle, size=65_536 + change)
        assert "65536" in str(error.value) and str(65_536 + change) in str(error.value)
        import_win32(device, handle, size=65_536).close()


def test_a_memory_type_that_the_device_lacks(device: Device) -> None:
    count = len(device.memory_properties.memory_types)
    with export(device) as memory, nt(device, memory) as handle:
        with pytest.raises(errors.RuleViolation) as error:
            import_win32(device, handle, index=count)
        assert "VUID-vkAllocateMemory-pAllocateInfo-01714" in error.value.vuids
        import_win32(device, handle, index=memory.memory_type_index).close()


def test_the_memory_types_of_an_opaque_handle_are_not_to_be_asked(device: Device) -> None:
    """Drivers return 0 for it, and programs allocate from type -1. The exporter's type is the right one."""
    with export(device, types=SHARED) as memory, nt(device, memory) as other:
        if HAS_FDS:
            with fd(device, memory) as handle, pytest.raises(errors.RuleViolation) as error:
                device.get_memory_fd_properties(FD, handle)
            assert "VUID-vkGetMemoryFdPropertiesKHR-handleType-00674" in error.value.vuids
        with pytest.raises(errors.RuleViolation) as error:
            device.get_memory_win32_handle_properties(W32, other)
        assert "VUID-vkGetMemoryWin32HandlePropertiesKHR-handleType-00666" in error.value.vuids
        with device.open(other) as opened:
            assert opened.memory_type_index == memory.memory_type_index


# Handle types and capabilities.


def test_dma_buf_is_asked_for_and_not_assumed(device: Device) -> None:
    asked = vk.PhysicalDeviceExternalBufferInfo(usage=vk.BufferUsageFlagBits.TRANSFER_SRC, handle_type=DMA_BUF)
    features = device.get_physical_device_external_buffer_properties(asked).external_memory_properties
    if not features.external_memory_features:
        with pytest.raises(errors.RuleViolation, match="DMA_BUF cannot be exported"):
            device.allocate(64, handle_types=DMA_BUF)
        with export(device, types=SHARED) as memory, memory.export_handle() as handle:
            with pytest.raises((errors.RuleViolation, errors.UnsupportedError)):
                device.get_memory_fd_properties(DMA_BUF, int(handle))
            # UnsupportedError where the device lacks the extension, RuleViolation where it has it and exports none.
            with pytest.raises((errors.RuleViolation, errors.UnsupportedError), match="DMA_BUF"):
                memory.export_handle(DMA_BUF)
    device.allocate(64, handle_types=SHARED).close()


@pytest.mark.parametrize("kind", ["D3D11_TEXTURE", "D3D12_HEAP", "D3D12_RESOURCE"])
def test_vulkan_exports_no_d3d_handles(device: Device, kind: str) -> None:
    with pytest.raises((errors.RuleViolation, errors.UnsupportedError), match=kind):
        device.allocate(64, handle_types=vk.ExternalMemoryHandleTypeFlagBits[kind]).close()
    device.allocate(64, handle_types=W32).close()


def test_memory_that_was_not_made_for_export_gives_no_handle(device: Device) -> None:
    with device.allocate_memory(vk.MemoryAllocateInfo(4096, 0)) as memory:
        for kind in (FD, W32, KMT) if HAS_FDS else (W32, KMT):
            with pytest.raises(errors.RuleViolation, match="was allocated not for export|not for export"):
                memory.export_handle(kind)
    with export(device) as shared:
        shared.export_handle(W32).close()
