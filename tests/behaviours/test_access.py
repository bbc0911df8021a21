"""B16–B25: access masks."""

from __future__ import annotations

import pytest

import extmem
from extmem import errors, vk
from extmem.api import Device
from extmem.handles import Access
from extmem.manager import manager
from extmem.vk import SecurityAttributes
from tests.behaviours.platforms import TYPE_NAME
from tests.behaviours.steps import (
    ACCESS_DENIED,
    GENERIC_ALL,
    GENERIC_WRITE,
    READ,
    READ_CONTROL,
    READ_WRITE,
    W32,
    WRITE_BIT,
    by_name,
    export,
    get,
    import_win32,
    nt,
    put,
)
from tests.systems import on_linux, on_windows

EVERYBODY_EVERYTHING = SecurityAttributes("D:(A;;GA;;;WD)")


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        (READ, 0x20000),
        (GENERIC_WRITE, 0x20001),
        (0x2000_0000, 0x20000),
        (GENERIC_ALL, 0xF0001),
        (READ_WRITE, 0x20001),
        (READ | GENERIC_WRITE | 0x2000_0000, 0x20001),
        (WRITE_BIT, 0x1),
        on_linux(0x1F0001, 0x1F0001, reason="what shared memory can do, where Windows has sections"),
        on_windows(0x1F0001, 0xF0001, reason="nobody can wait for a section"),
    ],
)
def test_B16_generic_bits_are_mapped_and_dropped(device: Device, asked: int, granted: int) -> None:
    with export(device, access=asked) as memory, nt(device, memory) as handle:
        assert handle.info.granted_access == granted
        with handle.duplicate(access=asked) as other:
            assert other.access == granted


def test_B17_the_rights_of_shared_memory_are_these(device: Device, name: str) -> None:
    with export(device, name=name, security=EVERYBODY_EVERYTHING):
        for asked, granted in ((READ, 0x20000), (GENERIC_WRITE, 0x20001), (GENERIC_ALL, 0xF0001)):
            with extmem.open_handle(name, asked) as handle:
                assert handle.access == granted
        with pytest.raises(errors.AccessDeniedError, match="0x00000002"):
            extmem.open_handle(name, 0x2)  # a right of synchronization objects, not of memory


def test_B18_open_with_access_0_is_denied_after_the_lookup(device: Device, name: str) -> None:
    with pytest.raises(errors.NameNotFoundError):
        extmem.open_handle(name, 0)
    with export(device, name=name):
        with pytest.raises(errors.AccessDeniedError) as error:
            extmem.open_handle(name, 0)
        assert (error.value.ntstatus, error.value.winerror) == (ACCESS_DENIED, 5)
        extmem.open_handle(name, READ).close()


def test_B19_an_export_with_access_0_gives_a_handle_without_rights(device: Device, name: str) -> None:
    with export(device, name=name, access=0) as memory, nt(device, memory) as handle:
        assert handle.access == 0
        with pytest.raises(errors.AccessDeniedError):
            import_win32(device, handle)
        assert not handle.closed
        by_name(device, name).close()  # what others get is determined by the object's security descriptor


def test_B20_a_duplicate_with_access_0_has_no_rights(device: Device) -> None:
    with export(device) as memory, nt(device, memory) as handle, handle.duplicate(access=0) as other:
        assert other.access == 0
        assert handle.access == 0x20001


@pytest.mark.parametrize("standard", [READ_CONTROL, 0x10000, 0x20000 | 0x10000])
def test_B21_a_handles_access_does_not_cap_later_opens(device: Device, name: str, standard: int) -> None:
    with export(device, name=name, access=standard) as memory, nt(device, memory) as handle:
        assert handle.access == standard
        for asked in (READ, GENERIC_WRITE, GENERIC_ALL):
            with extmem.open_handle(name, asked) as other:
                assert other.access & READ_CONTROL


def test_B22_without_export_attributes_the_rights_permit_reading_and_writing(device: Device) -> None:
    info = vk.MemoryAllocateInfo(4096, 0, vk.ExportMemoryAllocateInfo(W32))
    with device.allocate_memory(info) as memory, nt(device, memory) as handle:
        assert handle.access & READ_CONTROL and handle.access & WRITE_BIT
        with import_win32(device, handle) as other:
            assert not other.read_only
            put(other, b"both")
            assert get(memory) == b"both"


def test_B23_bits_that_do_not_exist_are_denied(device: Device, name: str) -> None:
    with export(device, name=name) as memory, nt(device, memory) as handle:
        for mask in (0xFFFF_FFFF, 0x20002, 0x0100_0000):
            with pytest.raises(errors.AccessDeniedError):
                handle.duplicate(access=mask)
            with pytest.raises(errors.AccessDeniedError):
                extmem.open_handle(name, mask)
        assert not handle.closed


@pytest.mark.wine_differs("B33: Wine gives owners all standard rights, whatever an ACE for owner rights says")
def test_B23_maximum_allowed_grants_what_an_ace_for_the_owner_permits(device: Device, name: str) -> None:
    with export(device, name=name, security=SecurityAttributes("D:(A;;GR;;;OW)")):
        with extmem.open_handle(name, Access.MAXIMUM_ALLOWED) as handle:
            assert handle.access == READ_CONTROL


def test_B23_maximum_allowed_grants_what_the_security_permits(device: Device, name: str) -> None:
    with export(device, name=name):
        with extmem.open_handle(name, Access.MAXIMUM_ALLOWED) as handle:
            assert handle.access & 0xF0001 == 0xF0001


def test_B24_importing_needs_the_right_to_read_and_writing_the_right_to_write(device: Device) -> None:
    with export(device) as memory, nt(device, memory) as handle:
        with handle.duplicate(access=WRITE_BIT) as blind:
            with pytest.raises(errors.AccessDeniedError):
                import_win32(device, blind)
            assert not blind.closed and blind.access == WRITE_BIT
        with handle.duplicate(access=READ) as reading, import_win32(device, reading) as other:
            assert other.read_only
            put(memory, b"look")
            assert get(other) == b"look"
            with pytest.raises(TypeError):
                put(other, b"no!!")
        with import_win32(device, handle) as writing:
            assert not writing.read_only


def test_B25_the_type_name_is_that_of_shared_memory(device: Device, name: str) -> None:
    with export(device, name=name) as memory, nt(device, memory) as handle, extmem.open_handle(name) as other:
        assert handle.info.type_name == other.info.type_name == TYPE_NAME
        assert manager().info(int(handle)).type_name == TYPE_NAME
