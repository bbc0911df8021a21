"""DMA_BUF on a device that imports it and exports none: kernel and driver are queried, and no sample is made."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import pytest

import extmem
from extmem import vk
from extmem.api import Device
from extmem.devices.vulkan import dma_buf
from extmem.handles import FdHandle
from extmem.testing import fake_vulkan
from extmem.testing.fake_vulkan.files import DMA_BUF_NAME

DMA_BUF = vk.ExternalMemoryHandleTypeFlagBits.DMA_BUF
FD = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD
IMPORTABLE = int(vk.ExternalMemoryFeatureFlagBits.IMPORTABLE)
SIZE = 65_536
UNSEEN, SEEN = 0, 1
Result = vk.Result


def importer(*, opaque_too: bool = False) -> fake_vulkan.Gpu:
    """Return a GPU that imports dma-bufs and exports none. opaque_too: the same for opaque fds."""
    gpu = fake_vulkan.DISCRETE
    known = gpu.external
    if opaque_too:
        known = tuple(dataclasses.replace(e, features=IMPORTABLE) if e.handle_type == FD else e for e in known)
    taken = (fake_vulkan.External("buffer", int(DMA_BUF), IMPORTABLE, 0, int(DMA_BUF)),)
    extensions = (*gpu.extensions, "VK_EXT_external_memory_dma_buf")
    return dataclasses.replace(gpu, external=(*known, *taken), extensions=extensions)


@pytest.fixture
def fake() -> Iterator[fake_vulkan.FakeVulkan]:
    made = fake_vulkan.FakeVulkan([importer()])
    with fake_vulkan.installed(made):
        yield made
    assert not made.misuses, [str(misuse) for misuse in made.misuses]
    assert not made.alive()


@pytest.fixture
def device(fake: fake_vulkan.FakeVulkan) -> Iterator[Device]:
    with extmem.open_device(kind="vulkan") as opened:
        yield opened


@contextlib.contextmanager
def file(name: str = DMA_BUF_NAME, size: int = SIZE) -> Iterator[int]:
    """Return a dma-buf of another driver, full of threes; or a file that is not a dma-buf."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        os.truncate(fd, size)
        os.pwrite(fd, b"\3" * size, 0)
        yield fd
    finally:
        os.close(fd)


def take(device: Device, fd: int, *, size: int = SIZE, kind: int = SEEN) -> Any:
    """Import a copy of the fd, which is closed if that fails."""
    handle = FdHandle(os.dup(fd))
    try:
        return device.allocate_memory(vk.MemoryAllocateInfo(size, kind, vk.ImportMemoryFdInfoKHR(DMA_BUF, handle)))
    finally:
        handle.close()


def test_it_is_imported_without_a_sample(fake: fake_vulkan.FakeVulkan, device: Device) -> None:
    before = fake.calls.count("vkAllocateMemory")
    with file() as fd:
        assert device.get_memory_fd_properties(DMA_BUF, fd).memory_type_bits == 0b110
        with take(device, fd) as memory:
            assert fake.calls.count("vkAllocateMemory") == before + 2, "on a device of its own, and on the one in use"
            assert fake.calls.count("vkCreateDevice") == 2 and "vkGetMemoryFdKHR" not in fake.calls
            assert set(memory.read_bytes()) == {3}
            memory.fill(4)
            assert os.pread(fd, SIZE, 0) == b"\4" * SIZE
        with take(device, fd, size=4096) as part:
            assert set(part.read_bytes()) == {4}


def test_what_the_kernel_calls_no_dma_buf_never_reaches_a_driver(fake: fake_vulkan.FakeVulkan, device: Device) -> None:
    with file("something else") as other, file() as real:
        for fd in (other, *os.pipe()):
            with pytest.raises(extmem.RuleViolation, match="the kernel does not call it a dma-buf") as caught:
                take(device, fd)
            assert "VUID-VkImportMemoryFdInfoKHR-handleType-00670" in caught.value.vuids
            if fd != other:
                os.close(fd)
        assert not fake.bad_imports and "vkGetMemoryFdPropertiesKHR" not in fake.calls
        take(device, real).close()


def test_size_and_memory_type_are_asked_of_kernel_and_driver(device: Device) -> None:
    with file() as fd:
        with pytest.raises(extmem.RuleViolation) as caught:
            take(device, fd, kind=UNSEEN)
        assert caught.value.vuids == ("VUID-VkMemoryAllocateInfo-memoryTypeIndex-00648",)
        with pytest.raises(extmem.DriverError, match=f"a file of {SIZE} bytes, and {SIZE + 1} are to be imported"):
            take(device, fd, size=SIZE + 1)
        for kind in (SEEN, SEEN + 1):
            take(device, fd, kind=kind).close()


def test_what_the_driver_refuses_to_describe_is_reported(fake: fake_vulkan.FakeVulkan, device: Device) -> None:
    with file() as fd:
        bad = Result.ERROR_INVALID_EXTERNAL_HANDLE
        fake.fail(1, bad, command="vkGetMemoryFdPropertiesKHR")
        with pytest.raises(extmem.RuleViolation, match="vkGetMemoryFdPropertiesKHR"):
            take(device, fd)
        fake.fail(1, Result.ERROR_OUT_OF_HOST_MEMORY, command="vkGetMemoryFdPropertiesKHR")
        with pytest.raises(extmem.OutOfMemoryError, match="vkGetMemoryFdPropertiesKHR"):
            take(device, fd)
        take(device, fd).close()


def test_an_opaque_fd_that_the_device_does_not_export_is_proved_all_the_same() -> None:
    """There are no samples to compare with; what no driver exports is refused, the rest is tried elsewhere first."""
    maker = fake_vulkan.FakeVulkan([fake_vulkan.DISCRETE])
    with fake_vulkan.installed(maker), extmem.open_device(kind="vulkan") as device:
        with (
            device.allocate(4096, handle_types=int(FD), memory_type=SEEN) as memory,
            memory.export_handle(FD) as handle,
        ):
            memory.fill(9)
            number, size = os.dup(int(handle)), memory.allocation_size
    taker = fake_vulkan.FakeVulkan([importer(opaque_too=True)])
    with fake_vulkan.installed(taker), extmem.open_device(kind="vulkan") as device, file("another") as other:
        for fd, right in ((number, True), (other, False)):
            handle = FdHandle(os.dup(fd))
            info = vk.MemoryAllocateInfo(size, SEEN, vk.ImportMemoryFdInfoKHR(FD, handle))
            if right:
                with device.allocate_memory(info) as memory:
                    assert set(memory.read_bytes()) == {9}
            else:
                with pytest.raises(extmem.DriverError, match="tried on a device of its own"):
                    device.allocate_memory(info)
                handle.close()
        with pytest.raises(extmem.RuleViolation, match="no driver exports"):
            path = os.open(__file__, os.O_RDONLY)
            device.allocate_memory(vk.MemoryAllocateInfo(size, SEEN, vk.ImportMemoryFdInfoKHR(FD, path)))
        os.close(path)
        assert [number for number, _ in taker.bad_imports], "the other device tried it"
    os.close(number)
    assert not taker.misuses and not maker.misuses


def test_the_kernel_is_asked_by_its_own_words() -> None:
    """A memory file, a pipe and a directory are not dma-bufs; none can be made here, so its text is written out."""
    words = "pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t7\nsize:\t65536\ncount:\t2\nexp_name:\tudmabuf\n"
    assert dma_buf.size_in(words) == 65536
    assert dma_buf.size_in("pos:\t0\nflags:\t02\nmnt_id:\t15\nsize:\t9\n") is None
    read, write = os.pipe()
    folder = os.open(os.sep, os.O_RDONLY)
    with file("x") as fd:
        assert [dma_buf.size_of(one) for one in (fd, read, write, folder)] == [None] * 4
    for one in (read, write, folder):
        os.close(one)
    with pytest.raises(OSError):
        dma_buf.size_of(folder)
