"""Memory between CUDA and CUDA, CUDA and Vulkan, host and CUDA: one payload, shared by both, released once."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

import extmem
from extmem import raw, vk
from extmem.api import Device
from extmem.devices.host import HAS_FDS
from extmem.sharing.descriptor import Descriptor
from extmem.testing import fake_cuda
from extmem.testing.fake_cuda.sharing import place

FD = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD
W32 = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32
KMT = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32_KMT
SHARED, CU_TYPE = (FD, 1) if HAS_FDS else (W32, 2)
"""The type of bare handles on this system, and its CUexternalMemoryHandleType."""


def each_sees_the_other(one: Any, other: Any) -> None:
    one.fill(3)
    assert set(other.read_bytes()) == {3}
    other.fill(4)
    assert set(one.read_bytes()) == {4}


# Memory of CUDA.


def test_new_memory_is_zeroed_whole_granules_and_says_who_made_it(cuda: Device) -> None:
    with cuda.allocate((5, 3), "float32") as memory:
        descriptor = memory.descriptor
        assert not memory.read().any()
        assert memory.size == 60 and memory.allocation_size == 65_536
        assert (descriptor.producer, descriptor.made_by_vulkan, descriptor.driver_uuid) == ("cuda-vmm", False, None)
        assert descriptor.device_uuid == cuda.uuid and not memory.host_visible
        with pytest.raises(extmem.UnsupportedError, match=r"memory\.torch\(\)"):
            memory.map()


def test_a_cuda_device_opens_it_by_name_and_handle(cuda: Device, name: str) -> None:
    with cuda.allocate((16,), name=name) as memory:
        with cuda.open(name) as other:
            assert other.record is not memory.record
            each_sees_the_other(memory, other)
        with memory.export_handle(W32) as handle, cuda.open(handle) as other:
            each_sees_the_other(memory, other)


@pytest.mark.linux_only("descriptors are Linux's, and CUDA gives no KMT numbers on Windows")
def test_a_cuda_device_opens_it_by_number_and_fd(cuda: Device) -> None:
    with cuda.allocate((16,)) as memory:
        handle = memory.export_handle(FD)
        with cuda.open(handle) as other:
            assert handle.closed
            each_sees_the_other(memory, other)
    with cuda.allocate((16,), handle_types=int(KMT)) as memory, cuda.open(memory.export_handle(KMT)) as other:
        each_sees_the_other(memory, other)


def test_opened_by_name_without_a_device_it_comes_to_cuda(cuda: Device, vulkan: Device, name: str) -> None:
    with cuda.allocate((16,), name=name), extmem.open(name) as other:
        assert other.device.kind == "cuda"
    with vulkan.allocate((16,), name=name), extmem.open(name) as other:
        assert other.device.kind == "vulkan"


def test_opening_what_is_open_imports_nothing(cuda: Device, fake: fake_cuda.FakeCuda, name: str) -> None:
    with cuda.allocate((16,), name=name), cuda.open(name) as one:
        before = len(fake.calls)
        with cuda.open(name) as other:
            assert other.record is one.record
        assert len(fake.calls) == before


def test_exported_descriptors_do_not_leak_into_children(cuda: Device) -> None:
    with cuda.allocate((16,)) as memory, memory.export_handle(SHARED) as handle:
        assert not (os.get_inheritable(int(handle)) if isinstance(handle, extmem.FdHandle) else handle.info.inherit)


def test_a_vulkan_device_imports_what_cuda_made(cuda: Device, vulkan: Device, name: str) -> None:
    with cuda.allocate((16,), name=name) as memory:
        with vulkan.open(name) as other:
            assert other.memory_type_index == 0 and other.allocation_size == memory.allocation_size
            each_sees_the_other(memory, other)
        with memory.export_handle(SHARED) as handle, vulkan.open(handle) as other:
            each_sees_the_other(memory, other)


def test_memory_that_is_not_shared_has_no_fd(cuda: Device) -> None:
    memory = cuda.allocate_memory(vk.MemoryAllocateInfo(10, 0))
    with memory, pytest.raises(extmem.RuleViolation, match="00671"):
        memory.export_handle(FD)


@pytest.mark.parametrize(("lacking", "text"), [("virtual_memory", "no virtual-memory API"), ("shares", "exports no")])
def test_a_gpu_that_cannot_share_reports_it(lacking: str, text: str, name: str) -> None:
    gpu = fake_cuda.Gpu(**{lacking: False})
    with fake_cuda.installed(fake_cuda.FakeCuda([gpu])), extmem.open_device(kind="cuda") as device:
        with pytest.raises(extmem.UnsupportedError, match=text):
            device.allocate((16,), name=name)
        if lacking == "shares":
            with device.allocate_memory(vk.MemoryAllocateInfo(10, 0)) as memory:
                memory.fill(1)
            with device.allocate((16,)) as memory, pytest.raises(extmem.ExtmemError):
                memory.export_handle(W32)


def test_more_than_there_is_is_out_of_memory(cuda: Device, fake: fake_cuda.FakeCuda) -> None:
    fake.fail(1, fake_cuda.OUT_OF_MEMORY, command="cuMemCreate")
    with pytest.raises(extmem.DriverError, match=r"cuMemCreate.*no more memory") as caught:
        cuda.allocate((16,))
    cuda.allocate((16,)).close()
    assert isinstance(caught.value, MemoryError)


@pytest.mark.parametrize(
    ("which", "command", "kind"),
    [
        ("virtual.reserve", "cuMemAddressReserve", "cuda"),
        ("virtual.place", "cuMemSetAccess", "cuda"),
        ("external.place", "cuExternalMemoryGetMappedBuffer", "vulkan"),
    ],
)
def test_addresses_that_are_not_to_be_had_are_the_drivers_refusal(
    which: str, command: str, kind: str, cuda: Device, vulkan: Device, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system gives the scripted driver no addresses, that fails like a driver, and nothing is left."""

    def refused(*arguments: Any, writable: bool = True) -> None:
        if writable:
            raise OSError(12, "no room")
        place(*arguments, writable=False)  # releasing the addresses

    with (vulkan if kind == "vulkan" else cuda).allocate((16,), name=name):
        with monkeypatch.context() as patched:
            patched.setattr(f"extmem.testing.fake_cuda.{which}", refused)
            with pytest.raises(extmem.DriverError, match=command):
                cuda.open(name) if kind == "vulkan" else cuda.allocate((16,))
        (cuda.open(name) if kind == "vulkan" else cuda.allocate((16,))).close()


# Memory of Vulkan.


@pytest.mark.parametrize("dedicated", [True, False])
def test_size_type_and_dedicated_flag_are_the_descriptors(
    dedicated: bool, cuda: Device, vulkan: Device, fake: fake_cuda.FakeCuda, name: str
) -> None:
    with vulkan.allocate((1000,), name=name, dedicated=dedicated) as memory:
        with cuda.open(name) as other:
            assert fake.imports == [{"type": CU_TYPE, "size": memory.allocation_size, "flags": int(dedicated)}]
            each_sees_the_other(memory, other)
        with memory.export_handle(SHARED) as handle, cuda.open(handle) as other:
            each_sees_the_other(memory, other)


@pytest.mark.linux_only("windows/cuda has bare NT handles")
def test_an_fd_that_came_without_its_description_needs_a_stated_one(cuda: Device, vulkan: Device) -> None:
    with vulkan.allocate((1000,), dedicated=False) as memory:
        handle = memory.export_handle(FD)
        assert isinstance(handle, extmem.FdHandle) and handle.payload is not None
        descriptor = Descriptor.parse(handle.payload.descriptor)
        fd = handle.take()
        bare = vk.ImportMemoryFdInfoKHR(FD, fd)
        with pytest.raises(extmem.DescriptorError, match="carries no description"):
            cuda.allocate_memory(vk.MemoryAllocateInfo(memory.allocation_size, 0, bare))
        with raw.import_payload(cuda, fd, descriptor) as other:
            each_sees_the_other(memory, other)
        with pytest.raises(OSError):
            os.fstat(fd)  # it belonged to the other, and ended with it


@pytest.mark.linux_only("windows/cuda has bare NT handles")
def test_a_larger_size_fails_when_it_is_mapped_and_the_fd_survives(
    cuda: Device, vulkan: Device, fake: fake_cuda.FakeCuda
) -> None:
    with vulkan.allocate((1000,), dedicated=False) as memory, memory.export_handle(FD) as handle:
        assert isinstance(handle, extmem.FdHandle) and handle.payload is not None
        descriptor = Descriptor.parse(handle.payload.descriptor)
        fd = os.dup(int(handle))
        lie = msgspec.structs.replace(descriptor, allocation_size=descriptor.allocation_size + 1, payload_size=0)
        with pytest.raises(extmem.DriverError, match="cuExternalMemoryGetMappedBuffer.*the exporter's") as caught:
            raw.import_payload(cuda, fd, lie)
        assert caught.value.devices == (cuda.name, memory.descriptor.device_name)
        assert "cuDestroyExternalMemory" in fake.calls
        raw.import_payload(cuda, fd, descriptor).close()


@pytest.mark.parametrize("what", ["stray_pointers", "short_ranges"])
def test_a_pointer_that_is_not_what_was_asked_for_is_not_used(
    what: str, cuda: Device, vulkan: Device, fake: fake_cuda.FakeCuda, name: str
) -> None:
    with vulkan.allocate((5000,), name=name):
        setattr(fake, what, True)
        with pytest.raises(extmem.DriverError, match="the payload was not imported"):
            cuda.open(name)
        assert not {"external memories", "mapped buffers and arrays"} & set(fake.alive())
        setattr(fake, what, False)
        cuda.open(name).close()


def test_the_mapping_goes_before_the_memory(cuda: Device, vulkan: Device, fake: fake_cuda.FakeCuda, name: str) -> None:
    with vulkan.allocate((16,), name=name):
        memory = cuda.open(name)
        fake.calls.clear()
        memory.close()
    assert fake.calls.index("cuMemFree") < fake.calls.index("cuDestroyExternalMemory")


def test_an_image_becomes_a_mipmapped_array(cuda: Device, vulkan: Device, fake: fake_cuda.FakeCuda, name: str) -> None:
    info = vk.ImageCreateInfo(
        image_type=vk.ImageType.TYPE_2D,
        format=vk.Format.R8G8B8A8_UNORM,
        extent=vk.Extent3D(32, 16, 1),
        mip_levels=1,
        array_layers=1,
        samples=vk.SampleCountFlagBits.COUNT_1,
        tiling=vk.ImageTiling.OPTIMAL,
        usage=vk.ImageUsageFlagBits.TRANSFER_SRC,
        p_next=vk.ExternalMemoryImageCreateInfo(W32),
    )
    with vulkan.create_image(info) as image:
        win32 = vk.ExportMemoryWin32HandleInfoKHR(None, 0x8000_0001, name, vk.MemoryDedicatedAllocateInfo(image, None))
        chain = vk.ExportMemoryAllocateInfo(W32, win32)
        size = image.requirements.size
        with vulkan.allocate_memory(vk.MemoryAllocateInfo(size, 0, chain)), cuda.open(name) as other:
            assert int(raw.cuda_array(other))
            assert fake.imports[-1]["flags"] == 1
            for look in (other.read, other.device_array, other.torch):
                with pytest.raises(extmem.UnsupportedError, match=r"image.*extmem\.raw\.cuda_array"):
                    look()
            fake.calls.clear()
        assert fake.calls.index("cuMipmappedArrayDestroy") < fake.calls.index("cuDestroyExternalMemory")


# Refusals.


def _not_payloads() -> dict[str, int]:
    here, there = os.pipe()
    os.close(there)
    return {"pipe": here, "null": os.open("/dev/null", os.O_RDWR), "file": os.memfd_create("no payload")}


@pytest.mark.linux_only("windows/cuda has what is no NT handle of a driver's")
@pytest.mark.parametrize("what", ["pipe", "null", "file"])
def test_what_is_no_payload_is_refused_and_harms_nothing(what: str, cuda: Device, vulkan: Device) -> None:
    with vulkan.allocate((16,), dedicated=False) as memory, memory.export_handle(FD) as handle:
        assert isinstance(handle, extmem.FdHandle) and handle.payload is not None
        descriptor = Descriptor.parse(handle.payload.descriptor)
        fds = _not_payloads()
        for lie in (descriptor, msgspec.structs.replace(descriptor, producer="cuda-vmm", made_by_vulkan=False)):
            with pytest.raises(extmem.ExtmemError) as caught:
                raw.import_payload(cuda, fds[what], lie)
            assert what == "pipe" or "CUDA_ERROR_UNKNOWN" in str(caught.value)
            os.fstat(fds[what])
        for fd in fds.values():
            os.close(fd)
        with cuda.open(handle.duplicate()) as other:
            each_sees_the_other(memory, other)


SECOND = fake_cuda.Gpu(name="Fake Second GPU", uuid=b"fake gpu 000000b")


@contextlib.contextmanager
def two_gpus() -> Iterator[tuple[fake_cuda.FakeCuda, Device, Device]]:
    """A CUDA driver with two GPUs, and a device on each."""
    fake = fake_cuda.FakeCuda([fake_cuda.Gpu(), SECOND])
    with (
        fake_cuda.installed(fake),
        extmem.open_device(uuid=fake_cuda.Gpu().uuid) as one,
        extmem.open_device(uuid=SECOND.uuid) as two,
    ):
        yield fake, one, two
    assert not fake.misuses and not fake.alive()


def test_a_payload_of_another_gpu_is_refused_with_both_names(name: str) -> None:
    with two_gpus() as (fake, one, two), one.allocate((16,), name=name) as memory:
        calls = len(fake.calls)
        with memory.export_handle(SHARED) as handle:
            for source in (name, handle):
                with pytest.raises(extmem.ExtmemError, match=r"Fake Discrete GPU.*Fake Second GPU"):
                    two.open(source)
            assert not handle.closed
        assert "cuMemImportFromShareableHandle" not in fake.calls[calls:], "it could be known before"


def test_memory_of_vulkan_is_opened_on_a_gpu_that_is_not_the_first(vulkan: Device, name: str) -> None:
    with (
        fake_cuda.installed(fake_cuda.FakeCuda([SECOND, fake_cuda.Gpu()])),
        extmem.open_device(kind="cuda", uuid=fake_cuda.Gpu().uuid) as cuda,
        vulkan.allocate((16,), name=name) as memory,
        cuda.open(name) as other,
    ):
        each_sees_the_other(memory, other)


@pytest.mark.linux_only("windows/cuda has bare NT handles")
def test_whoever_states_another_gpu_is_found_out_by_the_drivers_word() -> None:
    with two_gpus() as (_, one, two), one.allocate((16,)) as memory:
        handle = memory.export_handle(FD)
        assert isinstance(handle, extmem.FdHandle) and handle.payload is not None
        lie = msgspec.structs.replace(Descriptor.parse(handle.payload.descriptor), device_uuid=SECOND.uuid)
        with handle, pytest.raises(extmem.DriverError, match="is on CUDA device 0.*Fake Second GPU is device 1"):
            raw.import_payload(two, int(handle), lie)


LIES = {
    "suballocated, as dedicated": (False, {"dedicated": vk.BufferCreateInfo(size=1000)}, "dedicated: True"),
    "dedicated, as suballocated": (True, {"dedicated": None}, "dedicated: False"),
    "smaller": (False, {"allocation_size": 1, "payload_size": 1, "array": None}, "a size of 1 bytes"),
    "another API's": (False, {"producer": "cuda-vmm", "made_by_vulkan": False}, "producer 'cuda-vmm'"),
}


@pytest.mark.parametrize("what", LIES)
def test_a_stated_description_that_the_handle_contradicts_is_refused_before_the_driver_is_asked(
    what: str, cuda: Device, vulkan: Device, fake: fake_cuda.FakeCuda
) -> None:
    dedicated, changes, text = LIES[what]
    with vulkan.allocate((1000,), dedicated=dedicated) as memory, memory.export_handle(SHARED) as handle:
        assert isinstance(handle, (extmem.FdHandle, extmem.NtHandle))
        descriptor = memory.descriptor
        with pytest.raises(extmem.DescriptorError, match=f"description has {text}"):
            raw.import_payload(cuda, handle, msgspec.structs.replace(descriptor, **changes))
        assert not handle.closed and not fake.imports
        with raw.import_payload(cuda, handle, descriptor) as other:
            assert handle.closed == (SHARED == FD), "an NT handle stays the caller's"
            each_sees_the_other(memory, other)


# Host payloads.


def test_a_host_payload_is_registered_once_and_seen_by_both(cuda: Device, fake: fake_cuda.FakeCuda, name: str) -> None:
    with extmem.open_device(kind="host") as host, host.allocate((1000,), name=name) as memory:
        memory.numpy()[:] = 5
        with cuda.open(name) as one:
            with extmem.open_device(kind="cuda") as again, again.open(name) as two:
                assert set(two.read_bytes()) == {5}
                one.fill(6)
                assert (memory.numpy() == 6).all() and set(two.read_bytes()) == {6}
            assert fake.calls.count("cuMemHostRegister") == 1 and fake.alive()["registrations"] == 1
            assert one.host_visible and (one.numpy() == 6).all()
        assert fake.alive()["registrations"] == 0


@pytest.mark.linux_only("the host's payloads are files")
@pytest.mark.parametrize("described", [True, False], ids=["our own fd", "a bare fd"])
@pytest.mark.parametrize("kind", ["cuda", "vulkan"])
def test_a_host_payloads_fd_is_opened_as_its_name_is(
    described: bool, kind: str, fake: fake_cuda.FakeCuda, cuda: Device, vulkan: Device
) -> None:
    device = {"cuda": cuda, "vulkan": vulkan}[kind]
    with extmem.open_device(kind="host") as host, host.allocate((1000,), "uint16") as memory:
        handle = memory.export_handle(FD)
        assert isinstance(handle, extmem.FdHandle)
        if not described:
            handle = raw.fd_handle(handle.take())
        with device.open(handle) as one:
            assert handle.closed and one.device is device and one.read().shape == (1000,)
            with device.open(memory.export_handle(FD)) as two:
                one.fill(6)
                assert set(two.read_bytes()) == {6} and (memory.numpy() == 0x0606).all()
        if kind == "cuda":
            assert fake.calls.count("cuMemHostRegister") == 1 and fake.alive()["registrations"] == 0


@pytest.mark.linux_only("the host's payloads are files")
def test_a_host_payloads_fd_survives_what_fails(cuda: Device, fake: fake_cuda.FakeCuda) -> None:
    with extmem.open_device(kind="host") as host, host.allocate((1000,)) as memory:
        with memory.export_handle(FD) as handle:
            fake.fail(1, fake_cuda.OUT_OF_MEMORY, command="cuMemHostRegister")
            with pytest.raises(extmem.OutOfMemoryError):
                cuda.open(handle)
            assert not handle.closed
        with raw.fd_handle(os.memfd_create("no payload")) as other:
            with pytest.raises(extmem.DescriptorError, match="carries no descriptor; state one"):
                cuda.open(other)
            assert not other.closed
        cuda.open(memory.export_handle(FD)).close()


def test_a_host_payload_for_reading_is_registered_so(cuda: Device, fake: fake_cuda.FakeCuda, name: str) -> None:
    with extmem.open_device(kind="host") as host, host.allocate((8,), name=name, access=extmem.Access.READ) as memory:
        memory.numpy()[:] = 5
        with cuda.open(name) as other:
            assert other.read_only and set(other.read_bytes()) == {5}
            with pytest.raises(extmem.AccessDeniedError):
                other.fill(1)


@pytest.mark.parametrize("lacking", ["registers_read_only", "maps_host"])
def test_a_gpu_that_cannot_register_it_reports_it(lacking: str, name: str) -> None:
    fake = fake_cuda.FakeCuda([fake_cuda.Gpu(**{lacking: False})])
    with (
        fake_cuda.installed(fake),
        extmem.open_device(kind="cuda") as cuda,
        extmem.open_device(kind="host") as host,
        host.allocate((8,), name=name, access=extmem.Access.READ),
        pytest.raises(extmem.UnsupportedError, match=cuda.name),
    ):
        cuda.open(name)
    assert not fake.misuses and not fake.alive()


def test_pages_that_somebody_else_registered_are_refused(cuda: Device, fake: fake_cuda.FakeCuda, name: str) -> None:
    fake.fail(1, 712, command="cuMemHostRegister")
    with extmem.open_device(kind="host") as host, host.allocate((8,), name=name):
        with pytest.raises(extmem.DriverError, match="registered with CUDA already"):
            cuda.open(name)
        cuda.open(name).close()
