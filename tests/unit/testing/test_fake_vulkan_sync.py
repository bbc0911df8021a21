"""Semaphores and fences of the fake driver: what it shares, executes in order, and reports as misuse."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

import extmem
from extmem import vk
from extmem.devices.vulkan import logical
from extmem.devices.vulkan.backend import VulkanBackend
from extmem.testing import fake_vulkan
from extmem.testing.fake_vulkan.gpus import from_plain, to_plain
from extmem.testing.fake_vulkan.sync_pages import SyncPage
from extmem.vk.abi import ffi, to_c

_S = vk.StructureType


class Driver:
    """The commands of one device of the fake, called as by a program."""

    def __init__(self, fake: fake_vulkan.FakeVulkan, backend: VulkanBackend) -> None:
        self.fake = fake
        self.device = backend.device.handle
        self.commands = backend.device.commands
        self.queue = ffi.cast("VkQueue", backend.device.queue)

    def semaphore(self, *, timeline: bool = False, initial: int = 0, types: int = 0) -> int:
        """Create a semaphore."""
        chain: Any = None
        if types:
            chain = vk.ExportSemaphoreCreateInfo(handle_types=vk.ExternalSemaphoreHandleTypeFlagBits(types))
        kind = vk.SemaphoreType.TIMELINE if timeline else vk.SemaphoreType.BINARY
        chain = vk.SemaphoreTypeCreateInfo(semaphore_type=kind, initial_value=initial, p_next=chain)
        made = ffi.new("uint64_t *")
        info = to_c(vk.SemaphoreCreateInfo(p_next=chain))
        assert self.commands.vkCreateSemaphore(self.device, info.cdata, ffi.NULL, made) == 0
        return int(made[0])

    def fence(self) -> int:
        """Create a fence."""
        made = ffi.new("uint64_t *")
        info = to_c(vk.FenceCreateInfo())
        assert self.commands.vkCreateFence(self.device, info.cdata, ffi.NULL, made) == 0
        return int(made[0])

    def submit(self, waits: dict[int, int], signals: dict[int, int], fence: int = 0) -> int:
        """Submit a batch. The values are those of timelines."""

        def sides(operations: dict[int, int]) -> list[vk.SemaphoreSubmitInfo]:
            masks = vk.PipelineStageFlagBits2.ALL_COMMANDS
            return [vk.SemaphoreSubmitInfo(raw, value, masks) for raw, value in operations.items()]

        info = to_c(vk.SubmitInfo2(wait_semaphore_infos=sides(waits), signal_semaphore_infos=sides(signals)))
        result: int = self.commands.promoted("vkQueueSubmit2")(self.queue, 1, info.cdata, fence)
        return result

    def counter(self, raw: int) -> int:
        """Return the value of a timeline."""
        value = ffi.new("uint64_t *")
        assert self.commands.promoted("vkGetSemaphoreCounterValue")(self.device, raw, value) == 0
        return int(value[0])

    def signal(self, raw: int, value: int) -> None:
        """Signal a timeline on the host."""
        info = to_c(vk.SemaphoreSignalInfo(raw, value))
        assert self.commands.promoted("vkSignalSemaphore")(self.device, info.cdata) == 0

    def destroy(self, *raws: int) -> None:
        """Destroy semaphores."""
        for raw in raws:
            self.commands.vkDestroySemaphore(self.device, raw, ffi.NULL)

    def destroy_fence(self, raw: int) -> None:
        """Destroy a fence."""
        self.commands.vkDestroyFence(self.device, raw, ffi.NULL)

    def problems(self) -> str:
        """Return the misuses so far, and clear them."""
        found = "; ".join(map(str, self.fake.misuses))
        self.fake.misuses.clear()
        return found


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    monkeypatch.setattr(logical, "LEFT_OUT", frozenset())  # for vkQueueSubmit2
    fake = fake_vulkan.FakeVulkan()
    with fake_vulkan.installed(fake):
        with extmem.open_device(kind="vulkan") as device:
            assert isinstance(device.backend, VulkanBackend)
            yield Driver(fake, device.backend)
        assert not fake.misuses, [str(misuse) for misuse in fake.misuses]
    assert not fake.alive()


def test_a_queue_runs_its_batches_in_order_when_their_waits_are_satisfied(driver: Driver) -> None:
    gate, after, later = (driver.semaphore(timeline=True) for _ in range(3))
    done = driver.fence()
    assert driver.submit({gate: 1}, {after: 5}) == driver.submit({}, {later: 1}, done) == 0
    assert [driver.counter(one) for one in (after, later)] == [0, 0]
    assert driver.commands.vkGetFenceStatus(driver.device, done) == vk.Result.NOT_READY
    driver.signal(gate, 1)
    assert [driver.counter(one) for one in (after, later)] == [5, 1]
    assert driver.commands.vkGetFenceStatus(driver.device, done) == 0
    driver.destroy(gate, after, later)
    driver.destroy_fence(done)


def test_a_binary_signal_is_consumed_once(driver: Driver) -> None:
    binary, counted = driver.semaphore(), driver.semaphore(timeline=True)
    driver.submit({}, {binary: 0})
    driver.submit({binary: 0}, {counted: 1})
    driver.submit({binary: 0}, {counted: 2})
    assert driver.counter(counted) == 1
    driver.submit({}, {})
    assert driver.counter(counted) == 1
    driver.fake.lose_device()  # nothing can satisfy the second wait: it is behind it in the queue
    driver.destroy(binary, counted)


@pytest.mark.parametrize(
    ("what", "problem"),
    [
        ("lower", "is signaled"),
        ("queue lower", "a queue signals 1 to a timeline that has reached 2"),
        ("twice", "is signaled already"),
        ("busy", "is destroyed while work that uses it may still run"),
        ("counter of a binary", "is binary, and the command takes timelines"),
        ("initial value", "with the initial value 3"),
        ("export", "cannot be exported"),
        ("fence", "was not reset"),
    ],
)
def test_misuse_is_seen(driver: Driver, what: str, problem: str) -> None:
    timeline, binary, done = driver.semaphore(timeline=True, initial=2), driver.semaphore(), driver.fence()
    match what:
        case "lower":
            driver.signal(timeline, 1)
        case "queue lower":
            driver.submit({}, {timeline: 1})
        case "twice":
            driver.submit({}, {binary: 0})
            driver.submit({}, {binary: 0})
        case "busy":
            gate = driver.semaphore(timeline=True)
            driver.submit({gate: 1}, {})
            driver.destroy(gate)
            assert problem in driver.problems()
            gate = 0
            driver.fake.lose_device()
        case "counter of a binary":
            value = ffi.new("uint64_t *")
            assert driver.commands.promoted("vkGetSemaphoreCounterValue")(driver.device, binary, value)
        case "initial value":
            driver.destroy(driver.semaphore(initial=3))
        case "export":
            driver.destroy(driver.semaphore(types=int(vk.ExternalSemaphoreHandleTypeFlagBits.SYNC_FD)))
        case "fence":
            driver.submit({}, {}, done)
            driver.submit({}, {}, done)
    if what != "busy":
        assert problem in driver.problems()
    driver.destroy(timeline, binary)
    driver.destroy_fence(done)


def test_without_misuse_nothing_is_recorded(driver: Driver) -> None:
    timeline, binary, done = driver.semaphore(timeline=True, initial=2), driver.semaphore(), driver.fence()
    driver.signal(timeline, 3)
    driver.submit({}, {timeline: 4, binary: 0}, done)
    driver.submit({binary: 0}, {})
    driver.submit({}, {binary: 0})
    assert driver.counter(timeline) == 4
    assert driver.problems() == ""
    driver.destroy(timeline, binary)
    driver.destroy_fence(done)


def test_a_gpu_with_its_semaphores_survives_the_way_to_another_process() -> None:
    gpu = fake_vulkan.Gpu(sync=(*fake_vulkan.BINARY_SYNC, *fake_vulkan.SYNC_FILES))
    assert from_plain(to_plain(gpu)) == gpu


@pytest.mark.linux_only("payloads are memory files")
def test_a_page_is_shared_by_its_fd_and_known_by_its_tag() -> None:
    page = SyncPage.new("timeline", 3, b"d" * 16, b"r" * 16)
    copy = os.dup(page.fd)
    other = SyncPage.from_fd(copy)
    assert other is not None and (other.kind, other.number, other.device_uuid) == ("timeline", 3, b"d" * 16)
    page.signal(9)
    assert other.number == 9
    null = os.open("/dev/null", os.O_RDWR)
    assert SyncPage.from_fd(null) is None
    os.close(null)
    page.close()
    other.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(copy)
