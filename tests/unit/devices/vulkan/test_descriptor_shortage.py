"""Without a free fd, whatever a driver returns is reported as that shortage; with one, it is reported as it is."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Callable, Iterator

import pytest

from extmem import raw, vk
from extmem.api import Device
from extmem.devices.vulkan.backend import VulkanBackend
from extmem.devices.vulkan.results import fail
from extmem.errors import DriverError, OutOfMemoryError
from tests.unit.devices.importing import import_fd
from tests.unit.devices.vulkan.steps import FD, SIZE, allocate

Result = vk.Result
TOO_MANY = Result.ERROR_TOO_MANY_OBJECTS


@contextlib.contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Within the block the process can open only so many more fds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 8, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.dup(0))
        for fd in held[:count]:
            os.close(fd)
        del held[:count]
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in held:
            os.close(fd)


def failed(result: int) -> DriverError:
    with pytest.raises(DriverError) as error:
        fail(result, "vkAllocateMemory", "a device")
    return error.value


@pytest.mark.parametrize(
    "result",
    [
        Result.ERROR_INVALID_EXTERNAL_HANDLE,
        Result.ERROR_INITIALIZATION_FAILED,
        Result.ERROR_UNKNOWN,
        Result.ERROR_MEMORY_MAP_FAILED,
        -1_000_000,
    ],
)
def test_a_result_that_a_lack_explains_is_that_lack(result: int) -> None:
    assert not isinstance(failed(result), OutOfMemoryError)
    with descriptors_left(0):
        error = failed(result)
    assert isinstance(error, OutOfMemoryError) and error.result == TOO_MANY
    assert "no file descriptor is left" in str(error) and "ulimit -n" in str(error)


@pytest.mark.parametrize("result", [Result.ERROR_DEVICE_LOST, Result.ERROR_EXTENSION_NOT_PRESENT])
def test_a_result_that_it_does_not_explain_stays_what_it_is(result: int) -> None:
    with descriptors_left(0):
        error = failed(result)
    assert not isinstance(error, OutOfMemoryError) and error.result == result


@pytest.mark.parametrize("result", [Result.ERROR_OUT_OF_HOST_MEMORY, Result.ERROR_OUT_OF_DEVICE_MEMORY, TOO_MANY])
def test_a_lack_of_memory_keeps_its_result(result: int) -> None:
    with descriptors_left(0):
        error = failed(result)
    assert isinstance(error, OutOfMemoryError) and error.result == result and "ulimit -n" in str(error)
    error = failed(result)
    assert isinstance(error, OutOfMemoryError) and "ulimit -n" not in str(error)


def test_exports_and_imports_name_the_lack_and_leave_everything_as_it_was(backend: VulkanBackend) -> None:
    memory = allocate(backend)
    fd = backend.export_fd(memory).take()
    import_fd(backend, fd, SIZE, 0).close()
    calls: list[Callable[[], object]] = [
        lambda: backend.export_fd(memory).close(),
        lambda: import_fd(backend, fd, SIZE, 0).close(),
        lambda: import_fd(backend, fd, SIZE, 0, trusted=True).close(),
    ]
    for left in range(4):
        for call in calls:
            with descriptors_left(left):
                try:
                    call()
                except OutOfMemoryError as error:
                    assert "ulimit -n" in str(error), str(error)
                else:
                    assert left, "nothing can be exported or imported without one"
    for call in calls:
        call()
    os.close(fd)
    memory.close()


def test_adopting_names_the_lack_and_not_the_statement(vulkan_device: Device) -> None:
    info = vk.MemoryAllocateInfo(SIZE, 0, vk.ExportMemoryAllocateInfo(FD))
    with vulkan_device.allocate_memory(info) as memory:
        for left in range(4):
            with descriptors_left(left):
                try:
                    raw.adopt_memory(vulkan_device, raw.vk_memory(memory), info).close()
                except OutOfMemoryError as error:
                    assert "ulimit -n" in str(error)
                else:
                    assert left
        raw.adopt_memory(vulkan_device, raw.vk_memory(memory), info).close()
