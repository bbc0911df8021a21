"""Invalid calls that a driver accepts, and the twin through the library, which refuses them.

The first half of each test calls the driver itself, without the library's checks, and only Mesa's software driver,
which is available everywhere: an invalid call may crash any other driver, and does crash a GPU's. The second half is
true on every driver.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

import pytest

from extmem import vk
from extmem.api import Device, DeviceMemory
from extmem.devices.vulkan.backend import VulkanBackend
from extmem.errors import DriverError, ExtmemError, RuleViolation, UnsupportedError
from extmem.testing.children import Peer
from tests.behaviours.steps import FD, KMT, PEER, W32, import_win32
from tests.unit.devices.importing import import_fd, import_unchecked
from tests.unit.devices.vulkan.forging import takes_any_content

SIZE = 1 << 20
DMA_BUF = vk.ExternalMemoryHandleTypeFlagBits.DMA_BUF


@pytest.fixture
def backend(device: Device) -> VulkanBackend:
    """The backend, whose methods the tests call without checks."""
    assert isinstance(device.backend, VulkanBackend)
    return device.backend


@pytest.fixture
def memory(device: Device, name: str) -> Iterator[DeviceMemory]:
    """1 MiB of the device, exported as an NT handle and an fd."""
    with device.allocate(SIZE, name=name) as made:
        yield made


def passes(backend: VulkanBackend, memory: DeviceMemory, size: int, index: int | None = None, kind: int = FD) -> bool:
    """Return whether the driver itself imports the payload so, on a VkDevice that is closed afterwards."""
    fd = backend.export_fd(memory.record.allocation).take()
    victim = VulkanBackend(backend.device.physical)
    try:
        import_unchecked(victim, fd, size, memory.memory_type_index if index is None else index, int(kind)).close()
    except ExtmemError:
        return False
    finally:
        os.close(fd)
        victim.close()
    return True


def is_mesas(backend: VulkanBackend) -> bool:
    """Return whether it is the software driver, which survives these calls."""
    return backend.name.startswith("llvmpipe")


def pinned(backend: VulkanBackend, attempt: Callable[[], bool], expected: bool) -> None:
    """Compare what Mesa's software driver does with what it did before; no other driver gets the call."""
    if is_mesas(backend):
        assert attempt() == expected, f"{backend.identity.driver_version} is not as lenient as it was; say so here"


def goes(attempt: Callable[[], object]) -> bool:
    """Return whether it raises nothing."""
    try:
        attempt()
    except ExtmemError:
        return False
    return True


def allocates(backend: VulkanBackend, size: int, index: int, types: int = 0) -> bool:
    """Return whether the driver itself allocates so, on a VkDevice that is closed afterwards."""
    victim = VulkanBackend(backend.device.physical)
    try:
        return goes(lambda: victim.allocate(size, index, b"", handle_types=types).close())
    finally:
        victim.close()


def test_the_exporters_size_is_imported_by_both(backend: VulkanBackend, device: Device, memory: DeviceMemory) -> None:
    assert passes(backend, memory, memory.allocation_size, memory.memory_type_index)
    with memory.export_handle(W32) as handle:
        import_win32(device, handle, size=memory.allocation_size, index=memory.memory_type_index).close()


@pytest.mark.parametrize(("divisor", "what"), [(16, "a sixteenth"), (2, "half")])
def test_a_smaller_size(backend: VulkanBackend, device: Device, memory: DeviceMemory, divisor: int, what: str) -> None:
    size = memory.allocation_size // divisor
    index = memory.memory_type_index
    pinned(backend, lambda: passes(backend, memory, size), True)
    with memory.export_handle(W32) as handle, pytest.raises(RuleViolation) as error:
        import_win32(device, handle, size=size, index=index)
    assert any("VkMemoryAllocateInfo" in vuid for vuid in error.value.vuids), what
    with memory.export_handle(FD) as fd:
        with pytest.raises(RuleViolation):
            device.allocate_memory(vk.MemoryAllocateInfo(size, index, vk.ImportMemoryFdInfoKHR(FD, fd)))
        assert not fd.closed, "a refused import consumes nothing"


def test_a_larger_size_is_refused_by_both(backend: VulkanBackend, device: Device, memory: DeviceMemory) -> None:
    size = memory.allocation_size * 2
    pinned(backend, lambda: passes(backend, memory, size), False)
    with memory.export_handle(W32) as handle, pytest.raises(RuleViolation):
        import_win32(device, handle, size=size, index=memory.memory_type_index)


@pytest.mark.parametrize("index", [5, 31])
def test_a_memory_type_that_is_not_there(
    backend: VulkanBackend, device: Device, memory: DeviceMemory, index: int
) -> None:
    if index < len(device.memory_properties.memory_types):
        index = 31
    pinned(backend, lambda: passes(backend, memory, memory.allocation_size, index), True)
    with memory.export_handle(W32) as handle, pytest.raises(RuleViolation) as error:
        import_win32(device, handle, size=memory.allocation_size, index=index)
    assert "VUID-vkAllocateMemory-pAllocateInfo-01714" in error.value.vuids
    with pytest.raises(RuleViolation):
        device.allocate(16, memory_type=index)


@pytest.mark.parametrize("kind", [W32, KMT, DMA_BUF])
def test_a_handle_type_that_the_driver_has_never_heard_of(
    backend: VulkanBackend,
    device: Device,
    memory: DeviceMemory,
    peer: Peer,
    kind: vk.ExternalMemoryHandleTypeFlagBits,
) -> None:
    """Mesa accepts it, and since version 26 never closes the file: another process makes the call."""
    if kind == DMA_BUF and "VK_EXT_external_memory_dma_buf" in backend.device.physical.extensions:
        pytest.skip("this driver has the extension of DMA_BUF")
    if is_mesas(backend):
        peer(f"{PEER}\nfrom tests.process.vulkan.test_leniency import passes\nmemory = device.allocate(1 << 20)")
        assert peer("passes(device.backend, memory, memory.allocation_size, kind=kind)", kind=int(kind))
    with memory.export_handle(FD) as fd:
        info = vk.ImportMemoryFdInfoKHR(kind, fd)
        with pytest.raises(RuleViolation):
            device.allocate_memory(vk.MemoryAllocateInfo(memory.allocation_size, memory.memory_type_index, info))
        assert not fd.closed


def test_exports_of_a_type_that_was_not_asked_for(backend: VulkanBackend, device: Device) -> None:
    with device.allocate(64, handle_types=FD) as memory:
        raw = memory.record.allocation.live  # type: ignore[attr-defined]  # allocations of Vulkan have it
        pinned(backend, lambda: goes(lambda: backend.memories.get_fd(raw, int(DMA_BUF)).close()), True)
        with pytest.raises(RuleViolation) as error:
            device.get_memory_fd(vk.MemoryGetFdInfoKHR(memory, DMA_BUF))
        assert "VUID-VkMemoryGetFdInfoKHR-handleType-00671" in error.value.vuids
        memory.export_handle(FD).close()


def test_an_fd_of_memory_that_is_not_for_export(backend: VulkanBackend, device: Device) -> None:
    """Mesa returns VK_SUCCESS, and -1 for the fd."""
    with device.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0)) as memory:
        if is_mesas(backend):
            with pytest.raises((UnsupportedError, DriverError)):
                backend.memories.get_fd(memory.record.allocation.live, int(FD))  # type: ignore[attr-defined]  # as above
        with pytest.raises(RuleViolation) as error:
            device.get_memory_fd(vk.MemoryGetFdInfoKHR(memory, FD))
        assert "VUID-VkMemoryGetFdInfoKHR-handleType-00671" in error.value.vuids


def test_allocations_and_imports_of_nothing(backend: VulkanBackend, device: Device, memory: DeviceMemory) -> None:
    """Mesa 22 returns VK_SUCCESS and VK_NULL_HANDLE, and leaves an imported fd open: extmem treats that as a failure.

    Mesa 26 imports all of the payload, and makes memory of no bytes. Neither may leave memory, or the fd, behind.
    """
    if is_mesas(backend):
        before = len(os.listdir("/proc/self/fd"))
        passes(backend, memory, 0)
        assert len(os.listdir("/proc/self/fd")) == before, backend.identity.driver_version
        with contextlib.suppress(ExtmemError):
            backend.allocate(0, 0, b"").close()
    with pytest.raises(RuleViolation) as error:
        device.allocate_memory(vk.MemoryAllocateInfo(0, 0))
    assert "VUID-VkMemoryAllocateInfo-allocationSize-07897" in error.value.vuids
    with memory.export_handle(W32) as handle, pytest.raises(RuleViolation):
        import_win32(device, handle, size=0, index=memory.memory_type_index)


def test_allocations_of_a_type_that_is_not_there(backend: VulkanBackend, device: Device) -> None:
    pinned(backend, lambda: allocates(backend, 4096, 31), True)
    with pytest.raises(RuleViolation) as error:
        device.allocate_memory(vk.MemoryAllocateInfo(4096, 31))
    assert "VUID-vkAllocateMemory-pAllocateInfo-01714" in error.value.vuids


def test_more_than_the_heap_has(backend: VulkanBackend, device: Device) -> None:
    """Mesa allocates 64 TiB if they are to be shared: a sparse file. Access to all of it ends the process."""
    pinned(backend, lambda: allocates(backend, 1 << 46, 0, FD), True)
    with pytest.raises(RuleViolation) as error:
        device.allocate_memory(vk.MemoryAllocateInfo(1 << 46, 0, vk.ExportMemoryAllocateInfo(FD)))
    assert "VUID-vkAllocateMemory-pAllocateInfo-01713" in error.value.vuids


def test_a_failed_import_may_have_closed_the_fd(backend: VulkanBackend) -> None:
    """The specification says that the fd stays the caller's. Mesa closes it, where the size fits and the content does
    not.

    So the driver only ever gets a copy, and it is checked before it is closed. Other drivers do not get a forgery at
    all: the library refuses it before.
    """
    probe = backend.imports.fds.sample_fd(FD)
    name = os.readlink(f"/proc/self/fd/{probe.fd}").removeprefix("/memfd:").removesuffix(" (deleted)")
    probe.close()
    forged = os.memfd_create(name, os.MFD_CLOEXEC)
    os.truncate(forged, SIZE * 2)
    here, there = os.pipe()
    if is_mesas(backend):
        victim = VulkanBackend(backend.device.physical)
        with pytest.raises(ExtmemError):
            import_unchecked(victim, forged, SIZE, 0)
        victim.close()
    if takes_any_content(backend):
        import_fd(backend, forged, SIZE, 0).close()  # SwiftShader's payloads have no other bytes
    else:
        with pytest.raises(DriverError):
            import_fd(backend, forged, SIZE, 0)
    os.fstat(forged)
    os.write(there, b"this fd was not closed")
    assert os.read(here, 99) == b"this fd was not closed"
    for fd in (forged, here, there):
        os.close(fd)
