"""Semaphores and fences of a Vulkan device with the n-th driver call failing: an error, and nothing is left behind."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator

import pytest

import extmem
from extmem import vk
from extmem.api import Device
from extmem.core import shared_devices
from extmem.devices.sync import Batch, SemaphoreSignal, SemaphoreWait, SyncSource
from extmem.devices.vulkan.backend import VulkanBackend
from extmem.owning import Uses
from extmem.testing import fake_vulkan, faults
from extmem.testing.waiting import wait_until
from extmem.vk.handle_types import SEMAPHORE_OPAQUE_FD
from tests.faults.sync_world import OPERATIONS, SyncWorld
from tests.unit.devices.vulkan.sync_steps import SECOND, fence, payload_of, semaphore, sharing

pytestmark = pytest.mark.linux_only("semaphores are shared by fd")
OFTEN = 64
"""A number of calls that no operation reaches."""


@pytest.fixture(params=[fake_vulkan.SHARED_SYNC, fake_vulkan.BINARY_SYNC], ids=["driver", "host"])
def fake(request: pytest.FixtureRequest) -> Iterator[fake_vulkan.FakeVulkan]:
    """A driver whose timelines are shared by itself, or by the host."""
    made = fake_vulkan.FakeVulkan([sharing(*request.param)])
    with fake_vulkan.installed(made):
        yield made
    assert not made.misuses, [str(misuse) for misuse in made.misuses]
    assert not made.alive()


def create(backend: VulkanBackend) -> None:
    """Create, share and destroy each kind of object."""
    for one in (semaphore(backend, shared=True), semaphore(backend, timeline=True, shared=True), fence(backend)):
        try:
            if one.fd is not None:
                assert one.stated_identity or one.raw == 0
        finally:
            one.close()


def exchange(backend: VulkanBackend) -> None:
    """Import an fd that is proved first, and a payload of the object manager; then use both."""
    made = []
    try:
        for timeline in (False, True):
            source, target = semaphore(backend, timeline=timeline, shared=True), None
            made.append(source)
            target = semaphore(backend, timeline=timeline)
            made.append(target)
            fd = source.export_fd(SEMAPHORE_OPAQUE_FD)
            assert fd is not None
            try:
                examined = backend.examine_sync_fd(fd.fd, SEMAPHORE_OPAQUE_FD, timeline=timeline)
                if not examined.problem:  # a page of the host without a description is none of its timelines
                    target.import_payload(SyncSource(SEMAPHORE_OPAQUE_FD, timeline=timeline, fd=examined))
            finally:
                fd.close()
            payload = payload_of(source)
            try:
                target.import_payload(SyncSource(SEMAPHORE_OPAQUE_FD, timeline=timeline, payload=payload))
            except BaseException:
                payload.close()
                raise
    finally:
        for one in made:
            one.close()


def submit(backend: VulkanBackend) -> None:
    """Submit batches with commands, and wait for them on the host."""
    order, shared, done = semaphore(backend, timeline=True), None, None
    try:
        shared, done = semaphore(backend, timeline=True, shared=True), fence(backend)
        first = Batch(record=lambda recorder: None, signals=[SemaphoreSignal(order, 1), SemaphoreSignal(shared, 1)])
        second = Batch(waits=[SemaphoreWait(order, 1), SemaphoreWait(shared, 1)], record=lambda recorder: None)
        backend.submit_batches([first, second], done, Uses())
        assert backend.wait_fences([done], timeout_ns=SECOND)
        assert backend.wait_semaphores([(order, 1), (shared, 1)], timeout_ns=SECOND)
        done.reset()
        order.signal(2)
    finally:
        backend.finish_submitted()
        for one in (order, shared, done):
            if one is not None:
                one.close()


@pytest.mark.slow("each operation is repeated once for each call")
@pytest.mark.parametrize("result", [vk.Result.ERROR_OUT_OF_HOST_MEMORY, vk.Result.ERROR_DEVICE_LOST])
@pytest.mark.parametrize("operation", [create, exchange, submit])
def test_a_failing_call_is_an_error_and_leaves_nothing(
    operation: Callable[[VulkanBackend], None], result: vk.Result, fake: fake_vulkan.FakeVulkan
) -> None:
    opened: list[VulkanBackend] = []

    @contextlib.contextmanager
    def arm(countdown: faults.Countdown) -> Iterator[faults.Countdown]:
        with extmem.open_device(kind="vulkan") as device:
            assert isinstance(device.backend, VulkanBackend)
            opened[:] = [device.backend]
            with fake.failing(countdown, result):
                yield countdown

    def check() -> None:
        assert not fake.alive()["devices"]

    assert faults.fail_each(lambda: operation(opened[0]), arm, check=check, allowed=(extmem.ExtmemError,), limit=OFTEN)


def _opened() -> Device:
    return extmem.open_device(kind="vulkan")


@pytest.mark.slow("each operation is repeated once for each call")
@pytest.mark.parametrize("result", [vk.Result.ERROR_OUT_OF_HOST_MEMORY, vk.Result.ERROR_DEVICE_LOST])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_public_operation(operation: str, result: vk.Result, fake: fake_vulkan.FakeVulkan) -> None:
    """The caller's objects are of another device of the same GPU, and survive."""
    box: list[Device] = []
    with contextlib.ExitStack() as stack:
        world = SyncWorld(stack.enter_context(_opened()), stack)

        @contextlib.contextmanager
        def arm(countdown: faults.Countdown) -> Iterator[None]:
            # Left by an error, the block of a device with work that runs does not close it.
            # What is unpickled is on a device of the process, which is lost, too.
            with shared_devices.fresh_devices(), contextlib.closing(_opened()) as device:
                box[:] = [device]
                with fake.failing(countdown, result):
                    yield

        def run() -> None:
            OPERATIONS[operation](world, box[0])

        before = fake.alive()

        def settled() -> bool:
            gc.collect()  # errors and their frames are in cycles
            return fake.alive() == before

        def check() -> None:
            world.check()
            wait_until(settled, "what was submitted to end")

        faults.fail_each(run, arm, check=check, allowed=(extmem.ExtmemError,), limit=2 * OFTEN)
