"""B1–B15, B91, B102, B103: the directories of names, which names are valid, and how long they last."""

from __future__ import annotations

import pytest

import extmem
from extmem import errors, vk
from extmem.api import Device
from extmem.objects import WINERROR, Refused, Share, Status, error_for
from extmem.testing.children import Peer
from tests.behaviours.platforms import DIRECTORY, SESSION, by_fd
from tests.behaviours.steps import (
    ALICE,
    COLLISION,
    FD,
    GENERIC_ALL,
    NAME_INVALID,
    NOT_FOUND,
    PATH_NOT_FOUND,
    PEER,
    READ_WRITE,
    TYPE_MISMATCH,
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


def test_B1_an_unqualified_name_lands_in_the_session_directory(device: Device, name: str) -> None:
    with export(device, name=name) as memory, nt(device, memory) as handle:
        assert handle.info.name == DIRECTORY + name


def _export(manager: object, process: int, name: str | None, inode: int = 1) -> object:
    return manager.export(  # type: ignore[attr-defined]  # an attribute of the model
        process, (1, inode), b"", share=Share.NT, name=name, access=GENERIC_ALL, sddl=None, inherit=False
    )


def test_B2_one_directory_for_every_object_type() -> None:
    manager = model()
    process = manager.attach(ALICE, 1)
    event = manager.insert_foreign("X", "Event")
    with pytest.raises(Refused) as refusal:
        _export(manager, process, "X")
    assert refusal.value.status is Status.OBJECT_TYPE_MISMATCH
    manager.remove_foreign(event)
    _export(manager, process, "X")


def test_B2_an_event_cannot_take_the_name_of_shared_memory() -> None:
    manager = model()
    process = manager.attach(ALICE, 1)
    exported = _export(manager, process, "X")
    with pytest.raises(Refused):
        manager.insert_foreign("X", "Event")
    manager.release(process, exported.reference)  # type: ignore[attr-defined]
    manager.insert_foreign("X", "Event")


@pytest.mark.parametrize("prefix", ["Local\\", f"Session\\{SESSION}\\", "Local\\Local\\"])
def test_B3_local_and_session_prefixes_lead_to_the_session_directory(device: Device, name: str, prefix: str) -> None:
    with export(device, name=name) as memory:
        put(memory, b"here")
        with by_name(device, prefix + name) as other:
            assert get(other) == b"here"
    with export(device, name=prefix + name) as memory, nt(device, memory) as handle:
        assert handle.info.name == DIRECTORY + name
        by_name(device, name).close()


def test_B3_global_names_are_in_the_root_directory() -> None:
    manager = model(global_names=True)
    process = manager.attach(ALICE, 1)
    exported = _export(manager, process, "Global\\X")
    assert manager.handle_info(process, manager.get_handle(process, exported.reference)).name == r"\BaseNamedObjects\X"  # type: ignore[attr-defined]
    with pytest.raises(Refused) as refusal:
        manager.import_by_name(process, "X")
    assert refusal.value.status is Status.OBJECT_NAME_NOT_FOUND
    manager.import_by_name(process, "Global\\X")


def test_B3_session_0_has_the_global_directory_for_its_own() -> None:
    manager = model(session=0)
    process = manager.attach(ALICE, 1)
    _export(manager, process, "X")
    manager.import_by_name(process, "Global\\X")


@pytest.mark.parametrize("prefix", ["local\\", "LOCAL\\", f"session\\{SESSION}\\"])
def test_B4_prefixes_of_gpu_objects_are_found_in_any_case(device: Device, name: str, prefix: str) -> None:
    with export(device, name=name):
        by_name(device, prefix + name).close()


def test_B5_names_are_found_in_any_case_and_shown_in_the_creators(device: Device) -> None:
    with export(device, name="Ünnamed Kamera É") as memory, nt(device, memory) as handle:
        put(memory, b"case")
        for spelling in ("Ünnamed Kamera É", "üNNAMED kamera é", "ÜNNAMED KAMERA É"):
            with by_name(device, spelling) as other:
                assert get(other) == b"case"
        assert handle.info.name.endswith("\\Ünnamed Kamera É")
        with pytest.raises(errors.NameNotFoundError):
            by_name(device, "Unnamed Kamera E")


def test_B6_other_types_are_case_sensitive_and_gpu_lookups_match_them_in_any_case() -> None:
    manager = model()
    process = manager.attach(ALICE, 1)
    manager.insert_foreign("X", "Mutant")
    manager.insert_foreign("x", "Mutant")  # a second object, as for kernel objects
    with pytest.raises(Refused) as refusal:
        manager.import_by_name(process, "X")
    assert refusal.value.status is Status.OBJECT_TYPE_MISMATCH
    with pytest.raises(Refused) as refusal:
        manager.open_handle(process, "x", READ_WRITE)
    assert refusal.value.status is Status.OBJECT_TYPE_MISMATCH


@pytest.mark.parametrize("longest", ["n" * 260, "😀" * 130])
def test_B7_names_have_at_most_260_utf16_units(device: Device, longest: str) -> None:
    with export(device, name=longest):
        by_name(device, longest).close()
    with pytest.raises(errors.NameInvalidError, match="261") as error:
        export(device, name=longest + "n")
    assert (error.value.ntstatus, error.value.winerror) == (NAME_INVALID, 123)
    with pytest.raises(errors.NameInvalidError, match="261"):
        by_name(device, longest + "n")


@pytest.mark.parametrize("bad", ["", "\\X", "X\\", "Local\\\\X", "Local\\", "a\0b", "\ud800"])
def test_B8_malformed_names_are_invalid(device: Device, bad: str) -> None:
    with pytest.raises(errors.NameInvalidError) as error:
        export(device, name=bad)
    assert (error.value.ntstatus, error.value.winerror) == (NAME_INVALID, 123)
    with pytest.raises(errors.NameInvalidError):
        by_name(device, bad)


def test_B8_a_component_that_is_no_directory_is_a_path_that_does_not_exist(device: Device) -> None:
    with pytest.raises(errors.NameNotFoundError) as error:
        export(device, name="a\\b")
    assert (error.value.ntstatus, error.value.winerror) == (PATH_NOT_FOUND, 3)


@pytest.mark.parametrize("fine", ["a b", "a.b", "a/b", ".", "..", "摄像机", "a:b*?<>|"])
def test_B8_every_other_character_is_legal(device: Device, fine: str) -> None:
    with export(device, name=fine):
        by_name(device, fine).close()


def test_B8_no_name_is_an_unnamed_object_on_export_and_nothing_on_import(device: Device) -> None:
    with export(device, name=None) as memory, nt(device, memory) as handle:
        assert handle.info.name == ""
    with pytest.raises(extmem.RuleViolation):
        import_win32(device, None, None)


def test_B9_open_of_an_unknown_name_is_not_found(device: Device, name: str) -> None:
    with pytest.raises(errors.NameNotFoundError) as error:
        by_name(device, name)
    assert (error.value.ntstatus, error.value.winerror) == (NOT_FOUND, 2)
    assert [v.vuid for v in error.value.violations] == ["VUID-VkImportMemoryWin32HandleInfoKHR-handleType-01440"]
    assert isinstance(error.value, FileNotFoundError)
    assert name in str(error.value)
    with pytest.raises(errors.NameNotFoundError):
        extmem.open_handle(name)
    with export(device, name=name):
        by_name(device, name).close()


def test_B10_a_second_export_under_a_live_name_fails_and_never_aliases(device: Device, name: str) -> None:
    with export(device, name=name) as memory:
        put(memory, b"mine")
        for spelling in (name, name.upper(), f"Local\\{name}"):
            with pytest.raises(errors.NameTakenError) as error:
                export(device, name=spelling)
            assert (error.value.ntstatus, error.value.winerror) == (COLLISION, 183)
            assert isinstance(error.value, FileExistsError)
        assert get(memory) == b"mine"


def test_B10_a_name_of_another_type_is_a_type_mismatch() -> None:
    manager = model()
    process = manager.attach(ALICE, 1)
    manager.insert_foreign("X", "Section")
    with pytest.raises(Refused) as refusal:
        _export(manager, process, "x")
    assert refusal.value.status is Status.OBJECT_TYPE_MISMATCH
    _export(manager, process, "y")


def test_B11_open_with_the_wrong_type_is_a_type_mismatch_with_win32_error_6() -> None:
    manager = model()
    process = manager.attach(ALICE, 1)
    manager.insert_foreign("X", "Event")
    with pytest.raises(Refused) as refusal:
        manager.import_by_name(process, "X")
    error = error_for(refusal.value.status, refusal.value.detail)
    assert isinstance(error, errors.ObjectTypeError)
    assert (error.ntstatus, error.winerror) == (TYPE_MISMATCH, 6)


def test_B12_a_name_lives_as_long_as_a_handle_to_its_object(device: Device, name: str) -> None:
    memory = export(device, name=name)
    put(memory, b"long")
    handle = nt(device, memory)
    memory.close()
    by_name(device, name).close()
    handle.close()
    with pytest.raises(errors.NameNotFoundError):
        by_name(device, name)
    with export(device, name=name) as other:  # the name is free at once
        assert get(other) == b"\0\0\0\0"


@by_fd
def test_B12_name_is_free_with_the_last_handle(device: Device, name: str) -> None:
    memory = export(device, name=name, types=W32 | FD)
    put(memory, b"long")
    descriptor = fd(device, memory)  # it keeps the payload, but not the name
    handle = nt(device, memory)
    memory.close()
    by_name(device, name).close()
    handle.close()
    with pytest.raises(errors.NameNotFoundError):
        by_name(device, name)
    with export(device, name=name) as other:  # the name is free at once
        put(other, b"new!")
        with import_fd(device, descriptor) as old:
            assert get(old) == b"long"
            assert get(other) == b"new!"


@by_fd
def test_B12_the_same_payload_can_be_shared_again_under_its_old_name(device: Device, name: str) -> None:
    memory = export(device, name=name, types=W32 | FD)
    put(memory, b"same")
    descriptor = fd(device, memory)
    memory.close()
    chain = vk.ImportMemoryFdInfoKHR(
        FD, descriptor, vk.ExportMemoryAllocateInfo(W32, vk.ExportMemoryWin32HandleInfoKHR(None, READ_WRITE, name))
    )
    with device.allocate_memory(vk.MemoryAllocateInfo(4096, 0, chain)), by_name(device, name) as other:
        assert get(other) == b"same"


def test_B13_the_name_is_there_before_any_handle_was_asked_for(device: Device, name: str, peer: Peer) -> None:
    with export(device, name=name) as memory:
        put(memory, b"soon")
        peer(PEER)
        assert peer("memory = by_name(device, name)\nget(memory)", name=name) == b"soon"


# The NTSTATUS and Win32 numbers and their classes, written out, so that they check the library's table.
B14 = [
    ("OBJECT_NAME_COLLISION", 0xC0000035, 183, errors.NameTakenError),
    ("OBJECT_NAME_NOT_FOUND", 0xC0000034, 2, errors.NameNotFoundError),
    ("OBJECT_NAME_INVALID", 0xC0000033, 123, errors.NameInvalidError),
    ("OBJECT_PATH_NOT_FOUND", 0xC000003A, 3, errors.NameNotFoundError),
    ("OBJECT_PATH_SYNTAX_BAD", 0xC000003B, 161, errors.NameInvalidError),
    ("OBJECT_TYPE_MISMATCH", 0xC0000024, 6, errors.ObjectTypeError),
    ("INVALID_HANDLE", 0xC0000008, 6, errors.InvalidHandleError),
    ("HANDLE_NOT_CLOSABLE", 0xC0000235, 6, errors.InvalidHandleError),
    ("ACCESS_DENIED", 0xC0000022, 5, errors.AccessDeniedError),
    ("INVALID_PARAMETER", 0xC000000D, 87, errors.InvalidHandleError),
    ("NOT_SAME_OBJECT", 0xC00001AC, 1656, errors.ObjectManagerError),
]


@pytest.mark.parametrize(("status", "ntstatus", "winerror", "kind"), B14, ids=[row[0] for row in B14])
def test_B14_statuses_become_these_win32_errors(
    status: str, ntstatus: int, winerror: int, kind: type[errors.ObjectManagerError]
) -> None:
    assert Status[status] == ntstatus
    assert WINERROR[Status[status]] == winerror
    error = error_for(ntstatus, "the reason")
    assert type(error) is kind
    assert (error.ntstatus, error.winerror, str(error)) == (ntstatus, winerror, "the reason")


def test_B15_each_open_by_name_is_a_new_handle_to_close(device: Device, name: str, peer: Peer) -> None:
    with export(device, name=name) as memory, nt(device, memory) as own:
        first, second = extmem.open_handle(name), extmem.open_handle(name, access=0x8000_0000)
        assert len({int(own), int(first), int(second)}) == 3
        assert first.same_object(own) and second.same_object(own)
        assert first.access == 0x20001 and second.access == 0x20000
        first.close()
        assert second.info.handle_count == 2
        second.close()
        # Any process may open it, related or not.
        peer(PEER)
        assert peer("handle = extmem.open_handle(name)\nhandle.info.name", name=name).endswith(name)
        assert own.info.handle_count == 2
        peer("handle.close()")
        assert own.info.handle_count == 1


def test_B91_an_importer_resolves_the_name_relative_to_its_session(device: Device, name: str) -> None:
    with export(device, name=name):
        by_name(device, f"Session\\{SESSION}\\{name}").close()
        with pytest.raises(errors.NameInvalidError):
            by_name(device, DIRECTORY + name)
        with pytest.raises(errors.NameNotFoundError):
            by_name(device, f"Session\\{SESSION + 1}\\{name}")


def test_B102_an_import_keeps_no_link_to_the_name_string(device: Device, name: str) -> None:
    spelled = name.upper()
    with export(device, name=name), by_name(device, spelled) as memory:
        del spelled
        put(memory, b"kept")
        assert get(memory) == b"kept"


def test_B103_a_name_resolves_only_between_share_and_last_close(device: Device, name: str, peer: Peer) -> None:
    peer(PEER)
    assert peer.fails("by_name(device, name)", name=name).is_a(errors.NameNotFoundError)
    memory = export(device, name=name)
    assert peer("memory = by_name(device, name)\nmemory.close()", name=name) is None
    memory.close()
    assert peer.fails("by_name(device, name)", name=name).ntstatus == NOT_FOUND
