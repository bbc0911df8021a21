"""B64–B69, B73, B75–B78: shared objects, payloads, and what keeps them alive."""

from __future__ import annotations

import os

import pytest

import extmem
from extmem import errors, vk
from extmem.api import Device, DeviceMemory
from extmem.manager import manager
from extmem.objects import Refused, Share, Status
from extmem.testing.children import Peer
from extmem.testing.waiting import wait_until
from tests.behaviours.platforms import TYPE_NAME, by_fd, one_name_for_life
from tests.behaviours.steps import (
    ALICE,
    FD,
    GENERIC_ALL,
    INVALID_HANDLE,
    PEER,
    READ_WRITE,
    SIZE,
    W32,
    by_name,
    export,
    fd,
    get,
    import_fd,
    import_win32,
    model,
    nt,
    put,
)


def test_B64_an_unnamed_share_is_an_ordinary_object(device: Device) -> None:
    with export(device, name=None) as memory, nt(device, memory) as handle:
        assert (handle.info.name, handle.info.type_name) == ("", TYPE_NAME)
        import_win32(device, handle).close()


def test_B65_an_nt_handle_owns_the_payload(device: Device, name: str) -> None:
    memory = export(device, name=name)
    put(memory, b"mine")
    with nt(device, memory) as handle:
        memory.close()
        with import_win32(device, handle) as other, by_name(device, name) as named:
            assert get(other) == get(named) == b"mine"


def _export_again(device: Device, source: vk.ChainStruct, name: str) -> DeviceMemory:
    """Import and export in one vkAllocateMemory."""
    source.p_next = vk.ExportMemoryAllocateInfo(W32, vk.ExportMemoryWin32HandleInfoKHR(None, READ_WRITE, name))
    return device.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0, source))


@one_name_for_life
def test_B66_imported_memory_is_shared_again_as_an_independent_object(device: Device, name: str) -> None:
    first = export(device, name=name)
    put(first, b"one!")
    handle = nt(device, first)
    again = _export_again(device, vk.ImportMemoryWin32HandleInfoKHR(W32, handle, None), f"{name} too")
    with nt(device, again) as other:
        assert not handle.same_object(other)
        handle.close()
        first.close()
        with by_name(device, f"{name} too") as memory:
            assert get(memory) == b"one!"
    again.close()
    with pytest.raises(errors.NameNotFoundError):
        by_name(device, name)


@one_name_for_life
def test_B67_two_objects_on_one_payload_live_side_by_side(device: Device, name: str) -> None:
    with (
        export(device, name=name) as first,
        _export_again(device, vk.ImportMemoryWin32HandleInfoKHR(W32, None, name), f"{name} too") as second,
        by_name(device, name) as a,
        by_name(device, f"{name} too") as b,
    ):
        put(a, b"both")
        assert get(b) == get(first) == get(second) == b"both"
        rows = [row for row in manager().snapshot() if any(name in path for path in row.names)]
        assert len(rows) == 1 and len(rows[0].names) == 2


def test_B68_a_closed_or_null_handle_is_invalid(device: Device) -> None:
    with export(device) as memory:
        handle = nt(device, memory)
        value = int(handle)
        handle.close()
        with pytest.raises(errors.HandleStateError):
            import_win32(device, handle)
        with pytest.raises(errors.InvalidHandleError) as error:
            import_win32(device, value)
        assert error.value.ntstatus == INVALID_HANDLE
        with pytest.raises(extmem.RuleViolation):
            import_win32(device, 0)
        with nt_again(memory) as other:
            import_win32(device, int(other)).close()


def nt_again(memory: DeviceMemory) -> extmem.NtHandle:
    handle = memory.export_handle(W32)
    assert isinstance(handle, extmem.NtHandle)
    return handle


def test_B69_a_handle_to_an_object_of_another_type_is_a_type_mismatch() -> None:
    manager = model()
    process = manager.attach(ALICE, 1)
    event = manager.open_foreign(process, manager.insert_foreign("event", "Event"), GENERIC_ALL)
    exported = manager.export(
        process, ((1, 1),), b"", share=Share.NT, name=None, access=GENERIC_ALL, sddl=None, inherit=False
    )
    with pytest.raises(Refused) as refusal:
        manager.import_by_handle(process, event)
    assert refusal.value.status is Status.OBJECT_TYPE_MISMATCH
    manager.import_by_handle(process, manager.get_handle(process, exported.reference))


def test_B73_an_import_by_name_keeps_the_object_and_its_name(device: Device, name: str) -> None:
    memory = export(device, name=name)
    handle = nt(device, memory)
    memory.close()
    importer = by_name(device, name)
    handle.close()  # the only handle
    extmem.open_handle(name).close()
    with pytest.raises(errors.NameTakenError):
        export(device, name=name)
    importer.close()
    with pytest.raises(errors.NameNotFoundError):
        extmem.open_handle(name)


def test_B75_after_the_last_importer_the_payload_and_the_name_are_gone(device: Device, name: str) -> None:
    before = len(manager().snapshot())
    memory = export(device, name=name)
    importer = by_name(device, name)
    memory.close()
    assert len(manager().snapshot()) == before + 1
    importer.close()
    assert len(manager().snapshot()) == before
    with pytest.raises(errors.NameNotFoundError):
        by_name(device, name)


def test_B76_the_handle_may_be_closed_right_after_the_import(device: Device) -> None:
    memory = export(device)
    put(memory, b"shut")
    handle = nt(device, memory)
    memory.close()
    importer = import_win32(device, handle)
    assert not handle.closed
    handle.close()
    assert get(importer) == b"shut"
    importer.close()


@by_fd
def test_B76_an_fd_is_consumed_on_success_and_left_alone_on_failure(device: Device) -> None:
    with export(device, types=FD) as memory:
        handle = fd(device, memory)
        number = int(handle)
        with pytest.raises(extmem.ExtmemError):
            import_fd(device, handle, size=SIZE * 2)
        assert not handle.closed and os.fstat(number)
        with import_fd(device, handle) as other:
            assert handle.closed
            put(memory, b"eat!")
            assert get(other) == b"eat!"


def test_B77_freeing_the_exporters_memory_closes_no_handle(device: Device) -> None:
    memory = export(device)
    handle = nt(device, memory)
    memory.close()
    assert not handle.closed and handle.info.handle_count == 1
    handle.close()


def test_B78_the_end_of_a_process_closes_all_it_held(device: Device, name: str, peer: Peer) -> None:
    peer(PEER)
    peer("memory = export(device, name=name)\nhandle = nt(device, memory)\nput(memory, b'dead')", name=name)
    survivor = by_name(device, name)
    peer(
        "others = [extmem.open_handle(name) for _ in range(8)]\nothers[3].set_info(protect_from_close=True)", name=name
    )
    peer.kill()

    def alone() -> bool:
        rows = [row for row in manager().snapshot() if any(path.endswith(name) for path in row.names)]
        return [[holder.pid for holder in row.holders] for row in rows] == [[os.getpid()]]

    wait_until(alone, "the dead process's handles to be closed")
    assert get(survivor) == b"dead"
    survivor.close()
    with pytest.raises(errors.NameNotFoundError):
        by_name(device, name)
