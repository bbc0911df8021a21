"""What a name is to the Windows kernel: a section with extmem's prefix, its companion, and no object of others."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import extmem
from extmem import errors, raw
from extmem.api import Device
from extmem.handles._win32 import calls, sections
from extmem.handles._win32.calls import StatusError
from extmem.handles._win32.tables import kernel32
from extmem.manager import manager
from extmem.manager.windows import names, payloads
from extmem.manager.windows.security_descriptors import sddl_of
from extmem.objects import Share, Status
from extmem.testing.children import Peer
from extmem.vk import SecurityAttributes
from tests.behaviours.bad_input import described
from tests.behaviours.steps import (
    COLLISION,
    GENERIC_ALL,
    KMT,
    PATH_NOT_FOUND,
    READ_WRITE,
    TYPE_MISMATCH,
    by_name,
    export,
    get,
    kmt,
    nt,
    put,
)


def path_of(name: str) -> str:
    """Return the path of the kernel object of a name."""
    return names.payload_path(names.resolve(name, calls.session(os.getpid())))


def test_a_name_is_a_section_under_our_prefix_folded(device: Device, name: str) -> None:
    with export(device, name=f"{name} Ünnamed") as memory, nt(device, memory) as handle:
        kernel_name = calls.name_of(int(handle))
        assert kernel_name == f"{names.session_directory(calls.session(os.getpid()))}extmem.{name.upper()} ÜNNAMED"
        assert calls.type_of(int(handle)) == "Section" == handle.info.type_name
        assert handle.info.name.endswith(f"\\{name} Ünnamed")


def test_another_programs_mapping_of_that_name_is_another_object(device: Device, name: str) -> None:
    with mmap.mmap(-1, 4096, tagname=name) as foreign:  # CreateFileMapping
        foreign[:4] = b"theirs"[:4]
        with export(device, name=name) as memory:
            put(memory, b"mine")
            assert foreign[:4] == b"thei"
            with mmap.mmap(-1, 4096, tagname=name) as again:
                assert again[:4] == b"thei"
            assert get(memory) == b"mine"
    with pytest.raises(errors.NameNotFoundError):
        by_name(device, name)


def test_another_programs_mapping_is_opened_by_its_very_name_where_that_is_asked_for(device: Device, name: str) -> None:
    with mmap.mmap(-1, 65536, tagname=name) as foreign:
        foreign[:4] = b"them"
        with raw.open_section(name) as handle:
            with pytest.raises(errors.DescriptorError, match="foreign producer"):
                extmem.open(handle)
            stated = described(device, allocation_size=65536, payload_size=65536)
            with raw.import_payload(device, handle, stated) as memory:
                assert get(memory) == b"them"
                put(memory, b"us!!")
            too_much = described(device, allocation_size=1 << 20, payload_size=1 << 20)
            with pytest.raises(errors.DriverError, match=str(1 << 20)):
                raw.import_payload(device, handle, too_much)
            assert not handle.closed
        assert foreign[:4] == b"us!!"
        with pytest.raises(errors.NameNotFoundError):
            raw.open_section(name.upper())
    with pytest.raises(errors.NameNotFoundError):
        raw.open_section(name)


def test_the_companion_tells_what_the_payload_is(device: Device, name: str) -> None:
    with export(device, name=name) as memory:
        companion = payloads.read_companion(path_of(name))
        assert companion is not None
        assert companion.descriptor == memory.descriptor.encode()
        assert companion.name.endswith(f"\\{name}")
    assert payloads.read_companion(path_of(name)) is None


def test_the_companion_has_the_payloads_security(device: Device, name: str) -> None:
    with export(device, name=name, security=SecurityAttributes("D:(A;;GA;;;WD)")) as memory:
        companion = sections.open_named(names.companion_of(path_of(name)), 0x20000)
        try:
            assert "(A;;GA;;;WD)" in sddl_of(companion)
            assert sddl_of(companion) == sddl_of(memory.record.allocation.fd or 0)
        finally:
            calls.close(companion)


def test_without_its_exporter_the_payload_still_says_what_it_is(device: Device, name: str) -> None:
    memory = export(device, name=name)
    put(memory, b"left")
    with nt(device, memory) as handle:
        memory.close()
        assert payloads.read_companion(path_of(name)) is None
        with extmem.open(name) as other, extmem.open(handle) as again:
            assert get(other) == get(again) == b"left"
            assert other.descriptor == again.descriptor
            assert other.name == name


def foreign_object_at(kind: str, path: str) -> int:
    """A handle to another program's event or mutex that has this name."""
    if kind == "event":
        return calls.create_event(path, manual=True, signaled=False)
    kernel32.CreateMutexW.restype = ctypes.c_size_t
    value: int = kernel32.CreateMutexW(None, False, path.rpartition("\\")[2])
    return value


KINDS = pytest.mark.parametrize("kind", ["event", "mutex"])


@KINDS
@pytest.mark.wine_differs("B10: Wine reports NAME_COLLISION also for an object of another type")
def test_B10_a_name_that_another_object_holds_is_a_type_mismatch(device: Device, name: str, kind: str) -> None:
    event = foreign_object_at(kind, path_of(name))
    try:
        with pytest.raises(errors.ObjectTypeError) as error:
            export(device, name=name)
        assert (error.value.ntstatus, error.value.winerror) == (TYPE_MISMATCH, 6)
    finally:
        calls.close(event)


@KINDS
def test_a_name_that_another_object_holds_is_refused_and_free_afterwards(device: Device, name: str, kind: str) -> None:
    event = foreign_object_at(kind, path_of(name))
    try:
        with pytest.raises((errors.ObjectTypeError, errors.NameTakenError), match=name):
            export(device, name=name)
        with pytest.raises(errors.ObjectTypeError) as error:
            by_name(device, name)
        assert (error.value.ntstatus, error.value.winerror) == (TYPE_MISMATCH, 6)
        with pytest.raises(errors.ObjectTypeError):
            extmem.open_handle(name)
    finally:
        calls.close(event)
    export(device, name=name).close()


def test_a_companion_of_somebody_elses_making_is_a_taken_name(
    device: Device, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payloads, "_PATIENCE", 0.0)
    squatter = sections.create(8192, names.companion_of(path_of(name)))
    try:
        with pytest.raises(errors.NameTakenError) as error:
            export(device, name=name)
        assert error.value.ntstatus == COLLISION
        with pytest.raises(errors.NameNotFoundError):  # the attempt leaves nothing
            by_name(device, name)
    finally:
        calls.close(squatter)
    export(device, name=name).close()


@pytest.mark.parametrize("prefix", ["Globl\\", "Sessions\\1\\", "BaseNamedObjects\\"])
def test_bad_prefixes_are_paths_that_do_not_exist(device: Device, name: str, prefix: str) -> None:
    for attempt in (lambda: export(device, name=prefix + name), lambda: by_name(device, prefix + name)):
        with pytest.raises(errors.NameNotFoundError) as error:
            attempt()
        assert (error.value.ntstatus, error.value.winerror) == (PATH_NOT_FOUND, 3)


def test_G5_global_names_are_there_for_all_sessions_or_the_privilege_is_named(device: Device, name: str) -> None:
    try:
        memory = export(device, name=f"Global\\{name}", access=GENERIC_ALL)
    except errors.AccessDeniedError as error:
        assert "SeCreateGlobalPrivilege" in str(error)
        return
    with memory:
        put(memory, b"wide")
        with by_name(device, f"global\\{name}") as other, nt(device, memory) as handle:
            assert get(other) == b"wide"
            assert handle.info.name == rf"\BaseNamedObjects\{name}"
        if calls.session(os.getpid()):
            with pytest.raises(errors.NameNotFoundError):
                by_name(device, name)


def test_without_the_privilege_for_global_names_the_error_reports_it(
    device: Device, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's refusal is planted: the user of this test may have the privilege."""
    real = sections.create

    def refusing(size: int, path: str | None = None, security: int = 0) -> int:
        if path is not None and path.startswith("\\BaseNamedObjects\\"):
            raise StatusError(Status.ACCESS_DENIED)
        return real(size, path, security)

    monkeypatch.setattr(sections, "create", refusing)
    with pytest.raises(errors.AccessDeniedError, match="SeCreateGlobalPrivilege") as error:
        export(device, name=f"Global\\{name}")
    assert error.value.winerror == 5
    if calls.session(os.getpid()):
        export(device, name=name).close()


def test_rights_that_do_not_let_one_read_are_too_few_to_import(device: Device, name: str) -> None:
    with export(device, name=name, security=SecurityAttributes("D:(A;;RC;;;WD)")):
        with pytest.raises(errors.AccessDeniedError):
            extmem.open(name)
        with pytest.raises(errors.AccessDeniedError):
            by_name(device, name)
    with export(device, name=name, security=SecurityAttributes("D:(A;;GR;;;WD)")), extmem.open(name) as memory:
        assert memory.read_only


def test_a_section_keeps_the_name_that_it_was_born_with(device: Device, name: str) -> None:
    with export(device) as memory, pytest.raises(errors.UnsupportedError, match="when it is made"):
        manager().export(
            [memory.record.allocation.fd or 0],
            memory.descriptor.encode(),
            share=Share.NT,
            name=name,
            access=READ_WRITE,
            sddl=None,
            inherit=False,
        )


def test_a_kmt_number_is_a_name_that_no_program_can_ask_for(device: Device) -> None:
    with export(device, types=KMT) as memory:
        number = int(kmt(device, memory))
        path = calls.name_of(memory.record.allocation.fd or 0)
        assert path.endswith(f"extmem.kmt.{number:08x}")
        with pytest.raises(errors.NameNotFoundError):
            by_name(device, f"kmt.{number:08x}")
        with pytest.raises(StatusError):
            sections.open_named(path.upper(), sections.QUERY)


def test_a_name_that_is_not_described_yet_is_waited_for(
    device: Device, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel names a section when it creates it, before anything is written into it."""
    arrived, go = threading.Event(), threading.Event()
    poke = sections.poke

    def paused(section: int, offset: int, data: bytes) -> None:
        if calls.name_of(section) == path_of(name):  # not a companion page, which is made before
            arrived.set()
            assert go.wait(30)
        poke(section, offset, data)

    monkeypatch.setattr(sections, "poke", paused)
    with ThreadPoolExecutor(2) as threads, extmem.open_device(kind="host") as other:
        exporting = threads.submit(device.allocate, (2, 3), "int16", name=name)
        assert arrived.wait(30)
        found = threads.submit(other.open, name)
        go.set()
        with exporting.result(30), found.result(30) as opened:
            assert opened.numpy().shape == (2, 3)


def test_a_section_that_nobody_describes_is_given_up(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payloads, "_PATIENCE", 0.05)
    section = sections.create(65536, path_of(name), 0)
    try:
        with pytest.raises(errors.DescriptorError):
            extmem.open(name)
    finally:
        calls.close_handle(section)


def test_names_that_come_one_after_the_other_are_found_whole(device: Device, name: str) -> None:
    """Another process shares them, while this one tries to open each until it exists."""
    count = 100
    source = f"d = extmem.open_device(kind='host')\nm = [d.allocate(64, name=f'{name} {{n}}') for n in range({count})]"
    with Peer() as peer, ThreadPoolExecutor(1) as threads:
        shared = threads.submit(peer, source)
        for number in range(count):
            while True:
                try:
                    extmem.open(f"{name} {number}").close()
                    break
                except errors.NameNotFoundError:
                    assert not shared.done() or shared.exception() is None
        shared.result(60)
