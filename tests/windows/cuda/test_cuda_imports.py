"""Memory of Vulkan, Direct3D and others on a CUDA device: by handle, number and name, as the descriptor states."""

from __future__ import annotations

import msgspec
import pytest

import extmem
from extmem import errors, raw, vk
from extmem.api import Device, DeviceMemory
from extmem.devices.cuda.backend import CudaBackend
from extmem.devices.types import Origin
from extmem.handles import KmtHandle, NtHandle
from extmem.handles._win32 import calls
from extmem.manager import manager
from extmem.sharing.descriptor import Descriptor
from extmem.testing import fake_cuda, fake_vulkan
from extmem.testing.fake_vulkan.win32 import make_texture, number_of
from tests.behaviours.steps import KMT, SIZE, W32

HandleType = vk.ExternalMemoryHandleTypeFlagBits
CU = {
    HandleType.OPAQUE_WIN32: 2,
    HandleType.OPAQUE_WIN32_KMT: 3,
    HandleType.D3D12_HEAP: 4,
    HandleType.D3D12_RESOURCE: 5,
    HandleType.D3D11_TEXTURE: 6,
    HandleType.D3D11_TEXTURE_KMT: 7,
}
FROM_D3D = [kind for kind in CU if kind not in (W32, KMT)]
NUMBERS = (HandleType.OPAQUE_WIN32_KMT, HandleType.D3D11_TEXTURE_KMT)
LUID = fake_cuda.Gpu().luid


def each_sees_the_other(one: DeviceMemory, other: DeviceMemory) -> None:
    one.fill(3)
    assert set(other.read_bytes()) == {3}
    other.fill(4)
    assert set(one.read_bytes()) == {4}


def shared(fake: fake_vulkan.FakeVulkan, kind: HandleType, size: int = SIZE) -> tuple[NtHandle, NtHandle | KmtHandle]:
    """Memory that another program shares: the object that keeps it alive, and the handle or name."""
    keeper = NtHandle(make_texture(fake, int(kind), size), manager())
    return keeper, KmtHandle(number_of(int(keeper))) if kind in NUMBERS else keeper


# What Vulkan made.


@pytest.mark.parametrize("kind", [W32, KMT])
@pytest.mark.parametrize("dedicated", [True, False])
def test_type_size_and_flag_are_the_descriptors(
    kind: HandleType, dedicated: bool, cuda: Device, vulkan: Device, fake: fake_cuda.FakeCuda
) -> None:
    with vulkan.allocate((1000,), handle_types=int(kind), dedicated=dedicated) as memory:
        handle = memory.export_handle(kind)
        with cuda.open(handle) as other:
            assert fake.imports == [{"type": CU[kind], "size": memory.allocation_size, "flags": int(dedicated)}]
            each_sees_the_other(memory, other)
        if isinstance(handle, NtHandle):
            assert not handle.closed
            handle.close()


@pytest.mark.parametrize("kind", [W32, KMT])
def test_an_array_of_vulkans_memory_is_an_import_by_its_handle(
    kind: HandleType, cuda: Device, vulkan: Device, fake: fake_cuda.FakeCuda
) -> None:
    with vulkan.allocate((1000,), handle_types=int(kind)) as memory:
        memory.fill(9)
        array = memory.device_array()
        assert array is not None and [descriptor["type"] for descriptor in fake.imports] == [CU[kind]]
        handle = memory.export_handle(kind)
        with extmem.open(handle, device=vulkan) as again:
            assert again.device_array() is not None
        if isinstance(handle, NtHandle):
            handle.close()
        del array


def test_the_driver_takes_a_name_itself(cuda: Device, vulkan: Device, fake: fake_cuda.FakeCuda, name: str) -> None:
    """The layers above open the name and pass the handle; a caller of the backend may pass the name."""
    backend = cuda.backend
    assert isinstance(backend, CudaBackend)
    with vulkan.allocate((1000,), name=name, dedicated=False) as memory:
        memory.fill(6)
        origin = Origin(memory.allocation_size, int(W32), device_uuid=cuda.uuid)
        made = backend.import_by_descriptor(0, origin, name=name)
        into = bytearray(1000)
        backend.read(made, 0, memoryview(into))
        assert set(into) == {6}
        made.close()
        with pytest.raises(errors.DriverError, match=f"OPAQUE_WIN32 '{name} of nobody'.*CUDA_ERROR_UNKNOWN|999"):
            backend.import_by_descriptor(0, origin, name=f"{name} of nobody")


# Memory of other programs.


@pytest.mark.parametrize("kind", FROM_D3D)
@pytest.mark.parametrize("stated", [True, False], ids=["with its LUID", "undescribed"])
def test_direct3ds_memory_is_imported_and_its_resources_always_as_dedicated(
    kind: HandleType, stated: bool, cuda: Device, fake: fake_cuda.FakeCuda, other_api: fake_vulkan.FakeVulkan
) -> None:
    keeper, handle = shared(other_api, kind)
    with keeper:
        if stated:
            descriptor = Descriptor(handle_types=int(kind), allocation_size=SIZE, luid=LUID, made_by_vulkan=False)
            memory = raw.import_payload(cuda, handle, descriptor)
        else:
            info = vk.ImportMemoryWin32HandleInfoKHR(kind, handle)
            memory = cuda.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0, info))
        with memory:
            memory.fill(7)
            assert set(memory.read_bytes()) == {7}
            alone = int(kind != HandleType.D3D12_HEAP)
            assert fake.imports == [{"type": CU[kind], "size": SIZE, "flags": alone}]
        assert calls.type_of(int(keeper)), "NT handles stay the caller's"


@pytest.mark.parametrize("kind", [W32, KMT])
def test_an_opaque_handle_that_nobody_describes_needs_a_stated_description(
    kind: HandleType, cuda: Device, fake: fake_cuda.FakeCuda, other_api: fake_vulkan.FakeVulkan
) -> None:
    keeper, handle = shared(other_api, kind)
    with keeper:
        info = vk.ImportMemoryWin32HandleInfoKHR(kind, handle)
        with pytest.raises(errors.DescriptorError, match=r"carries no description.*extmem\.raw\.import_payload"):
            cuda.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0, info))
        assert not fake.imports, "it could be known before"
        descriptor = Descriptor(handle_types=int(kind), allocation_size=SIZE, device_uuid=cuda.uuid)
        with raw.import_payload(cuda, handle, descriptor) as memory:
            memory.fill(7)
            assert set(memory.read_bytes()) == {7}


def test_a_larger_size_fails_when_it_is_mapped_and_the_handle_survives(
    cuda: Device, fake: fake_cuda.FakeCuda, other_api: fake_vulkan.FakeVulkan
) -> None:
    keeper, handle = shared(other_api, W32)
    descriptor = Descriptor(handle_types=int(W32), allocation_size=SIZE, device_uuid=cuda.uuid)
    with keeper:
        with pytest.raises(errors.DriverError, match="cuExternalMemoryGetMappedBuffer.*the exporter's"):
            raw.import_payload(
                cuda, handle, msgspec.structs.replace(descriptor, allocation_size=2 * SIZE, payload_size=0)
            )
        assert "cuDestroyExternalMemory" in fake.calls and not handle.closed
        raw.import_payload(cuda, handle, descriptor).close()


def test_what_is_no_memory_of_a_driver_is_refused_before_it_is_asked(cuda: Device, fake: fake_cuda.FakeCuda) -> None:
    descriptor = Descriptor(handle_types=int(W32), allocation_size=SIZE, device_uuid=cuda.uuid)
    event = calls.create_event(f"\\BaseNamedObjects\\extmem-no-memory-{id(descriptor)}", manual=True, signaled=False)
    for value in (event, 0x7FFC):
        with pytest.raises((errors.ObjectTypeError, errors.InvalidHandleError)):
            cuda.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0, vk.ImportMemoryWin32HandleInfoKHR(W32, value)))
    calls.close_handle(event)
    assert not fake.imports


# The device of the memory.


def test_a_gpu_is_known_by_its_whole_luid(nothing_left: None) -> None:
    """cuda-bindings returns the LUID as a C string, which ends at its first zero byte."""
    luid = b"\x23\x00\x01\x00\x05\x00\x00\x00"
    with fake_cuda.installed(fake_cuda.FakeCuda([fake_cuda.Gpu(luid=luid)])) as fake:
        assert fake.module.cuInit(0)[0] == 0
        assert fake.module.cuDeviceGetLuid(0)[1] == b"\x23"
        with extmem.open_device(kind="cuda") as device:
            assert device.identity.luid == luid and device.identity.node_mask == 1
        with extmem.open_device(kind="cuda", luid=luid) as device:
            assert device.identity.luid == luid
        with pytest.raises(errors.UnsupportedError, match=f"LUID {b'another!'.hex()}"):
            extmem.open_device(kind="cuda", luid=b"another!")


def test_direct3ds_memory_of_another_adapter_is_refused(
    cuda: Device, fake: fake_cuda.FakeCuda, other_api: fake_vulkan.FakeVulkan
) -> None:
    keeper, handle = shared(other_api, HandleType.D3D12_HEAP)
    descriptor = Descriptor(
        handle_types=int(HandleType.D3D12_HEAP), allocation_size=SIZE, luid=b"another!", made_by_vulkan=False
    )
    with keeper:
        with pytest.raises(errors.DriverError, match=f"{b'another!'.hex()}.*{LUID.hex()}"):
            raw.import_payload(cuda, handle, descriptor)
        assert not fake.imports
        raw.import_payload(cuda, handle, msgspec.structs.replace(descriptor, luid=LUID)).close()


# Host payloads.


def test_a_host_payload_is_registered_once_by_whatever_handle(
    cuda: Device, fake: fake_cuda.FakeCuda, name: str
) -> None:
    with extmem.open_device(kind="host") as host, host.allocate((1000,), name=name) as memory:
        with memory.export_handle(W32) as handle, cuda.open(name) as one, extmem.open_device(kind="cuda") as again:
            with again.open(handle) as two:
                one.fill(6)
                assert set(two.read_bytes()) == {6} and set(memory.read_bytes()) == {6}
            assert fake.calls.count("cuMemHostRegister") == 1
        with host.allocate((1000,)) as another, another.export_handle(W32) as handle:
            with cuda.open(name) as one, cuda.open(handle) as two:
                one.fill(1)
                two.fill(2)
                assert set(one.read_bytes()) == {1} and fake.alive()["registrations"] == 2
