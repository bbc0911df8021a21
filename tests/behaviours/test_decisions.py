"""G1–G9: decisions on behaviour that no authoritative source specifies."""

from __future__ import annotations

import mmap
import os

import pytest

import extmem
from extmem import errors, vk
from extmem.api import Device
from extmem.handles import Access, NtHandle
from extmem.manager import manager
from extmem.objects import Refused, Share, Status
from extmem.testing.children import Peer
from extmem.vk import SecurityAttributes
from tests.behaviours.platforms import by_fd
from tests.behaviours.steps import (
    ALICE,
    COLLISION,
    FD,
    GENERIC_ALL,
    KMT,
    PEER,
    READ,
    SIZE,
    W32,
    by_name,
    export,
    fd,
    get,
    import_fd,
    import_win32,
    kmt,
    model,
    nt,
    put,
)


def test_G1_repeated_exports_are_duplicates_with_values_of_their_own(device: Device) -> None:
    with export(device) as memory, nt(device, memory) as first:
        again = memory.export_handle(W32)
        assert isinstance(again, NtHandle)
        with again:
            assert int(again) != int(first) and again.same_object(first)


def test_G2_a_taken_name_carries_vulkans_and_windows_error(device: Device, name: str) -> None:
    with export(device, name=name), pytest.raises(errors.NameTakenError) as error:
        export(device, name=name)
    assert error.value.result == vk.Result.ERROR_INVALID_EXTERNAL_HANDLE
    assert (error.value.ntstatus, error.value.winerror) == (COLLISION, 183)


def test_G3_export_from_imported_follows_the_devices_answer(device: Device) -> None:
    answer = device.get_physical_device_external_buffer_properties(
        vk.PhysicalDeviceExternalBufferInfo(usage=vk.BufferUsageFlagBits.TRANSFER_SRC, handle_type=W32)
    ).external_memory_properties
    with export(device) as memory, nt(device, memory) as handle:
        for kind in (W32, FD, KMT):
            source = vk.ImportMemoryWin32HandleInfoKHR(W32, handle, None, vk.ExportMemoryAllocateInfo(kind))
            info = vk.MemoryAllocateInfo(SIZE, 0, source)
            if answer.export_from_imported_handle_types & kind:
                device.allocate_memory(info).close()
            else:
                with pytest.raises(extmem.RuleViolation):
                    device.allocate_memory(info)


@by_fd
def test_G4_a_read_only_import_is_read_only_to_the_kernel(device: Device, name: str, peer: Peer) -> None:
    with export(device, name=name, types=W32 | FD, security=SecurityAttributes("D:(A;;GR;;;OW)")) as memory:
        put(memory, b"safe")
        with by_name(device, name) as reading:
            assert reading.read_only and get(reading) == b"safe"
            number = reading.holding.allocation.fd
            with pytest.raises(PermissionError):
                mmap.mmap(number, SIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
            with pytest.raises(OSError):
                os.pwrite(number, b"evil", 0)
        # in another process, which never had more access than that
        peer(PEER + "\nimport mmap")
        peer("memory = by_name(device, name)\nnumber = memory.holding.allocation.fd", name=name)
        assert peer("memory.read_only, get(memory)") == (True, b"safe")
        assert peer.fails("mmap.mmap(number, SIZE, mmap.MAP_SHARED, 3)").is_a(PermissionError)
        assert peer.fails("os.open(f'/proc/self/fd/{number}', os.O_RDWR)").is_a(OSError)
        assert peer.fails("put(memory, b'evil')").is_a(TypeError)
        assert get(memory) == b"safe"
        put(memory, b"mine")
        assert peer("get(memory)") == b"mine"


def test_G4_write_access_imports_writable(device: Device, name: str) -> None:
    with export(device, name=name) as memory, by_name(device, name) as other:
        assert not other.read_only
        put(other, b"fine")
        assert get(memory) == b"fine"


@pytest.mark.linux_only("the broker's part of G5; tests/windows has the kernel's")
def test_G5_global_names_need_a_system_wide_object_manager(device: Device, name: str) -> None:
    with pytest.raises(errors.UnsupportedError, match="system-wide broker") as error:
        export(device, name=f"Global\\{name}")
    assert error.value.requires_one_of == ("a system broker",)
    for prefix in ("Global", "global", "Local\\Global"):
        with pytest.raises((errors.UnsupportedError, errors.AccessDeniedError)):
            by_name(device, f"{prefix}\\{name}")
    export(device, name=f"Local\\{name}").close()


def test_G8_a_failed_import_by_nt_handle_leaves_it_open(device: Device) -> None:
    with export(device) as memory, nt(device, memory) as handle:
        value = int(handle)
        with pytest.raises(extmem.RuleViolation):
            import_win32(device, handle, size=SIZE * 2)
        assert int(handle) == value
        import_win32(device, handle).close()


def test_G6_a_name_of_another_type_is_a_type_mismatch_as_since_vista() -> None:
    manager = model()
    process = manager.attach(ALICE, 1)
    manager.insert_foreign("X", "Semaphore")
    with pytest.raises(Refused) as refusal:
        manager.export(process, ((1, 1),), b"", share=Share.NT, name="X", access=GENERIC_ALL, sddl=None, inherit=False)
    assert refusal.value.status is Status.OBJECT_TYPE_MISMATCH


def test_G7_a_number_can_be_opened_until_the_last_memory_object_goes(device: Device) -> None:
    memory = export(device, types=KMT)
    number = kmt(device, memory)
    with import_win32(device, number, kind=KMT):
        memory.close()
        import_win32(device, number, kind=KMT).close()
    assert not manager().kmt_alive(int(number))


def test_G7_strict_numbers_die_with_their_exporter(name: str) -> None:
    with extmem.open_device(strict_kmt=True) as device:
        memory = export(device, types=KMT)
        number = kmt(device, memory)
        put(memory, b"kept")
        with import_win32(device, number, kind=KMT) as importer:
            memory.close()
            with pytest.raises(errors.InvalidHandleError):
                import_win32(device, number, kind=KMT)
            assert get(importer) == b"kept"


@by_fd
def test_G8_a_failed_import_leaves_the_callers_handle_open(device: Device) -> None:
    with export(device, types=W32 | FD) as memory, nt(device, memory) as handle, fd(device, memory) as descriptor:
        value, number = int(handle), int(descriptor)
        with pytest.raises(extmem.RuleViolation):
            import_win32(device, handle, size=SIZE * 2)
        with pytest.raises(extmem.RuleViolation):
            import_fd(device, descriptor, size=SIZE * 2)
        assert (int(handle), int(descriptor)) == (value, number)
        import_win32(device, handle).close()
        import_fd(device, descriptor).close()


@pytest.mark.parametrize("how", ["name", "handle"])
def test_G9_every_nt_import_pins_the_object_and_its_name(device: Device, name: str, how: str) -> None:
    memory = export(device, name=name)
    handle = nt(device, memory)
    importer = by_name(device, name) if how == "name" else import_win32(device, handle)
    memory.close()
    handle.close()
    extmem.open_handle(name, READ).close()
    importer.close()
    with pytest.raises(errors.NameNotFoundError):
        extmem.open_handle(name, Access.READ)
