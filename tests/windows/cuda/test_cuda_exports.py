"""Memory that CUDA makes, shared by NT handle: the driver's parameters, the owners of the handles, and names."""

from __future__ import annotations

import pickle

import pytest

import extmem
from extmem import Access, errors, raw, vk
from extmem.api import Device, DeviceMemory
from extmem.handles import NtHandle
from extmem.manager import manager
from extmem.manager.windows.security_descriptors import user_sid
from extmem.testing import fake_cuda
from extmem.testing.children import Peer
from tests.behaviours.steps import FD, KMT, W32

EVERYBODY = "D:(A;;GA;;;WD)"


def each_sees_the_other(one: DeviceMemory, other: DeviceMemory) -> None:
    one.fill(3)
    assert set(other.read_bytes()) == {3}
    other.fill(4)
    assert set(one.read_bytes()) == {4}


@pytest.fixture
def there(fake: fake_cuda.FakeCuda) -> Peer:
    """Another process, whose `device` is the same fake GPU's CUDA device."""
    with Peer() as other:
        other(f"device = {fake_cuda.elsewhere(fake)}")
        yield other


# The driver's parameters.


def test_the_driver_is_told_who_may_have_it(cuda: Device, fake: fake_cuda.FakeCuda, name: str) -> None:
    with cuda.allocate((16,)):
        assert [user_sid() in sddl and ";;;WD" not in sddl for sddl in fake.security] == [True]
    with cuda.allocate((16,), name=name, security=EVERYBODY):
        assert ";;;WD" in fake.security[-1]
    fake.security.clear()
    cuda.allocate_memory(vk.MemoryAllocateInfo(10, 0)).close()
    assert not fake.security, "memory of this process alone has no attributes"


def test_a_security_descriptor_that_is_none_never_reaches_the_driver(
    cuda: Device, fake: fake_cuda.FakeCuda, name: str
) -> None:
    cuda.allocate((16,)).close()
    before = fake.calls.count("cuMemCreate")
    with pytest.raises(errors.SecurityDescriptorError, match="position"):
        cuda.allocate((16,), name=name, security="D:(A;;GA;;;nobody)")
    assert fake.calls.count("cuMemCreate") == before
    cuda.allocate((16,), name=name, security=EVERYBODY).close()


# Handles.


def test_the_driver_is_asked_for_one_handle_and_programs_get_copies(cuda: Device, fake: fake_cuda.FakeCuda) -> None:
    with cuda.allocate((16,)) as memory:
        with memory.export_handle(W32) as one, memory.export_handle(W32) as two:
            assert isinstance(one, NtHandle) and isinstance(two, NtHandle)
            assert int(one) != int(two) and one.same_object(two)
            assert one.info.type_name == "DxgkSharedResource" and not one.info.inherit and not one.info.name
            assert fake.calls.count("cuMemExportToShareableHandle") == 1
            with cuda.open(one) as other:
                each_sees_the_other(memory, other)
            assert not one.closed, "an NT handle stays the caller's"


def test_a_handle_outlives_the_memory_and_says_in_this_process_what_it_is(cuda: Device) -> None:
    memory = cuda.allocate((16,))
    memory.fill(5)
    with memory.export_handle(W32) as handle, cuda.open(handle) as held:
        memory.close()
        assert set(held.read_bytes()) == {5}


def test_a_handle_for_reading_reads(cuda: Device, name: str) -> None:
    with cuda.allocate((16,), name=name, access=Access.READ) as memory:
        memory.fill(5)
        with memory.export_handle(W32) as handle, cuda.open(handle) as other:
            assert isinstance(handle, NtHandle) and not handle.info.granted_access & 1
            assert other.read_only and set(other.read_bytes()) == {5}
            with pytest.raises(errors.AccessDeniedError):
                other.fill(1)
    with cuda.allocate((16,), name=name) as memory, memory.export_handle(W32) as handle, cuda.open(handle) as other:
        other.fill(1)


def test_it_is_inherited_where_the_export_states_it(cuda: Device) -> None:
    with cuda.allocate((16,), inherit=True) as memory, memory.export_handle(W32) as handle:
        assert isinstance(handle, NtHandle) and handle.info.inherit


@pytest.mark.parametrize("kind", [FD, KMT])
def test_other_types_are_refused_by_rule(kind: vk.ExternalMemoryHandleTypeFlagBits, cuda: Device) -> None:
    with pytest.raises(errors.ExtmemError, match=str(kind.name)):
        cuda.allocate((16,), handle_types=int(kind))
    cuda.allocate((16,), handle_types=int(W32)).close()


def test_what_is_not_exported_does_not_go_through_pickle(cuda: Device) -> None:
    """What the test of the same name in process/cuda does."""
    with cuda.allocate_memory(vk.MemoryAllocateInfo(10, 0)) as private, pytest.raises(errors.ExtmemError):
        pickle.dumps(private)


def test_what_a_framework_made_is_adopted_and_what_cannot_be_exported_is_refused(cuda: Device) -> None:
    with cuda.allocate((100_000,)) as memory:
        place = memory.device_array()
        with raw.adopt_cuda(cuda, place.pointer, memory.size) as adopted, adopted.export_handle(W32) as handle:
            with cuda.open(handle) as other:
                each_sees_the_other(memory, other)
        del place
    with pytest.raises(errors.UnsupportedError, match="allocate it through extmem"):
        raw.adopt_cuda(cuda, 4096, 4096)


# Names.


def test_a_name_leads_other_processes_to_it(cuda: Device, there: Peer, name: str) -> None:
    with cuda.allocate(5000, name=name) as memory:
        memory.fill(5)
        there("other = device.open(name.upper())", name=name)  # names of GPU memory ignore case (B5)
        assert there("set(other.read_bytes())") == {5}
        there("other.fill(6)")
        assert set(memory.read_bytes()) == {6}
        assert memory.name == name
    assert there("set(other.read_bytes())") == {6}, "it keeps the payload"
    with pytest.raises(errors.NameNotFoundError):
        cuda.open(name)
    there("other.close()\ndevice.close()")


def test_a_handle_keeps_the_name_after_the_memory(cuda: Device, there: Peer, name: str) -> None:
    with cuda.allocate(5000, name=name) as memory:
        memory.fill(5)
        handle = memory.export_handle(W32)
    assert there("with device.open(name) as other: found = set(other.read_bytes())\nfound", name=name) == {5}
    assert isinstance(handle, NtHandle)
    handle.close()
    with pytest.raises(errors.NameNotFoundError):
        cuda.open(name)
    there("device.close()")


def test_a_name_ends_with_its_exporter(cuda: Device, there: Peer, name: str) -> None:
    there("memory = device.allocate(5000, name=name)\nmemory.fill(7)", name=name)
    with pytest.raises(errors.NameTakenError):
        cuda.allocate((16,), name=name)
    with cuda.open(name) as other:
        there.kill()
        assert set(other.read_bytes()) == {7}
        with pytest.raises(errors.NameNotFoundError):
            manager().import_by_name(name)
        with cuda.allocate((16,), name=name) as mine:
            assert mine.record is not other.record


def test_a_handle_by_name_is_described_as_the_memory_is(cuda: Device, name: str) -> None:
    with cuda.allocate((16,), name=name) as memory:
        with extmem.open_handle(name, Access.READ) as handle:
            assert handle.info.type_name == "DxgkSharedResource" and not handle.info.granted_access & 1
            with cuda.open(handle) as other:
                assert other.read_only and other.descriptor == memory.descriptor
        with pytest.raises(errors.AccessDeniedError):
            extmem.open_handle(name, 0)
        with pytest.raises(errors.NameNotFoundError):
            extmem.open_handle(f"{name} of nobody")


def test_what_is_offered_for_reading_is_opened_for_reading_alone(cuda: Device, there: Peer, name: str) -> None:
    with cuda.allocate((16,), name=name, access=Access.READ):
        there("import extmem", name=name)
        assert there("with device.open(name) as other: found = other.read_only\nfound", name=name) is True
        refused = "try:\n    extmem.open_handle(name, extmem.Access.READ_WRITE)\nexcept extmem.AccessDeniedError:\n"
        assert there(f"found = False\n{refused}    found = True\nfound", name=name) is True
    there("device.close()")


@pytest.mark.parametrize("first", ["cuda", "vulkan", "host"])
@pytest.mark.parametrize("second", ["cuda", "vulkan", "host"])
def test_a_name_is_one_payloads_whoever_made_it(
    first: str, second: str, cuda: Device, vulkan: Device, name: str
) -> None:
    with extmem.open_device(kind="host") as host:
        devices = {"cuda": cuda, "vulkan": vulkan, "host": host}
        with devices[first].allocate((16,), name=name) as memory:
            memory.fill(5)
            with pytest.raises(errors.NameTakenError):
                devices[second].allocate((16,), name=name)
            with devices[first].open(name) as other:
                assert set(other.read_bytes()) == {5}
        devices[second].allocate((16,), name=name).close()


def test_a_companion_that_leads_nowhere_is_no_name(cuda: Device, there: Peer, name: str) -> None:
    """The exporter's handle is closed behind extmem's back: the value belongs to another object, or to none."""
    there("memory = device.allocate(5000, name=name)", name=name)
    with cuda.open(name) as other:
        other.fill(1)
    there(
        "from extmem.handles._win32 import calls\nfrom extmem.manager import manager\n"
        "[held] = manager()._references.values()\ncalls.close_handle(held.companion.memory.fd)"
    )
    with pytest.raises(errors.NameNotFoundError):
        cuda.open(name)
    there.kill()
