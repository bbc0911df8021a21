"""B36–B49: DuplicateHandle, handle information, comparing and closing."""

from __future__ import annotations

import pytest

import extmem
from extmem import errors, raw
from extmem.api import Device
from extmem.manager import manager
from extmem.testing.children import Peer
from extmem.vk import SecurityAttributes
from tests.behaviours.steps import (
    GENERIC_ALL,
    GENERIC_WRITE,
    INVALID_HANDLE,
    KMT,
    NOT_CLOSABLE,
    PEER,
    READ,
    READ_WRITE,
    WRITE_BIT,
    export,
    get,
    import_win32,
    kmt,
    nt,
    put,
)
from tests.systems import on_linux


def test_B36_same_access_and_only_the_inherit_argument_counts(device: Device) -> None:
    with export(device, access=READ) as memory, nt(device, memory) as handle:
        handle.set_info(inherit=True, protect_from_close=True)
        with handle.duplicate() as plain, handle.duplicate(inherit=True) as heir:
            assert len({int(handle), int(plain), int(heir)}) == 3
            assert plain.access == heir.access == handle.access
            assert (plain.info.inherit, heir.info.inherit) == (False, True)
            assert not plain.info.protect_from_close
        handle.set_info(protect_from_close=False)


@pytest.mark.wine_differs("B36: Wine ignores DUPLICATE_SAME_ATTRIBUTES")
def test_B36_same_attributes_copies_the_flags_instead(device: Device) -> None:
    with export(device, access=READ) as memory, nt(device, memory) as handle:
        handle.set_info(inherit=True, protect_from_close=True)
        try:
            with handle.duplicate(same_attributes=True, inherit=False) as same:
                assert same.info.inherit and same.info.protect_from_close
                same.set_info(protect_from_close=False)
        finally:
            handle.set_info(protect_from_close=False)


def test_B37_a_duplicate_has_exactly_the_reduced_access(device: Device) -> None:
    with export(device, access=GENERIC_ALL) as memory, nt(device, memory) as handle:
        for asked, granted in ((READ, 0x20000), (WRITE_BIT, 0x1), (READ_WRITE, 0x20001)):
            with handle.duplicate(access=asked) as other:
                assert other.access == granted


def test_B38_more_access_is_granted_if_the_security_allows_it(device: Device, name: str) -> None:
    with export(device, name=name, access=READ) as memory, nt(device, memory) as handle:
        with handle.duplicate(access=READ_WRITE) as larger:
            assert larger.access == 0x20001


def test_B38_more_access_is_denied_if_the_security_does_not_allow_it(device: Device) -> None:
    with (
        export(device, access=READ_WRITE, security=SecurityAttributes("D:(A;;GR;;;OW)")) as memory,
        nt(device, memory) as handle,
    ):
        with handle.duplicate(access=READ_WRITE) as same:  # within the source's access: always granted
            assert same.access == 0x20001
        with handle.duplicate(access=READ) as smaller:
            with pytest.raises(errors.AccessDeniedError) as error:
                smaller.duplicate(access=READ_WRITE)
            assert error.value.winerror == 5
            assert not smaller.closed and smaller.access == 0x20000


def test_B39_close_source_in_one_process_keeps_the_value(device: Device) -> None:
    with export(device) as memory:
        handle = nt(device, memory)
        value = int(handle)
        with handle.duplicate(close_source=True, inherit=True) as moved:
            assert handle.closed and int(moved) == value
            assert moved.info.inherit and moved.info.handle_count == 1


def test_B39_a_protected_source_stays_and_a_new_value_comes_back(device: Device) -> None:
    with export(device) as memory, nt(device, memory) as handle:
        handle.set_info(protect_from_close=True)
        with handle.duplicate(close_source=True) as other:
            assert not handle.closed and int(other) != int(handle)
            assert other.info.handle_count == 2
        handle.set_info(protect_from_close=False)


def test_B40_close_source_closes_even_where_duplicating_fails(device: Device) -> None:
    with export(device) as memory, nt(device, memory) as other:
        handle = other.duplicate()
        with pytest.raises(errors.AccessDeniedError):
            handle.duplicate(access=0xFFFF_FFFF, close_source=True)
        assert handle.closed
        assert other.info.handle_count == 1


def test_B41_the_lowest_free_value_is_used_again_at_once(device: Device) -> None:
    with export(device) as memory, nt(device, memory) as first, first.duplicate() as second:
        value = int(second)
        third = second.duplicate()
        assert int(third) > value
        second.close()
        with first.duplicate() as again:
            assert int(again) == value
        third.close()


def test_B41_a_closed_handle_object_never_reaches_the_object_that_got_its_value(device: Device) -> None:
    with export(device) as one, export(device) as two:
        handle = nt(device, one)
        value = int(handle)
        handle.close()
        with nt(device, two) as reused:
            assert int(reused) == value
            with pytest.raises(errors.HandleStateError, match=f"{value:#x}.*closed"):
                import_win32(device, handle)
            handle.close()  # closing twice is safe: the value belongs to another object by now
            assert reused.info.handle_count == 1


@pytest.mark.parametrize("value", [0xABCD0, 0x3FFF_FFFC, on_linux(4, reason="every process of Windows has a handle 4")])
def test_B42_an_invalid_source_is_an_invalid_handle(device: Device, value: int) -> None:
    with pytest.raises(errors.InvalidHandleError) as error:
        manager().duplicate(value, desired=None, inherit=False, same_attributes=False, close_source=False, into=None)
    assert (error.value.ntstatus, error.value.winerror) == (INVALID_HANDLE, 6)


def test_B43_a_duplicate_into_another_process_is_a_value_of_that_process_alone(device: Device, peer: Peer) -> None:
    peer(PEER + "\nfrom extmem import raw\nfrom extmem.manager import manager\nmanager().kmt_alive(0)")
    with export(device) as memory, nt(device, memory) as handle:
        put(memory, b"into")
        padding = [handle.duplicate() for _ in range(3)]
        value = handle.duplicate(into=peer.pid, access=READ)
        assert isinstance(value, int)
        assert peer("handle = raw.nt_handle(value)\nint(handle.access)", value=value) == 0x20000
        assert peer("get(import_win32(device, handle))") == b"into"
        assert handle.info.handle_count == 5
        for other in padding:
            other.close()
        peer("handle.close()")
        assert handle.info.handle_count == 1


def test_B43_a_process_that_is_not_there_cannot_be_given_anything(device: Device) -> None:
    with export(device) as memory, nt(device, memory) as handle:
        with pytest.raises(errors.ObjectManagerError):
            handle.duplicate(into=2**22 - 3)
        assert not handle.closed


def test_B44_handles_are_compared_by_object_never_by_value(device: Device, name: str) -> None:
    with export(device, name=name) as one, export(device) as two:
        with nt(device, one) as a, a.duplicate(access=READ) as b, extmem.open_handle(name) as c, nt(device, two) as d:
            assert a.same_object(b) and a.same_object(c) and b.same_object(c)
            assert not a.same_object(d)
            assert a != b  # two entries of the table for one object


def test_B45_handle_information_can_be_read_and_set(device: Device) -> None:
    with export(device) as memory, nt(device, memory) as handle:
        assert (handle.info.inherit, handle.info.protect_from_close) == (False, False)
        handle.set_info(inherit=True)
        assert (handle.info.inherit, handle.info.protect_from_close) == (True, False)
        handle.set_info(protect_from_close=True)
        assert (handle.info.inherit, handle.info.protect_from_close) == (True, True)
        handle.set_info(inherit=False, protect_from_close=False)
        assert (handle.info.inherit, handle.info.protect_from_close) == (False, False)


def test_B46_a_protected_handle_refuses_to_close_and_stays(device: Device) -> None:
    with export(device) as memory, nt(device, memory) as handle:
        handle.set_info(protect_from_close=True)
        with pytest.raises(errors.InvalidHandleError) as error:
            handle.close()
        assert (error.value.ntstatus, error.value.winerror) == (NOT_CLOSABLE, 6)
        assert not handle.closed
        import_win32(device, handle).close()
        handle.set_info(protect_from_close=False)


def test_B47_closing_what_is_closed_or_garbage_is_an_invalid_handle(device: Device) -> None:
    with export(device) as memory:
        handle = nt(device, memory)
        value = int(handle)
        manager().close(value)
        for wrong in (value, 0x3FFF_0000, 0):
            with pytest.raises(errors.InvalidHandleError) as error:
                manager().close(wrong)
            assert (error.value.ntstatus, error.value.winerror) == (INVALID_HANDLE, 6)
        handle.take()


def test_B48_values_are_small_multiples_of_4_and_the_low_bits_are_ignored(device: Device) -> None:
    with export(device) as memory, nt(device, memory) as handle:
        value = int(handle)
        assert value and value % 4 == 0 and not value & 0xC000_0000 and value < 0x10000
        for low in (1, 2, 3):
            assert manager().info(value | low).object_id == handle.info.object_id


def test_B49_a_kmt_number_is_no_handle_to_the_handle_calls(device: Device) -> None:
    with export(device, types=KMT) as memory, export(device) as other, nt(device, other) as handle:
        number = int(kmt(device, memory))
        calls = [
            lambda: manager().close(number),
            lambda: manager().info(number),
            lambda: manager().same_object(int(handle), number),
            lambda: manager().set_flags(number, 1, 1),
            lambda: manager().duplicate(
                number, desired=None, inherit=False, same_attributes=False, close_source=False, into=None
            ),
        ]
        for call in calls:
            with pytest.raises(errors.InvalidHandleError) as error:
                call()
            assert error.value.winerror == 6
        with pytest.raises(errors.HandleStateError, match="KMT"):
            raw.nt_handle(number)
        assert manager().kmt_alive(number)
        assert GENERIC_WRITE and get(memory) == b"\0\0\0\0"
