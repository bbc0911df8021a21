"""A call that was validated before succeeds and fails as the first one does: exports and imports of fds."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

import extmem
from extmem import raw, vk
from extmem.api import Device, DeviceMemory
from extmem.api.device import Check
from extmem.handles import FdHandle
from extmem.testing import fake_vulkan

FD, W32 = (
    vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD,
    vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32,
)
SIZE = 65_536


def opened(check: Check) -> Device:
    return extmem.open_device(kind="vulkan", check=check)


@pytest.fixture
def fake() -> Iterator[fake_vulkan.FakeVulkan]:
    fake = fake_vulkan.FakeVulkan(gpus=[fake_vulkan.DISCRETE])
    with fake_vulkan.installed(fake):
        yield fake


def exported(device: Device, size: int = SIZE) -> tuple[DeviceMemory, FdHandle]:
    memory = device.allocate_memory(vk.MemoryAllocateInfo(size, 0, vk.ExportMemoryAllocateInfo(FD)))
    return memory, device.get_memory_fd(vk.MemoryGetFdInfoKHR(memory, FD))


def info(handle: object, size: Any = SIZE, kind: Any = 0, handle_type: Any = FD, link: Any = None) -> Any:
    return vk.MemoryAllocateInfo(size, kind, vk.ImportMemoryFdInfoKHR(handle_type, handle, link))


def another_file(handle: FdHandle) -> FdHandle:
    reader, writer = os.pipe()
    os.dup2(reader, int(handle), inheritable=False)
    os.close(reader)
    os.close(writer)
    return handle


def a_directory(handle: FdHandle) -> FdHandle:
    """The size of any file, by some queries."""
    folder = os.open("/", os.O_RDONLY)
    os.dup2(folder, int(handle), inheritable=False)
    os.close(folder)
    return handle


def cut_short(handle: FdHandle) -> FdHandle:
    os.ftruncate(int(handle), 4096)
    return handle


def closed(handle: FdHandle) -> FdHandle:
    handle.close()
    return handle


def distrusted(handle: FdHandle) -> FdHandle:
    assert handle.payload is not None
    handle.payload = msgspec.structs.replace(handle.payload, trusted=False)
    return handle


CALLS: dict[str, Callable[[FdHandle], Any]] = {
    "as before": info,
    "another size": lambda handle: info(handle, SIZE * 2),
    "a size that is no integer": lambda handle: info(handle, float(SIZE)),
    "another memory type": lambda handle: info(handle, kind=1),
    "a memory type that is no integer": lambda handle: info(handle, kind=0.0),
    "a memory type that does not exist": lambda handle: info(handle, kind=99),
    "another handle type": lambda handle: info(handle, handle_type=vk.ExternalMemoryHandleTypeFlagBits.DMA_BUF),
    "a handle type that is a plain number": lambda handle: info(handle, handle_type=1),
    "a bare number": lambda handle: info(handle.take()),
    "no handle": lambda handle: info(closed(handle) and None),
    "a closed handle": lambda handle: info(closed(handle)),
    "another file behind the handle": lambda handle: info(another_file(handle)),
    "a directory behind the handle": lambda handle: info(a_directory(handle)),
    "a handle of another program": lambda handle: info(distrusted(handle)),
    "with an export": lambda handle: info(handle, link=vk.ExportMemoryAllocateInfo(FD)),
    "with an empty dedication": lambda handle: info(handle, link=vk.MemoryDedicatedAllocateInfo()),
    "cut short": lambda handle: info(cut_short(handle)),
}


def outcome(device: Device, call: Callable[[FdHandle], Any], handle: FdHandle) -> tuple[object, ...]:
    """The outcome: the error and its text, or the memory; the warnings; and whether the handle is still open."""
    number = int(handle)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        told: tuple[object, ...]
        try:
            with device.allocate_memory(call(handle)) as memory:
                record = memory.record
                told = (
                    memory.allocation_size,
                    memory.memory_type_index,
                    int(record.import_handle_type),
                    int(record.export_handle_types),
                    memory.read_only,
                    memory.descriptor.encode(),
                )
        except (extmem.ExtmemError, TypeError, ValueError) as error:
            told = type(error), str(error).replace(f"fd {number}", "fd #").replace(f"{number:#x}", "#")
    state = handle.closed
    if not state:
        handle.close()
    elif call is CALLS["a bare number"] and isinstance(told[0], type):
        os.close(number)  # a refused number still belongs to the caller
    return told, state, [str(warning.message) for warning in warned]


@pytest.mark.parametrize("check", ["raise", "warn", "off"])
@pytest.mark.parametrize("words", CALLS)
def test_the_second_import_is_as_the_first(fake: fake_vulkan.FakeVulkan, check: Check, words: str) -> None:
    answers = []
    for warm in (False, True):
        with opened("raise") as exporter, opened(check) as device:
            memory, handle = exported(exporter)
            if warm:
                for _ in range(2):
                    device.allocate_memory(info(handle.duplicate())).close()
            answers.append(outcome(device, CALLS[words], handle))
            memory.close()
    assert answers[0] == answers[1]


Export, Named = vk.ExportMemoryAllocateInfo, vk.ExportMemoryWin32HandleInfoKHR
EXPORTS: dict[str, Callable[[], Any]] = {
    "as before": lambda: vk.MemoryAllocateInfo(SIZE, 0, Export(FD)),
    "another size": lambda: vk.MemoryAllocateInfo(SIZE * 2, 0, Export(FD)),
    "no size": lambda: vk.MemoryAllocateInfo(0, 0, Export(FD)),
    "a size that is no integer": lambda: vk.MemoryAllocateInfo(float(SIZE), 0, Export(FD)),  # type: ignore[arg-type]
    "a memory type that does not exist": lambda: vk.MemoryAllocateInfo(SIZE, 99, Export(FD)),
    "a type as a plain number": lambda: vk.MemoryAllocateInfo(SIZE, 0, Export(1)),
    "another type": lambda: vk.MemoryAllocateInfo(SIZE, 0, Export(W32)),
    "both types": lambda: vk.MemoryAllocateInfo(SIZE, 0, Export(FD | W32)),
    "no types": lambda: vk.MemoryAllocateInfo(SIZE, 0, Export(0)),
    "a type that nobody knows": lambda: vk.MemoryAllocateInfo(SIZE, 0, Export(1 << 20)),
    "with a name": lambda: vk.MemoryAllocateInfo(SIZE, 0, Export(FD, Named(None, 1, "for nothing"))),
    "twice": lambda: vk.MemoryAllocateInfo(SIZE, 0, Export(FD, Export(FD))),
    "with an empty dedication": lambda: vk.MemoryAllocateInfo(SIZE, 0, Export(FD, vk.MemoryDedicatedAllocateInfo())),
}


def outcome_of_export(device: Device, call: vk.MemoryAllocateInfo) -> tuple[object, ...]:
    """The error and its text, or the memory and what an fd of it reports; and the warnings."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            with device.allocate_memory(call) as memory:
                record = memory.record
                told = [memory.allocation_size, memory.memory_type_index, int(record.export_handle_types)]
                told += [record.share_reference != 0, record.name, memory.read_only, memory.descriptor.encode()]
                if record.export_handle_types & FD:
                    with device.get_memory_fd(vk.MemoryGetFdInfoKHR(memory, FD)) as handle:
                        assert handle.payload is not None
                        told.append(msgspec.structs.replace(handle.payload, identity=0))
        except (extmem.ExtmemError, TypeError, ValueError) as error:
            told = [type(error), str(error)]
    return *told, [str(warning.message) for warning in warned]


@pytest.mark.parametrize("check", ["raise", "warn", "off"])
@pytest.mark.parametrize("words", EXPORTS)
def test_the_second_export_is_as_the_first(fake: fake_vulkan.FakeVulkan, check: Check, words: str) -> None:
    answers = []
    for warm in (False, True):
        with opened(check) as device:
            if warm:
                for _ in range(2):
                    device.allocate_memory(EXPORTS["as before"]()).close()
            answers.append(outcome_of_export(device, EXPORTS[words]()))
    assert answers[0] == answers[1]


def test_a_full_device_refuses_a_validated_export(fake: fake_vulkan.FakeVulkan) -> None:
    with opened("raise") as device:
        for _ in range(3):
            device.allocate_memory(EXPORTS["as before"]()).close()
        device.max_allocations = 1
        with (
            device.allocate_memory(EXPORTS["as before"]()),
            pytest.raises(extmem.RuleViolation, match="maxMemoryAllocationCount"),
        ):
            device.allocate_memory(EXPORTS["as before"]())


def test_a_buffer_s_facts_say_what_it_was_made_with(fake: fake_vulkan.FakeVulkan) -> None:
    """They are collected when a rule needs them: later changes of the create info do not count."""
    facts = []
    with opened("raise") as device:
        for _ in range(2):
            chained = vk.ExternalMemoryBufferCreateInfo(FD)
            asked = vk.BufferCreateInfo(size=SIZE, usage=vk.BufferUsageFlagBits.TRANSFER_SRC, p_next=chained)
            with device.create_buffer(asked) as buffer:
                chained.handle_types = W32
                facts.append((buffer.facts.handle_types, set(buffer.facts.capabilities), buffer.facts.size))
                assert buffer.facts.identity == buffer.facts.identity and buffer.facts.alive
            assert not buffer.facts.alive
    assert facts[0] == facts[1] == (FD, {int(FD)}, buffer.requirements.size)


def test_a_full_device_refuses_a_validated_import(fake: fake_vulkan.FakeVulkan) -> None:
    with opened("raise") as device:
        memory, handle = exported(device)
        device.allocate_memory(info(handle.duplicate())).close()
        device.max_allocations = 1
        with handle.duplicate() as copy, pytest.raises(extmem.RuleViolation, match="maxMemoryAllocationCount"):
            device.allocate_memory(info(copy))
        device.max_allocations = 2
        device.allocate_memory(info(handle.duplicate())).close()
        handle.close()
        memory.close()


def test_what_the_driver_refuses_is_refused_and_nothing_is_lost(fake: fake_vulkan.FakeVulkan) -> None:
    with opened("raise") as device:
        memory, handle = exported(device)
        device.allocate_memory(info(handle.duplicate())).close()
        with handle.duplicate() as copy:
            fake.fail(1, vk.Result.ERROR_OUT_OF_DEVICE_MEMORY, command="vkAllocateMemory")
            with pytest.raises(extmem.OutOfMemoryError, match="VK_ERROR_OUT_OF_DEVICE_MEMORY"):
                device.allocate_memory(info(copy))
            assert not copy.closed
            device.allocate_memory(info(copy)).close()
            assert copy.closed, "success consumes it"
        handle.close()
        memory.close()


def test_what_is_imported_twice_is_bound_mapped_and_exported_on(vulkan_device: Device) -> None:
    usage = vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST
    buffers = vk.BufferCreateInfo(size=SIZE, usage=usage, p_next=vk.ExternalMemoryBufferCreateInfo(FD))
    with vulkan_device.create_buffer(buffers) as buffer:
        needs = buffer.requirements
    kind = (needs.memory_type_bits & -needs.memory_type_bits).bit_length() - 1
    export = vk.MemoryAllocateInfo(needs.size, kind, vk.ExportMemoryAllocateInfo(FD))
    with vulkan_device.allocate_memory(export) as memory:
        handle = vulkan_device.get_memory_fd(vk.MemoryGetFdInfoKHR(memory, FD))
        memory.write(b"the same bytes")
        for _ in range(2):
            again = info(handle.duplicate(), needs.size, kind)
            with vulkan_device.create_buffer(buffers) as buffer, vulkan_device.allocate_memory(again) as imported:
                vulkan_device.bind_buffer_memory(buffer, imported)
                assert bytes(imported.read_bytes(0, 14)) == b"the same bytes"
        handle.close()


def test_a_payload_that_the_caller_describes_is_validated_again(fake: fake_vulkan.FakeVulkan) -> None:
    """Another description, another result."""
    with opened("raise") as device:
        memory, handle = exported(device)
        device.allocate_memory(info(handle.duplicate())).close()
        number = handle.take()
        with raw.import_payload(device, number, memory.descriptor) as imported:
            assert imported.allocation_size == SIZE
        memory.close()


OPENS: dict[str, Callable[[FdHandle], FdHandle]] = {
    "as before": lambda handle: handle,
    "a closed handle": closed,
    "another file behind the handle": another_file,
    "a directory behind the handle": a_directory,
    "cut short": cut_short,
}


@pytest.mark.parametrize("check", ["raise", "warn", "off"])
@pytest.mark.parametrize("words", OPENS)
def test_the_second_open_is_as_the_first(fake: fake_vulkan.FakeVulkan, check: Check, words: str) -> None:
    answers = []
    for warm in (False, True):
        with opened("raise") as exporter, opened(check) as device:
            memory, handle = exported(exporter)
            if warm:
                device.open(handle.duplicate()).close()
                assert device.simple_payloads
            number = int(handle)
            told: tuple[object, ...]
            try:
                with device.open(OPENS[words](handle)) as opened_again:
                    told = opened_again.allocation_size, opened_again.descriptor.encode(), opened_again.read_only
            except extmem.ExtmemError as error:
                told = type(error), str(error).replace(f"fd {number}", "fd #").replace(f"{number:#x}", "#")
            answers.append((told, handle.closed))
            handle.close()
            memory.close()
    assert answers[0] == answers[1]


def test_another_devices_payload_is_never_simple(fake: fake_vulkan.FakeVulkan) -> None:
    fake = fake_vulkan.FakeVulkan(gpus=[fake_vulkan.DISCRETE, fake_vulkan.INTEGRATED])
    with fake_vulkan.installed(fake):
        first, second = (extmem.open_device(uuid=gpu.device_uuid) for gpu in fake.gpus)
        memory, handle = exported(first)
        for _ in range(2):
            with pytest.raises(extmem.ExtmemError, match=second.name):
                second.open(handle)
        assert not second.simple_payloads and not handle.closed
        first.open(handle).close()
        memory.close()
        first.close()
        second.close()
