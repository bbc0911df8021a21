"""Copying bytes by the device's own commands."""

from __future__ import annotations

import os
import random
import threading

import pytest

from extmem.devices.vulkan.backend import VulkanBackend
from extmem.devices.vulkan.transfers import _STAGING
from extmem.errors import DriverError
from tests.unit.devices.importing import import_fd
from tests.unit.devices.vulkan.steps import SHARED, SIZE, allocate, buffer_info, mappable, read


def test_odd_sizes_at_odd_offsets(backend: VulkanBackend) -> None:
    memory = allocate(backend)
    shadow = bytearray(memory.size)
    backend.fill(memory, 0, memory.size, 0)
    source = random.Random(1)
    for _ in range(60):
        size = source.choice((1, 2, 3, 5, 7, 63, 65, 4095, 4097))
        offset = source.randrange(memory.size - size)
        data = source.randbytes(size)
        backend.write(memory, offset, memoryview(data))
        shadow[offset : offset + size] = data
        assert read(backend, memory, offset, size) == data
    assert read(backend, memory, 0, memory.size) == shadow, "and nothing beside"
    memory.close()


def test_nothing_at_all_is_moved_without_complaint(backend: VulkanBackend) -> None:
    memory = allocate(backend)
    backend.write(memory, 0, memoryview(b"some"))
    backend.write(memory, memory.size, memoryview(b""))
    backend.write(memory, 0, memoryview(b""))
    backend.fill(memory, 0, 0, 9)
    assert read(backend, memory, memory.size, 0) == b"" and read(backend, memory, 0, 4) == b"some"
    memory.close()


@pytest.mark.parametrize("size", [_STAGING - 1, _STAGING, _STAGING + 1, 2 * _STAGING + 12_345])
def test_more_than_the_staging_buffer_holds(backend: VulkanBackend, size: int) -> None:
    memory = allocate(backend, size + 7)
    data = random.Random(size).randbytes(1 << 16) * (size // (1 << 16) + 1)
    backend.write(memory, 3, memoryview(data)[:size])
    assert read(backend, memory, 3, size) == data[:size]
    memory.close()


@pytest.mark.parametrize(
    ("offset", "size"),
    [(0, SIZE), (0, 1), (4, 3), (8, 4097), (SIZE - 4, 4), (SIZE - 8, 7), (1, 1), (2, 4), (3, 4098), (1, SIZE - 1)],
)
@pytest.mark.parametrize("value", [0, 1, 0x80, 0xFF])
def test_fills_are_exact(backend: VulkanBackend, offset: int, size: int, value: int) -> None:
    memory = allocate(backend)
    backend.fill(memory, 0, SIZE, 0x55)
    backend.fill(memory, offset, size, value)
    found = read(backend, memory, 0, SIZE)
    assert found[offset : offset + size] == bytes([value]) * size
    assert set(found[:offset] + found[offset + size :]) <= {0x55}
    memory.close()


def test_the_host_sees_what_the_device_wrote_and_the_other_way_round(backend: VulkanBackend) -> None:
    import ctypes

    memory = mappable(backend)
    at = memory.map().address
    backend.write(memory, 0, memoryview(b"by the device"))
    backend.invalidate(memory, 0, memory.size)
    assert ctypes.string_at(at, 13) == b"by the device"
    ctypes.memmove(at, b"by the host..", 13)
    backend.flush(memory, 0, memory.size)
    assert read(backend, memory, 0, 13) == b"by the host.."
    memory.close()


@pytest.mark.linux_only("file descriptors carry memory on Linux alone")
def test_an_import_sees_what_was_written_before_and_after(backend: VulkanBackend) -> None:
    memory = allocate(backend)
    backend.write(memory, 0, memoryview(b"before"))
    other = VulkanBackend(backend.device.physical)
    fd = backend.export_fd(memory).take()
    imported = import_fd(other, fd, memory.size, memory.memory_type_index)
    os.close(fd)
    assert imported.owner == "external"
    assert read(other, imported, 0, 6) == b"before"
    backend.write(memory, 0, memoryview(b"after."))
    assert read(other, imported, 0, 6) == b"after."
    other.write(imported, 0, memoryview(b"answer"))
    assert read(backend, memory, 0, 6) == b"answer"
    assert memory.owner == imported.owner == "external", "no queue family owns it while it is not used"
    imported.close()
    other.close()
    memory.close()


def test_threads_that_use_one_device_at_once_do_not_mix_their_bytes(backend: VulkanBackend) -> None:
    problems: list[str] = []
    start = threading.Barrier(8)

    def work(number: int) -> None:
        memory = allocate(backend, types=SHARED if number % 2 else 0)
        start.wait(30)
        for round_ in range(25):
            data = bytes([number * 25 + round_]) * (1000 + number)
            backend.write(memory, number, memoryview(data))
            backend.fill(memory, 4096, 4096, number)
            if read(backend, memory, number, len(data)) != data:
                problems.append(f"thread {number}, round {round_}: other bytes")
            if read(backend, memory, 4096, 4096) != bytes([number]) * 4096:
                problems.append(f"thread {number}, round {round_}: another fill")
        memory.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert not problems


def test_a_failure_while_recording_leaves_the_device_usable(backend: VulkanBackend) -> None:
    memory = allocate(backend)
    backend.write(memory, 0, memoryview(b"safe"))

    def broken(commands: object) -> None:
        raise DriverError("planted", result=-1, command="vkCmdCopyBuffer")

    with pytest.raises(DriverError, match="planted"):
        backend.transfers.submissions.run(broken, [memory])
    assert read(backend, memory, 0, 4) == b"safe"
    backend.write(memory, 0, memoryview(b"more"))
    assert read(backend, memory, 0, 4) == b"more"
    memory.close()


def test_what_moves_bytes_is_released_with_the_device(backend: VulkanBackend) -> None:
    other = VulkanBackend(backend.device.physical)
    memory = allocate(other)
    other.write(memory, 0, memoryview(b"x"))
    assert other.transfers.submissions is other.transfers.submissions
    memory.close()
    other.close()
    assert not other.device.owner.owes and not other.device.living
    backend.create_buffer(buffer_info()).destroy()
