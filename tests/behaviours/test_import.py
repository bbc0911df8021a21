"""B88–B90, B93–B100, B104: importing."""

from __future__ import annotations

import os

import msgspec
import pytest

import extmem
from extmem import errors, vk
from extmem.api import Buffer, Device
from extmem.devices.host.backend import HostBackend
from extmem.handles import KmtHandle
from extmem.objects import Refused, Status
from tests.behaviours.platforms import by_fd
from tests.behaviours.steps import (
    ALICE,
    FD,
    GENERIC_ALL,
    INVALID_HANDLE,
    INVALID_PARAMETER,
    KMT,
    SIZE,
    W32,
    by_name,
    export,
    fd,
    get,
    import_any,
    import_fd,
    import_win32,
    kmt,
    model,
    nt,
    put,
)
from tests.systems import on_linux

_WIN32 = "VUID-VkImportMemoryWin32HandleInfoKHR-handleType"
# The rules that are broken, by whether it is an fd and whether the device itself differs.
_SAME = {
    (False, True): {
        "VUID-VkImportMemoryWin32HandleInfoKHR-handle-00659",
        "VUID-VkImportMemoryWin32HandleInfoKHR-handle-01518",
    },
    (False, False): {"VUID-VkImportMemoryWin32HandleInfoKHR-handle-01518"},
    (True, True): {"VUID-VkImportMemoryFdInfoKHR-fd-00668", "VUID-VkImportMemoryFdInfoKHR-fd-01746"},
    (True, False): {"VUID-VkImportMemoryFdInfoKHR-fd-01746"},
}


def test_B88_handle_or_name_never_both_and_never_neither(device: Device, name: str) -> None:
    with export(device, name=name) as memory, nt(device, memory) as handle:
        with pytest.raises(extmem.RuleViolation) as error:
            import_win32(device, handle, name)
        assert "VUID-VkImportMemoryWin32HandleInfoKHR-handle-01441" in error.value.vuids
        with pytest.raises(extmem.RuleViolation) as error:
            import_win32(device, None, None)
        assert {f"{_WIN32}-01440", f"{_WIN32}-00661"} & set(error.value.vuids)
        assert not handle.closed
        import_win32(device, handle).close()
        by_name(device, name).close()


def test_B89_names_are_for_nt_types_alone(device: Device, name: str) -> None:
    with export(device, name=name), pytest.raises(extmem.RuleViolation) as error:
        import_win32(device, None, name, kind=KMT)
    assert f"{_WIN32}-01439" in error.value.vuids


def test_B90_an_import_of_type_0_is_a_plain_allocation(device: Device) -> None:
    with import_win32(device, 0x1234, None, kind=0) as memory:
        put(memory, b"new!")
        assert get(memory) == b"new!" and get(memory, at=4) == b"\0\0\0\0"
        assert memory.record.import_handle_type == 0
    info = vk.MemoryAllocateInfo(SIZE, 0, vk.ImportMemoryFdInfoKHR(0, 12345))
    device.allocate_memory(info).close()


@pytest.mark.parametrize("kind", [W32, KMT, on_linux(FD)])
def test_B93_every_import_is_its_own_memory_over_the_same_bytes(
    device: Device, kind: vk.ExternalMemoryHandleTypeFlagBits
) -> None:
    with export(device, types=kind) as memory, extmem.open_device() as another:

        def imported(on: Device) -> extmem.DeviceMemory:
            with memory.export_handle(kind) as handle:
                return import_any(on, handle, kind=kind)

        first, second, third = imported(device), imported(device), imported(another)
        assert len({id(m) for m in (memory, first, second, third)}) == 4
        for number, writer in enumerate((memory, first, second, third)):
            put(writer, bytes([number] * 4))
            assert {get(reader) for reader in (memory, first, second, third)} == {bytes([number] * 4)}
        first.close()
        put(memory, b"more")
        assert get(second) == get(third) == b"more"
        second.close()
        third.close()


@pytest.mark.parametrize(("size", "index"), [(SIZE * 2, 0), (SIZE - 64, 0), (SIZE, 1)])
def test_B94_size_and_memory_type_must_be_the_exporters(device: Device, size: int, index: int) -> None:
    with export(device) as memory, nt(device, memory) as handle:
        with pytest.raises(extmem.RuleViolation) as error:
            import_win32(device, handle, size=size, index=index)
        assert "VUID-VkMemoryAllocateInfo-allocationSize-01743" in error.value.vuids
        assert str(SIZE) in str(error.value) if size != SIZE else "1" in str(error.value)
        assert not handle.closed
        import_win32(device, handle).close()


@by_fd
@pytest.mark.parametrize(("size", "index"), [(SIZE * 2, 0), (SIZE - 64, 0), (SIZE, 1)])
def test_B94_so_for_fds(device: Device, size: int, index: int) -> None:
    with export(device, types=FD) as memory, fd(device, memory) as descriptor:
        with pytest.raises(extmem.RuleViolation) as error:
            import_fd(device, descriptor, size=size, index=index)
        assert "VUID-VkMemoryAllocateInfo-allocationSize-01742" in error.value.vuids
        assert not descriptor.closed


class _OtherGpu(HostBackend):
    """Open the host device with the identity of another device."""

    def __init__(self) -> None:
        super().__init__()
        self.identity = msgspec.structs.replace(self.identity, device_uuid=b"another device !", device_name="another")


class _OtherDriver(HostBackend):
    """Open the host device with the identity of another driver."""

    def __init__(self) -> None:
        super().__init__()
        self.identity = msgspec.structs.replace(self.identity, driver_uuid=b"another driver !")


@pytest.mark.parametrize("backend", [_OtherGpu, _OtherDriver])
@pytest.mark.parametrize("kind", [W32, KMT, on_linux(FD)])
def test_B95_device_and_driver_must_be_the_exporters(
    device: Device, backend: type[HostBackend], kind: vk.ExternalMemoryHandleTypeFlagBits
) -> None:
    with export(device, types=kind) as memory, Device(backend()) as other, extmem.open_device() as same:
        with memory.export_handle(kind) as handle:
            with pytest.raises(extmem.RuleViolation) as error:
                import_any(other, handle, kind=kind)
            assert _SAME[kind == FD, backend is _OtherGpu] <= set(error.value.vuids)
            assert not handle.closed
            import_any(same, handle, kind=kind).close()  # another VkDevice on the same physical device


def _buffer(device: Device, size: int = SIZE, usage: int = int(vk.BufferUsageFlagBits.TRANSFER_SRC)) -> Buffer:
    return device.create_buffer(
        vk.BufferCreateInfo(size=size, usage=usage, p_next=vk.ExternalMemoryBufferCreateInfo(W32))
    )


def _import_for(device: Device, handle: object, buffer: Buffer | None) -> extmem.DeviceMemory:
    dedicated = vk.MemoryDedicatedAllocateInfo(None, buffer) if buffer is not None else None
    return device.allocate_memory(
        vk.MemoryAllocateInfo(SIZE, 0, vk.ImportMemoryWin32HandleInfoKHR(W32, handle, None, dedicated))
    )


def test_B96_a_dedicated_import_needs_a_dedicated_payload_for_the_same_resource(device: Device) -> None:
    with _buffer(device) as own, _buffer(device) as twin, _buffer(device, usage=0x20) as different:
        chain = vk.ExportMemoryAllocateInfo(W32, vk.MemoryDedicatedAllocateInfo(None, own))
        with device.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0, chain)) as memory, nt(device, memory) as handle:
            _import_for(device, handle, twin).close()
            with pytest.raises(extmem.RuleViolation) as error:
                _import_for(device, handle, different)
            assert "VUID-VkMemoryDedicatedAllocateInfo-buffer-01877" in error.value.vuids
        with export(device) as suballocated, nt(device, suballocated) as handle:
            with pytest.raises(extmem.RuleViolation) as error:
                _import_for(device, handle, twin)
            assert "VUID-VkMemoryDedicatedAllocateInfo-buffer-01877" in error.value.vuids
            assert not handle.closed
            _import_for(device, handle, None).close()


@pytest.mark.parametrize("garbage", [0x3FFF_FFF0, 4092])
def test_B97_a_garbage_handle_is_invalid_and_the_rule_is_named(device: Device, garbage: int) -> None:
    with pytest.raises(errors.InvalidHandleError) as error:
        import_win32(device, garbage)
    assert (error.value.ntstatus, error.value.winerror) == (INVALID_HANDLE, 6)
    assert error.value.result == vk.Result.ERROR_INVALID_EXTERNAL_HANDLE
    assert [v.vuid for v in error.value.violations] == [f"{_WIN32}-00661"]


def test_B98_an_object_of_another_type_is_no_memory() -> None:
    manager = model()
    process = manager.attach(ALICE, 1)
    mutex = manager.open_foreign(process, manager.insert_foreign("m", "Mutant"), GENERIC_ALL)
    with pytest.raises(Refused) as refusal:
        manager.import_by_handle(process, mutex)
    assert refusal.value.status is Status.OBJECT_TYPE_MISMATCH


def test_B99_the_two_kinds_of_handle_are_not_interchangeable(device: Device) -> None:
    with export(device) as one, nt(device, one) as handle, export(device, types=KMT) as two:
        number = kmt(device, two)
        with pytest.raises(errors.InvalidHandleError) as error:
            import_win32(device, int(handle), kind=KMT)
        assert error.value.ntstatus == INVALID_PARAMETER
        with pytest.raises(errors.InvalidHandleError) as error:
            import_win32(device, int(number), kind=W32)
        assert error.value.ntstatus == INVALID_HANDLE
        assert not handle.closed
        import_win32(device, handle).close()
        import_win32(device, KmtHandle(int(number)), kind=KMT).close()


def test_B100_errors_carry_the_results_that_the_command_may_return(device: Device, name: str) -> None:
    allowed = {
        vk.Result.ERROR_OUT_OF_HOST_MEMORY,
        vk.Result.ERROR_OUT_OF_DEVICE_MEMORY,
        vk.Result.ERROR_INVALID_EXTERNAL_HANDLE,
        vk.Result.ERROR_TOO_MANY_OBJECTS,
    }
    with pytest.raises(errors.NameNotFoundError) as not_found:
        by_name(device, name)
    with pytest.raises(errors.OutOfMemoryError) as too_much:
        device.allocate_memory(vk.MemoryAllocateInfo(device.memory_properties.memory_heaps[0].size, 0))
    assert not_found.value.result == vk.Result.ERROR_INVALID_EXTERNAL_HANDLE
    assert too_much.value.result in allowed
    assert vk.Result.ERROR_INVALID_EXTERNAL_HANDLE == -1000072003


def test_B100_so_for_fds() -> None:
    with extmem.open_device(check="off") as unchecked, pytest.raises(errors.DriverError) as refused:
        read, write = os.pipe()
        try:
            import_fd(unchecked, read)
        finally:
            os.close(read)
            os.close(write)
    assert refused.value.result == vk.Result.ERROR_INVALID_EXTERNAL_HANDLE


def test_B104_imported_memory_is_mapped_like_any_other(device: Device, name: str) -> None:
    with export(device, name=name) as memory, by_name(device, name) as a, by_name(device, name) as b:
        for turn in range(8):
            writer, readers = ((memory, (a, b)), (a, (memory, b)), (b, (memory, a)))[turn % 3]
            data = os.urandom(SIZE)
            put(writer, data)
            for reader in readers:
                assert get(reader, SIZE) == data
