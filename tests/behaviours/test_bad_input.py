"""Bad input raises a clear error, and nothing is lost: the class, the values in the message, the remedy, and the
handle.

There is one test for each entry of the list of bad inputs; those that only Linux has are in test_bad_fds.py. `refused`
is the common part: the caller's handle is open and usable after the refusal, which a correct import of the same handle
proves.
"""

from __future__ import annotations

import msgspec
import pytest

import extmem
from extmem import errors, raw, vk
from extmem.api import Device, DeviceMemory
from extmem.handles import FdHandle, KmtHandle, NtHandle
from extmem.sharing.descriptor import Descriptor
from extmem.testing.children import Peer
from extmem.vk import SecurityAttributes
from tests.behaviours.bad_input import described, refused
from tests.behaviours.platforms import FD_TYPES, W32_AND_FD, by_fd
from tests.behaviours.steps import (
    FD,
    KMT,
    PEER,
    READ,
    READ_WRITE,
    SIZE,
    W32,
    by_name,
    export,
    fd,
    get,
    import_fd,
    import_win32,
    kmt,
    nt,
    put,
)
from tests.systems import on_linux

# Handle and name.


def test_handle_and_name_both(device: Device, name: str) -> None:
    with export(device, name=name) as memory, nt(device, memory) as handle:
        with refused(extmem.RuleViolation, "-01441", name, f"{int(handle):#x}", "do: ", device=device, handle=handle):
            import_win32(device, handle, name)


def test_handle_and_name_neither(device: Device) -> None:
    with refused(extmem.RuleViolation, "VUID-VkImportMemoryWin32HandleInfoKHR", "do: "):
        import_win32(device, None, None)


def test_a_name_for_a_kmt_type(device: Device, name: str) -> None:
    with refused(extmem.RuleViolation, "-01439", name, "do: "):
        import_win32(device, None, name, kind=KMT)
    with refused(extmem.RuleViolation, "-00657", "do: "):
        info = vk.ExportMemoryWin32HandleInfoKHR(None, READ_WRITE, name)
        device.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0, vk.ExportMemoryAllocateInfo(KMT, info)))
    with refused(extmem.UnsupportedError, "OPAQUE_WIN32"):
        device.allocate(64, name=name, handle_types=KMT)


def test_a_name_for_an_fd_type(device: Device, name: str) -> None:
    with refused(extmem.RuleViolation, "OPAQUE_FD", "do: "):
        import_win32(device, None, name, kind=FD)
    with refused(extmem.UnsupportedError, "OPAQUE_WIN32"):
        device.allocate(64, name=name, handle_types=FD)


# Names.


def test_unknown_names(device: Device, name: str) -> None:
    with refused(errors.NameNotFoundError, name):
        extmem.open(name)
    with refused(errors.NameNotFoundError, name):
        by_name(device, name)


@pytest.mark.parametrize(
    ("bad", "message"),
    [("", "empty"), ("x" * 261, "261"), ("a\0b", "NUL"), ("\\abs", "backslash"), ("abs\\", "backslash")],
)
def test_names_that_nothing_can_have(device: Device, bad: str, message: str) -> None:
    for attempt in (
        lambda: extmem.open(bad),
        lambda: extmem.open_handle(bad),
        lambda: export(device, name=bad),
        lambda: device.allocate(64, name=bad),
        lambda: by_name(device, bad),
    ):
        with refused(errors.NameInvalidError, message):
            attempt()


def test_a_taken_name(device: Device, name: str) -> None:
    with device.allocate(64, name=name) as memory:
        put(memory, b"mine")
        with refused(errors.NameTakenError, name):
            device.allocate(64, name=name)
        assert get(memory) == b"mine"


# An object of another type cannot hold a name on Linux: B10 and B11 test it with the model.


# Access.


def test_access_0(device: Device, name: str) -> None:
    with export(device, name=name), refused(errors.AccessDeniedError, "(0)", "0x80000000"):
        extmem.open_handle(name, 0)


def test_denied_access(device: Device, name: str) -> None:
    with (
        export(device, name=name, security=SecurityAttributes("D:(A;;GR;;;OW)")) as memory,
        nt(device, memory) as handle,
    ):
        with refused(errors.AccessDeniedError, "RESOURCE_WRITE"):
            extmem.open_handle(name, READ_WRITE)
        with handle.duplicate(access=READ) as reading:
            with refused(errors.AccessDeniedError, "RESOURCE_WRITE", device=device, handle=reading):
                reading.duplicate(access=READ_WRITE)
        with handle.duplicate(access=1) as blind, refused(errors.AccessDeniedError, "READ_CONTROL"):
            extmem.open(blind)


# Handles.


def test_closed_handles(device: Device) -> None:
    with export(device, types=W32_AND_FD) as memory:
        for handle in (nt(device, memory), *(fd(device, memory) for _ in FD_TYPES)):
            value = int(handle)
            handle.close()
            with refused(errors.HandleStateError, f"{value:#x}", "closed", "still open"):
                extmem.open(handle)


def test_taken_handles(device: Device) -> None:
    with export(device) as memory:
        handle = nt(device, memory)
        value = handle.take()
        with refused(errors.HandleStateError, f"{value:#x}", "taken"):
            import_win32(device, handle)
        raw.nt_handle(value).close()


def test_foreign_handles(device: Device, peer: Peer) -> None:
    """A value of another process's table has no meaning in this one."""
    peer(PEER)
    value = peer("memory = export(device)\nhandles = [memory.export_handle(W32) for _ in range(40)]\nint(handles[-1])")
    with refused(errors.InvalidHandleError, f"{value:#x}"):
        import_win32(device, value)
    with refused(errors.InvalidHandleError, f"{value:#x}"):
        raw.nt_handle(value)
    assert peer("import_win32(device, handles[-1]).close()") is None


def test_handles_of_the_wrong_kind(device: Device) -> None:
    with export(device) as memory, nt(device, memory) as handle:
        with export(device, types=KMT) as other:
            number = kmt(device, other)
            with refused(errors.InvalidHandleError, f"{int(handle):#x}", device=device, handle=handle):
                import_win32(device, int(handle), kind=KMT)
            with refused(errors.HandleStateError, f"{int(number):#x}", "KMT"):
                raw.nt_handle(int(number))
            with refused(errors.HandleStateError, "OPAQUE_WIN32"):
                KmtHandle(int(handle))
            with refused(TypeError, "NtHandle", "extmem.raw"):
                extmem.open(int(handle))  # type: ignore[arg-type]  # the test passes a wrong type on purpose


@by_fd
def test_an_fd_for_an_nt_handle(device: Device) -> None:
    with export(device, types=FD) as memory, fd(device, memory) as descriptor:
        with refused(errors.ExtmemError, device=device, handle=descriptor):
            import_win32(device, descriptor)


def test_protected_handles(device: Device) -> None:
    with export(device) as memory, nt(device, memory) as handle:
        handle.set_info(protect_from_close=True)
        with refused(
            errors.InvalidHandleError, f"{int(handle):#x}", "PROTECT_FROM_CLOSE", device=device, handle=handle
        ):
            handle.close()
        handle.set_info(protect_from_close=False)


def test_reused_handles(device: Device) -> None:
    with export(device) as one, export(device) as two:
        old = nt(device, one)
        value = int(old)
        old.close()
        with nt(device, two) as new:
            assert int(new) == value
            with refused(errors.HandleStateError, f"{value:#x}", "another object", device=device, handle=new):
                extmem.open(old)


# KMT numbers.


def test_kmt_numbers_that_are_dead_local_or_garbage(device: Device) -> None:
    memory = export(device, types=KMT)
    number = int(kmt(device, memory))
    memory.close()
    for wrong, message in ((number, "dead"), (0x4000_0040, "local"), (0x4000_0001, "000010")):
        with refused(errors.InvalidHandleError, f"{wrong:#x}", message):
            extmem.open(KmtHandle(wrong))
    with refused(errors.HandleStateError, "bits 30 and 31"):
        KmtHandle(0x1234)
    with refused(errors.HandleStateError, "32 bits"):
        KmtHandle(1 << 40)


# The exporter's size and memory type.


@pytest.mark.parametrize("kind", [W32, on_linux(FD)])
def test_sizes_and_memory_types_that_differ(device: Device, kind: vk.ExternalMemoryHandleTypeFlagBits) -> None:
    with export(device, types=kind) as memory, memory.export_handle(kind) as handle:
        assert isinstance(handle, NtHandle | FdHandle)

        def attempt(size: int, index: int) -> DeviceMemory:
            if isinstance(handle, FdHandle):
                return import_fd(device, handle, size=size, index=index)
            return import_win32(device, handle, size=size, index=index)

        with refused(extmem.RuleViolation, "8192", "4096", "do: ", device=device, handle=handle):
            attempt(8192, 0)
        with refused(extmem.RuleViolation, "memory", "1", "0", "do: ", device=device, handle=handle):
            attempt(SIZE, 1)


# Another device or driver: B95.


def _buffer(device: Device) -> extmem.Buffer:
    return device.create_buffer(
        vk.BufferCreateInfo(
            size=SIZE, usage=vk.BufferUsageFlagBits.TRANSFER_SRC, p_next=vk.ExternalMemoryBufferCreateInfo(W32)
        )
    )


def test_a_dedicated_import_of_a_suballocated_payload(device: Device) -> None:
    with export(device) as memory, nt(device, memory) as handle, _buffer(device) as buffer:
        source = vk.ImportMemoryWin32HandleInfoKHR(W32, handle, None, vk.MemoryDedicatedAllocateInfo(None, buffer))
        with refused(extmem.RuleViolation, "-01877", "buffer", "do: ", device=device, handle=handle):
            device.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0, source))


def test_a_suballocated_import_of_a_dedicated_payload(device: Device) -> None:
    with _buffer(device) as buffer, _buffer(device) as twin:
        chain = vk.ExportMemoryAllocateInfo(W32, vk.MemoryDedicatedAllocateInfo(None, buffer))
        with device.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0, chain)) as memory, nt(device, memory) as handle:
            with refused(extmem.ExtmemError, "dedicated", "buffer"):
                import_win32(device, handle)
            assert not handle.closed
            source = vk.ImportMemoryWin32HandleInfoKHR(W32, handle, None, vk.MemoryDedicatedAllocateInfo(None, twin))
            device.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0, source)).close()


# Descriptors that contradict their payload: those that come with a file are in test_bad_fds.py.


@pytest.mark.parametrize(
    "values",
    [
        {"payload_offset": 4096},
        {"payload_offset": -1},
        {"payload_size": 8192},
        {"allocation_size": 0},
        {"memory_type_index": 99},
    ],
)
def test_a_descriptor_with_bad_numbers_cannot_even_be_stated(device: Device, values: dict[str, int]) -> None:
    with refused(errors.DescriptorError, str(next(iter(values.values())))):
        described(device, **values)


def test_a_descriptor_of_another_version(device: Device) -> None:
    version, *fields = msgspec.msgpack.decode(described(device).encode())
    assert Descriptor.parse(msgspec.msgpack.encode([version, *fields])) == described(device)
    with refused(errors.DescriptorError, "99"):
        Descriptor.parse(msgspec.msgpack.encode([99, *fields]))


def test_more_than_the_machine_has(device: Device) -> None:
    most = device.memory_properties.memory_heaps[0].size
    with refused(errors.ExtmemError, str(most + 4096)):
        device.allocate_memory(vk.MemoryAllocateInfo(most + 4096, 0))
    with refused(ValueError, "-4096"):
        device.allocate(-4096)


# A process that ends at any step: tests/process/test_crashes.py and test_broker_killed.py.
