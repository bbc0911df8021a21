"""What is passed between bindings: fds that stay their owner's, undescribed fds, and a device's own handles."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

import extmem
from extmem import process, raw, vk
from extmem.api import Device
from extmem.handles import FdHandle
from extmem.testing import fake_vulkan
from extmem.testing.fake_vulkan.gpus import shared

FD = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD
DMA_BUF = vk.ExternalMemoryHandleTypeFlagBits.DMA_BUF
SIZE = 65_536
VISIBLE = int(vk.MemoryPropertyFlagBits.HOST_VISIBLE)
BY_FD = pytest.mark.linux_only("descriptors are Linux's")


@pytest.fixture(params=["host", "vulkan"])
def exporter(request: pytest.FixtureRequest) -> Iterator[Device]:
    """A device of each kind; the test is skipped where there is no driver."""
    if request.param == "vulkan":
        request.getfixturevalue("vulkan_device")
    with extmem.open_device(kind=request.param) as opened:
        yield opened


def theirs(memory: extmem.DeviceMemory) -> int:
    """A number that another binding owns, without a description."""
    handle = memory.export_handle(FD)
    assert isinstance(handle, FdHandle)
    return handle.take()


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@BY_FD
def test_a_borrowed_fd_stays_its_owners(exporter: Device) -> None:
    with exporter.allocate(SIZE, handle_types=int(FD)) as memory:
        memory.fill(3)
        number, stated = theirs(memory), memory.descriptor
        for _ in range(2):
            with raw.import_payload(exporter, number, stated, borrow=True) as imported:
                assert set(imported.read_bytes()) == {3} and is_open(number)
            assert is_open(number)
        with raw.borrowed_fd(number) as copy:
            with raw.import_payload(exporter, copy, stated, borrow=True) as imported:
                assert not copy.closed and set(imported.read_bytes()) == {3}
            assert not copy.closed
        wrong = msgspec.structs.replace(stated, allocation_size=1 << 30, payload_size=1 << 30)
        with pytest.raises(extmem.ExtmemError):
            raw.import_payload(exporter, number, wrong, borrow=True)
        assert is_open(number)
        raw.import_payload(exporter, number, stated).close()  # not borrowed: consumed
        assert not is_open(number)
        with pytest.raises(extmem.HandleStateError, match=f"fd {number} is not open"):
            raw.import_payload(exporter, number, stated, borrow=True)


@BY_FD
def test_a_borrowed_fd_is_sent_with_the_description_that_is_stated(vulkan_device: Device) -> None:
    device = vulkan_device
    ours, others = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, others, device.allocate((4, 4), "float32", handle_types=int(FD)) as memory:
        memory.fill(5)
        number, stated = theirs(memory), memory.descriptor
        raw.send_payload(ours, number, stated)
        assert is_open(number)
        with process.receive_handle(others) as handle:
            assert handle.payload is not None and not handle.payload.trusted, "nobody has seen what it leads to"
            with device.open(handle) as opened:
                assert opened.descriptor.array == extmem.ArrayInfo((4, 4), "float32", (16, 4))
                assert opened.tobytes() == b"\5" * 64
        wrong = msgspec.structs.replace(stated, allocation_size=1 << 30)
        raw.send_payload(ours, number, wrong)
        with process.receive_handle(others) as handle, pytest.raises(extmem.DriverError, match="bytes"):
            device.open(handle)
        # An export of extmem is still recognized.
        with memory.export_handle(FD) as exported:
            assert isinstance(exported, FdHandle)
            process.send_handle(ours, exported)
            with process.receive_handle(others) as handle:
                assert handle.payload is not None and handle.payload.trusted
        os.close(number)
        with pytest.raises(extmem.HandleStateError, match="is not open"):
            raw.send_payload(ours, number, stated)


@BY_FD
def test_what_an_undescribed_fd_may_be(exporter: Device) -> None:
    with exporter.allocate(SIZE, handle_types=int(FD)) as memory:
        memory.fill(4)
        number = theirs(memory)
        found = raw.fd_choices(exporter, number)
        assert found.handle_type == FD and memory.memory_type_index in found.memory_types
        assert not found.largest_size or found.largest_size >= memory.allocation_size
        seen = raw.fd_choices(exporter, number, memory_properties=VISIBLE).memory_types
        types = exporter.memory_properties.memory_types
        assert set(seen) == {i for i in found.memory_types if types[i].property_flags & VISIBLE}
        stated = extmem.Descriptor(int(FD), memory.allocation_size, found.memory_types[0])
        with raw.import_payload(exporter, number, stated, borrow=True) as imported:
            assert set(imported.read_bytes(0, 16)) == {4}
        os.close(number)
    read, write = os.pipe()
    for bad in (read, number):
        with pytest.raises(extmem.DriverError, match=f"fd {bad} is"):
            raw.fd_choices(exporter, bad)
    os.close(read)
    os.close(write)


@BY_FD
def test_a_dma_bufs_choices_are_the_kernels_and_the_drivers() -> None:
    taken = fake_vulkan.External("buffer", int(DMA_BUF), 4, 0, int(DMA_BUF))
    extensions = (*fake_vulkan.DISCRETE.extensions, "VK_EXT_external_memory_dma_buf")
    gpu = fake_vulkan.Gpu(external=(*shared(), taken), extensions=extensions)
    fake = fake_vulkan.FakeVulkan([gpu])
    fd = os.memfd_create("fake dma-buf", os.MFD_CLOEXEC)
    os.truncate(fd, SIZE)
    with fake_vulkan.installed(fake), extmem.open_device(kind="vulkan") as device:
        found = raw.fd_choices(device, fd, handle_type=DMA_BUF)
        assert found == (DMA_BUF, (1, 2), SIZE)
        stated = extmem.Descriptor(int(DMA_BUF), found.largest_size, found.memory_types[0], made_by_vulkan=False)
        with raw.import_payload(device, fd, stated, borrow=True) as memory:
            memory.fill(6)
    assert os.pread(fd, SIZE, 0) == b"\6" * SIZE and not fake.misuses
    os.close(fd)


def test_handles_of_a_device_are_returned(vulkan_device: Device) -> None:
    """Another device is made with them, as another binding would."""
    mine: Any = vulkan_device
    given = raw.vk_handles(mine)
    assert given.device == raw.vk_device(mine) and given.queue and given.queue_index == 0
    assert given.extensions == mine.backend.device.enabled
    again = raw.adopt_device(
        given.instance,
        given.physical_device,
        given.device,
        extensions=given.extensions,
        queue_family_index=given.queue_family_index,
        queue_index=given.queue_index,
        api_version=given.api_version,
    )
    with again, again.allocate(SIZE) as memory:
        memory.fill(3)
        assert set(memory.read_bytes(0, 16)) == {3}
        assert raw.vk_handles(again) == given
    with extmem.open_device(kind="host") as host, pytest.raises(extmem.UnsupportedError, match="no Vulkan handles"):
        raw.vk_handles(host)


def test_handles_of_a_closed_device_are_refused(vulkan_device: Device) -> None:
    with extmem.open_device(kind="vulkan") as other:
        raw.vk_handles(other)
    with pytest.raises(extmem.HandleStateError, match="is closed"):
        raw.vk_handles(other)
