"""Every operation of semaphores, timelines and fences of the host with its n-th call failing: an error, nothing left.

The caller keeps its handles and fds, and everything works again afterwards.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

import extmem
from extmem.api import Device
from extmem.devices.host.backend import HostBackend
from extmem.testing import faults, leaks
from tests import systems
from tests.faults.sync_world import OF_FDS, OPERATIONS, SyncWorld

NAMES = [systems.on_linux(name) if name in OF_FDS else name for name in OPERATIONS]


@pytest.fixture
def world(device: Device) -> Iterator[SyncWorld]:
    with contextlib.ExitStack() as stack:
        yield SyncWorld(device, stack)


@pytest.mark.linux_only("Windows has no broker")  # tests/windows/test_sync_faults.py fails each call of its kernel
@pytest.mark.parametrize("operation", NAMES)
def test_every_call_of_the_device(operation: str, world: SyncWorld) -> None:
    box: list[Device] = []

    @contextlib.contextmanager
    def arm(countdown: faults.Countdown) -> Iterator[None]:
        real = HostBackend()
        # The rules query the device too; what they have queried already does not change.
        armed = Device(faults.failing_backend(real, faults.Countdown(0)))
        armed.backend = faults.failing_backend(real, countdown)
        box[:] = [armed]
        yield

    failed = faults.fail_each(lambda: OPERATIONS[operation](world, box[0]), arm, check=world.check)
    assert failed


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOMEM])
@pytest.mark.parametrize("operation", NAMES)
def test_every_system_call(operation: str, code: int, world: SyncWorld) -> None:
    with extmem.open_device() as device:
        failed = faults.fail_each(
            partial(OPERATIONS[operation], world, device),
            lambda countdown: faults.failing_system_calls(countdown, code),
            check=world.check,
            allowed=(extmem.ExtmemError, OSError),
        )
    if operation in ("create a timeline", "create a semaphore", "open an fd", "import a fence's fd"):
        assert failed


@pytest.mark.linux_only("Windows has no broker")
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_broker_is_killed_at_every_request(operation: str, moment: Any, world: SyncWorld) -> None:
    """The client announces what it holds to the next broker, and the operation succeeds."""

    def run() -> None:
        try:
            OPERATIONS[operation](world, world.device)
        except extmem.ExtmemError as error:
            raise AssertionError("the operation should have outlived the broker") from error

    failed = faults.fail_each(run, lambda countdown: faults.killing_broker(countdown, moment), check=world.check)
    if operation != "open an fd" and ("open" in operation or "pickle" in operation):
        assert failed


def test_a_planted_leak_is_caught(world: SyncWorld) -> None:
    """The loop finds faults: here an operation that keeps a timeline when its handle is not exported."""
    spare = []

    def leaky() -> None:
        timeline = world.device.timeline()
        try:
            timeline.export_handle().close()
            world.handle.duplicate().close()
            OPERATIONS["open by name"](world, world.device)
        except (extmem.ExtmemError, OSError):
            spare.append(timeline)
            raise
        timeline.close()

    with pytest.MonkeyPatch.context() as patch, pytest.raises(leaks.LeakError):
        patch.setattr(leaks, "PATIENCE", 0.2)
        faults.fail_each(leaky, faults.failing_system_calls)
    for timeline in spare:
        timeline.close()
