"""Bad handles of every type, refusals of the kernel, and handle counts that return to what they were."""

from __future__ import annotations

import ctypes
import gc
import msvcrt
import os
import tempfile
from collections.abc import Iterator

import pytest

import extmem
from extmem import errors, raw, vk
from extmem.api import Device
from extmem.handles._win32 import calls, sections
from extmem.handles._win32.calls import StatusError
from extmem.handles._win32.tables import CURRENT_PROCESS, advapi32, kernel32
from extmem.manager import manager
from extmem.manager.windows.security_descriptors import security_descriptor
from extmem.manager.windows.snapshot import own_handles
from extmem.testing.children import Peer
from extmem.vk import SecurityAttributes
from tests.behaviours.steps import (
    INVALID_HANDLE,
    KMT,
    PEER,
    READ,
    READ_WRITE,
    TYPE_MISMATCH,
    W32,
    by_name,
    export,
    get,
    import_win32,
    kmt,
    nt,
    put,
)

MANY = 4096


@pytest.mark.parametrize("value", [-1, -2, CURRENT_PROCESS, CURRENT_PROCESS - 1, 1 << 32, 0x3FFF_FFF0])
def test_pseudo_handles_and_garbage_are_no_memory(device: Device, value: int) -> None:
    with pytest.raises((errors.InvalidHandleError, extmem.RuleViolation)) as error:
        import_win32(device, value)
    if isinstance(error.value, errors.InvalidHandleError):
        assert (error.value.ntstatus, error.value.winerror) == (INVALID_HANDLE, 6)
    with pytest.raises((errors.InvalidHandleError, errors.HandleStateError)):
        raw.nt_handle(value)
    with pytest.raises(errors.InvalidHandleError) as refused:
        manager().close(value)
    assert refused.value.winerror == 6


@pytest.fixture(params=["file", "event", "mutex", "thread", "process"])
def foreign_handle(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """A handle to an object of another type."""
    if request.param == "file":
        with tempfile.TemporaryFile() as file:
            yield "File", msvcrt.get_osfhandle(file.fileno())
        return
    if request.param == "event":
        value, kind = (
            calls.create_event(f"\\BaseNamedObjects\\extmem-test-{os.getpid()}", manual=True, signaled=False),
            "Event",
        )
    elif request.param == "mutex":
        kernel32.CreateMutexW.restype = ctypes.c_size_t
        value, kind = kernel32.CreateMutexW(None, False, None), "Mutant"
    else:
        pseudo = CURRENT_PROCESS - (request.param == "thread")
        value, kind = calls.duplicate(pseudo, options=calls.SAME_ACCESS), request.param.capitalize()
    yield kind, value
    calls.close(value)


def test_a_handle_to_an_object_of_another_type_is_a_type_mismatch(
    device: Device, foreign_handle: tuple[str, int]
) -> None:
    kind, value = foreign_handle
    for attempt in (lambda: import_win32(device, value), lambda: raw.nt_handle(value), lambda: manager().info(value)):
        with pytest.raises(errors.ObjectTypeError, match=f"{value:#x}.*{kind}") as error:
            attempt()
        assert (error.value.ntstatus, error.value.winerror) == (TYPE_MISMATCH, 6)
    assert calls.type_of(value) == kind  # still open, and the caller's


def test_a_section_of_another_program_carries_no_description(device: Device) -> None:
    foreign = sections.create(65536, None)
    try:
        with pytest.raises(errors.DescriptorError, match="foreign producer"):
            import_win32(device, foreign)
        assert calls.type_of(foreign) == "Section"
    finally:
        calls.close(foreign)


def test_a_size_beyond_the_section_is_refused_whoever_says_it(device: Device, name: str) -> None:
    """A description may claim another size than its section has."""
    with export(device, name=name) as memory:
        with pytest.raises(extmem.RuleViolation):
            import_win32(device, None, name, size=1 << 20)
        from extmem.manager.windows import payloads
        from extmem.manager.windows.section_frame import Description, pack

        honest = memory.descriptor
        lie = extmem.Descriptor(
            **{**{f: getattr(honest, f) for f in honest.__struct_fields__}, "allocation_size": 1 << 20}
        )
        with nt(device, memory) as handle:
            description = payloads.describe(int(handle), "").description
            assert description is not None
            frame = pack(
                Description(
                    description.object, description.backing, description.strict_kmt, description.name, lie.encode()
                )
            )
            memory.close()  # the companion, which it cannot open, ends with its exporter
            sections.poke(int(handle), 4096, frame)
            with pytest.raises(errors.DriverError, match=str(1 << 20)):
                extmem.open(name)


def test_G4_the_kernel_refuses_a_writable_view_of_a_read_only_share(device: Device, name: str, peer: Peer) -> None:
    with device.allocate(4096, name=name, access=READ) as memory:
        put(memory, b"safe")
        peer(PEER)
        peer("memory = extmem.open(name)", name=name)
        assert peer("memory.read_only, get(memory)") == (True, b"safe")
        assert peer.fails("memory.record.allocation.map(True)").is_a(PermissionError)
        peer("from extmem.handles._win32 import calls, sections\nvalue = memory.record.allocation.fd")
        assert peer.fails("sections.map_view(value, 0, True)").is_a(StatusError)
        assert peer.fails("calls.duplicate(value, 2)").is_a(StatusError)
        assert peer.fails("sections.open_named(calls.name_of(value), 2)").is_a(StatusError)
        assert peer.fails("extmem.open(name, access=extmem.Access.READ_WRITE)", name=name).is_a(
            errors.AccessDeniedError
        )
        put(memory, b"mine")
        assert peer("get(memory)") == b"mine"
        peer("memory.close()")


@pytest.mark.parametrize(
    ("sddl", "position"),
    [
        ("nonsense", 0),
        ("D:(X;;GA;;;WD)", 3),
        ("D:(A;XX;GA;;;WD)", 5),
        ("D:(A;;QQ;;;WD)", 6),
        ("D:(A;;GA;;WD)", 10),
        ("D:(A;;GA;;;)", 11),
        ("D:(A;;GA;;;WD", 13),
        ("D:(A;;GA;;;WD)(A;;GR;;;S-1-x)", 23),
        ("O:ZZD:(A;;GA;;;WD)", 2),
        ("D:(A;;GA;;;WD)rest", 14),
    ],
)
def test_a_typo_in_sddl_is_named_with_its_position(device: Device, name: str, sddl: str, position: int) -> None:
    with pytest.raises(errors.SecurityDescriptorError, match=f"position {position} ") as error:
        export(device, name=name, security=SecurityAttributes(sddl))
    assert error.value.winerror == 1338
    with pytest.raises(errors.NameNotFoundError):
        by_name(device, name)


def test_a_binary_security_descriptor_is_taken_and_a_broken_one_refused(device: Device, name: str) -> None:

    with security_descriptor("D:(A;;GA;;;WD)") as address:
        binary = ctypes.string_at(address, advapi32.GetSecurityDescriptorLength(address))
    with export(device, name=name, security=SecurityAttributes(binary)):
        extmem.open_handle(name, READ_WRITE).close()
    for broken in (b"", b"\1", binary[:10], b"\xff" * len(binary)):
        with pytest.raises(errors.SecurityDescriptorError):
            export(device, name=name, security=SecurityAttributes(broken))


def count() -> int:
    """Handles of this process, of every type."""
    gc.collect()
    number = ctypes.c_ulong()
    kernel32.GetProcessHandleCount(CURRENT_PROCESS, ctypes.byref(number))
    return number.value or len(own_handles())


def test_thousands_of_exports_leave_the_handle_count_where_it_was(device: Device) -> None:
    before = count()
    for index in range(MANY):
        with export(device, name=f"count {index}" if index % 2 else None, types=W32 if index % 4 else KMT):
            pass
    assert count() == before


def test_thousands_of_duplicates_and_imports_leave_the_handle_count_where_it_was(device: Device, name: str) -> None:
    with export(device, name=name) as memory, nt(device, memory) as handle, export(device, types=KMT) as other:
        number = kmt(device, other)
        before = count()
        for _ in range(MANY):
            handle.duplicate().close()
            extmem.open_handle(name).close()
        for _ in range(MANY // 4):
            import_win32(device, handle).close()
            by_name(device, name).close()
            import_win32(device, number, kind=KMT).close()
            with pytest.raises(errors.InvalidHandleError):
                import_win32(device, 0x3FFF_FFF0)
        held = [handle.duplicate() for _ in range(MANY)]
        assert count() >= before + MANY
        for one in held:
            one.close()
        assert count() == before


def test_the_end_of_a_process_releases_all_that_it_held(device: Device, name: str, peer: Peer) -> None:
    peer(PEER)
    with export(device, name=name) as memory, nt(device, memory) as handle:
        peer(
            "held = [by_name(device, name) for _ in range(64)] + [extmem.open_handle(name) for _ in range(64)]",
            name=name,
        )
        # Imports in one process share a handle, which the kernel counts like any other.
        assert handle.info.handle_count == 1 + 1 + 64
        peer.kill()
        assert handle.info.handle_count == 1


def test_a_read_only_handle_maps_for_reading_alone(device: Device) -> None:
    with export(device) as memory, nt(device, memory) as handle:
        put(memory, b"look")
        with handle.duplicate(access=READ) as reading, import_win32(device, reading) as other:
            assert other.read_only and get(other) == b"look"
            with pytest.raises(PermissionError):
                other.record.allocation.map(True)


def test_host_pointers_are_found_by_the_kernels_word(device: Device) -> None:
    with export(device) as memory:
        mapping = memory.record.allocation.map()
        bits = device.get_memory_host_pointer_properties(
            vk.ExternalMemoryHandleTypeFlagBits.HOST_ALLOCATION, mapping.address
        )
        assert bits.memory_type_bits
        assert not device.backend.host_range_mapped(mapping.address, 1 << 40)
        assert not device.backend.host_range_mapped(4096, 1)
