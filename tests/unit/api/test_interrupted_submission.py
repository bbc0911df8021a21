"""An exception while a submission is waited for: the commands run, and the owner of each resource follows from them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

import extmem
from extmem import vk
from extmem.api import Device
from extmem.testing import fake_vulkan


@pytest.fixture
def fake() -> Iterator[fake_vulkan.FakeVulkan]:
    made = fake_vulkan.FakeVulkan([fake_vulkan.INTEGRATED])
    with fake_vulkan.installed(made):
        yield made
    assert not made.misuses, [str(misuse) for misuse in made.misuses]
    assert not made.alive()


@pytest.fixture
def device(fake: fake_vulkan.FakeVulkan) -> Iterator[Device]:
    with extmem.open_device(kind="vulkan") as opened:
        yield opened


@contextlib.contextmanager
def interrupted(device: Any, how: str) -> Iterator[None]:
    """Within the block a submission happens, and an exception comes before its end is noticed."""
    transfer = device.backend.transfers.submissions
    commands = transfer._commands
    wait = commands.vkWaitForFences

    def interrupt(*arguments: Any) -> int:
        raise KeyboardInterrupt

    if how == "submitting":  # as a signal handler does between the driver's call and what follows it
        original = transfer._submit

        def submit() -> None:
            original()
            raise KeyboardInterrupt

        transfer._submit = submit
    elif how == "waiting":
        commands.__dict__["vkWaitForFences"] = interrupt
    else:  # the minute is over
        transfer._patience = 0.0
        commands.__dict__["vkWaitForFences"] = lambda *arguments: int(vk.Result.TIMEOUT)
    try:
        with pytest.raises(extmem.DriverError if how == "endless" else KeyboardInterrupt):
            yield
    finally:
        commands.__dict__["vkWaitForFences"] = wait
        transfer.__dict__.pop("_submit", None)


SHARED = vk.MemoryAllocateInfo(4096, 0, vk.ExportMemoryAllocateInfo(vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32))
INTERRUPTIONS = ["submitting", "waiting", "endless"]


@pytest.mark.parametrize("how", INTERRUPTIONS)
def test_what_was_acquired_is_held_and_what_was_released_is_not(device: Device, name: str, how: str) -> None:
    """The scripted driver records a misuse if memory is acquired twice, or used without being acquired."""
    with extmem.open_device(kind="vulkan") as exporter, exporter.allocate(4096, name=name) as source:
        source.fill(1)
        with device.open(name) as memory:
            allocation: Any = memory.record.allocation
            buffer = memory.buffer()
            assert allocation.owner == "external"
            with interrupted(device, how), device.commands() as commands:
                commands.acquire(buffer)
                commands.fill_buffer(buffer, 0x02020202)
            memory.write(b"\3" * 4)  # without a barrier of its own
            assert allocation.owner == "held"
            with interrupted(device, how), device.commands() as commands:
                commands.release(buffer)
            assert bytes(memory.read_bytes(0, 8)) == b"\3" * 4 + b"\2" * 4
            assert allocation.owner == "external"


@pytest.mark.parametrize("how", INTERRUPTIONS)
def test_a_copy_of_extmems_own_has_released_what_it_used(device: Device, how: str) -> None:
    with device.allocate_memory(SHARED) as memory:
        allocation: Any = memory.record.allocation
        assert allocation.owner == "here"
        with interrupted(device, how):
            memory.fill(1)
        memory.fill(2)  # it is acquired first
        assert allocation.owner == "external" and set(memory.read_bytes()) == {2}


def test_a_submission_that_the_driver_refuses_changes_no_owner(device: Device, fake: fake_vulkan.FakeVulkan) -> None:
    with device.allocate_memory(SHARED) as memory:
        allocation: Any = memory.record.allocation
        fake.fail(1, vk.Result.ERROR_OUT_OF_HOST_MEMORY, command="vkQueueSubmit")
        with pytest.raises(extmem.OutOfMemoryError):
            memory.fill(1)
        assert allocation.owner == "here"
        memory.fill(2)
        assert allocation.owner == "external" and set(memory.read_bytes()) == {2}
