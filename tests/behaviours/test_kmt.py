"""B51–B62: KMT (global share) handles."""

from __future__ import annotations

import pytest

import extmem
from extmem import errors, raw
from extmem.api import Device
from extmem.handles import KmtHandle, is_kmt_value
from extmem.manager import manager
from extmem.testing.children import Peer
from extmem.testing.waiting import wait_until
from tests.behaviours.platforms import by_fd
from tests.behaviours.steps import (
    FD,
    GENERIC_ALL,
    INVALID_PARAMETER,
    KMT,
    PEER,
    W32,
    export,
    fd,
    get,
    import_win32,
    kmt,
    nt,
    put,
)


def test_B51_numbers_have_the_shape_of_global_ones(device: Device) -> None:
    with export(device, types=KMT) as memory:
        number = int(kmt(device, memory))
        assert 0 < number <= 0xFFFF_FFFF
        assert number & 0xC000_0000
        assert number & 0x3F == 0b000010


def test_B52_a_number_has_32_bits(device: Device) -> None:
    with export(device, types=KMT) as memory:
        number = int(kmt(device, memory))
        for wrong in (number | 1 << 32, number | 0xFFFF_FFFF_0000_0000):
            with pytest.raises(errors.HandleStateError, match="32 bits"):
                KmtHandle(wrong)
        assert KmtHandle(number) == kmt(device, memory)


def test_B53_bits_30_and_31_tell_the_two_kinds_apart(device: Device) -> None:
    with export(device, types=KMT) as one, export(device) as two, nt(device, two) as handle:
        assert is_kmt_value(int(kmt(device, one)))
        assert not is_kmt_value(int(handle))


def test_B54_a_number_owns_nothing_and_there_is_nothing_to_close(device: Device) -> None:
    memory = export(device, types=KMT)
    number = kmt(device, memory)
    number.close()
    assert not number.closed
    import_win32(device, number, kind=KMT).close()
    memory.close()
    assert not manager().kmt_alive(int(number))


def test_B55_the_number_works_in_any_process(device: Device, peer: Peer) -> None:
    peer(PEER + "\nfrom extmem import raw")
    with export(device, types=KMT) as memory:
        put(memory, b"wide")
        number = int(kmt(device, memory))
        source = "memory = import_win32(device, raw.kmt_handle(number), kind=KMT)\nget(memory)"
        assert peer(source, number=number) == b"wide"
        peer("put(memory, b'back')")
        assert get(memory) == b"back"


def test_B56_asking_twice_gives_the_same_number(device: Device) -> None:
    with export(device, types=KMT) as memory:
        assert kmt(device, memory) == kmt(device, memory) == memory.export_handle(KMT)


def test_B57_each_import_is_a_memory_object_of_its_own(device: Device) -> None:
    with export(device, types=KMT) as memory:
        number = kmt(device, memory)
        first, second = import_win32(device, number, kind=KMT), import_win32(device, number, kind=KMT)
        assert first is not second
        first.close()
        put(memory, b"left")
        assert get(second) == b"left"
        import_win32(device, number, kind=KMT).close()
        second.close()


def test_B58_the_number_dies_with_the_last_memory_object(device: Device) -> None:
    memory = export(device, types=KMT)
    number = kmt(device, memory)
    put(memory, b"last")
    importer = import_win32(device, number, kind=KMT)
    memory.close()  # the creator closes first; the importer keeps the payload and the number
    with import_win32(device, number, kind=KMT) as late:
        assert get(late) == b"last"
    importer.close()
    with pytest.raises(errors.InvalidHandleError) as error:
        import_win32(device, number, kind=KMT)
    assert (error.value.ntstatus, error.value.winerror) == (INVALID_PARAMETER, 87)


@by_fd
def test_B58_an_fd_does_not_keep_the_number(device: Device) -> None:
    memory = export(device, types=KMT | FD)
    number = kmt(device, memory)
    with fd(device, memory):
        memory.close()
        assert not manager().kmt_alive(int(number))


def test_B58_the_end_of_a_process_frees_its_memory(device: Device, peer: Peer) -> None:
    peer(PEER)
    number = peer("memory = export(device, types=KMT)\nint(kmt(device, memory))")
    import_win32(device, raw.kmt_handle(number), kind=KMT).close()
    peer.kill()
    wait_until(lambda: not manager().kmt_alive(number), "the number to die with its process")


@pytest.mark.parametrize(
    ("number", "why"), [(0x1EADBEED | 0x4000_0000, "101101"), (0x4000_0040, "local"), (0x4000_0002, "dead")]
)
def test_B59_bad_numbers_are_invalid_parameters(device: Device, number: int, why: str) -> None:
    if why == "dead":
        memory = export(device, types=KMT)
        number = int(kmt(device, memory))
        memory.close()
    with pytest.raises(errors.InvalidHandleError) as error:
        import_win32(device, KmtHandle(number), kind=KMT)
    assert error.value.ntstatus == INVALID_PARAMETER
    assert f"{number:#x}" in str(error.value)
    assert error.value.violations


def test_B59_null_is_no_number(device: Device) -> None:
    with pytest.raises(extmem.RuleViolation):
        import_win32(device, 0, kind=KMT)
    with pytest.raises(errors.HandleStateError):
        KmtHandle(0)


def test_B60_a_number_of_another_kind_of_object_is_an_invalid_parameter(device: Device) -> None:
    with export(device, types=KMT) as memory:
        number = int(kmt(device, memory))
        for kind in (0b000110, 0b001010, 0b111110):  # low six bits that global numbers of memory never have
            with pytest.raises(errors.InvalidHandleError) as error:
                import_win32(device, KmtHandle(number & ~0x3F | kind), kind=KMT)
            assert error.value.ntstatus == INVALID_PARAMETER
        import_win32(device, KmtHandle(number), kind=KMT).close()


def test_B61_one_payload_is_shared_by_number_or_by_nt_handle_never_both(device: Device) -> None:
    with pytest.raises(extmem.RuleViolation) as error:
        export(device, types=KMT | W32)
    assert "VUID-VkExportMemoryAllocateInfo-handleTypes-09860" in error.value.vuids
    with extmem.open_device(check="off") as unchecked, pytest.raises(errors.ObjectManagerError) as refused:
        export(unchecked, types=KMT | W32, access=GENERIC_ALL)
    assert refused.value.ntstatus == INVALID_PARAMETER


def test_B62_a_dead_number_is_not_given_out_again_soon(device: Device) -> None:
    seen = set()
    for _ in range(32):
        with export(device, types=KMT) as memory:
            seen.add(int(kmt(device, memory)))
    assert len(seen) == 32
