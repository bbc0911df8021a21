"""No unproven fd of a semaphore or fence reaches a device in use."""

from __future__ import annotations

import os

import pytest

from extmem.devices.sync import SyncSource
from extmem.devices.types import ExaminedFd
from extmem.devices.vulkan.backend import VulkanBackend
from extmem.devices.vulkan.semaphores import VulkanSemaphore
from extmem.errors import DriverError
from extmem.testing import fake_vulkan
from extmem.testing.fake_vulkan.sync_pages import SyncPage
from extmem.vk.handle_types import FENCE_OPAQUE_FD, NO_TYPES, SEMAPHORE_OPAQUE_FD, SEMAPHORE_SYNC_FD
from tests.unit.devices.vulkan.sync_steps import fake_backend, semaphore, sharing

pytestmark = pytest.mark.linux_only("semaphores are shared by fd")

POISONED = fake_vulkan.Manners(bad_semaphore_fd_poisons=True, any_semaphore_type=True)
"""As NVIDIA's driver: a bad fd makes every vkCreateSemaphore fail, and the type of a semaphore is not checked."""


def imported(backend: VulkanBackend, target: VulkanSemaphore, fd: int, *, trusted: bool = False) -> None:
    """Examine an fd, and import it into a semaphore."""
    examined = backend.examine_sync_fd(fd, SEMAPHORE_OPAQUE_FD, timeline=target.timeline, trusted=trusted)
    target.import_payload(SyncSource(SEMAPHORE_OPAQUE_FD, timeline=target.timeline, fd=examined))


@pytest.mark.parametrize("kind", ["closed", "pipe", "file", "null", "forged"])
def test_S60_a_bad_fd_is_refused_and_harms_nothing(kind: str) -> None:
    with fake_backend(manners=POISONED) as (fake, backend):
        target = semaphore(backend)
        reader, writer = os.pipe()
        forged = os.memfd_create("fake vulkan semaphore")
        os.ftruncate(forged, 4096)
        opened = {
            "null": os.open("/dev/null", os.O_RDWR),
            "file": os.memfd_create("another"),
            "pipe": reader,
            "forged": forged,
        }
        with pytest.raises(DriverError, match="vkImportSemaphoreFdKHR"):
            imported(backend, target, opened.get(kind, 9999))
        # The forged file looks like a payload, so it was proved on a device of its own, which is destroyed.
        assert bool(fake.bad_imports) == (kind == "forged")
        assert all(number != backend.raw for number, _ in fake.bad_imports)
        semaphore(backend).close()
        target.close()
        for fd in {*opened.values(), writer}:
            os.close(fd)


def test_the_driver_is_poisoned_by_an_fd_that_is_not_checked() -> None:
    # The planted fault: without the check, no semaphore can be created any more.
    with fake_backend(manners=POISONED) as (fake, backend):
        target = semaphore(backend)
        null = os.open("/dev/null", os.O_RDWR)
        unchecked = ExaminedFd(null, NO_TYPES, "device", trusted=True)
        with pytest.raises(DriverError):
            target.import_payload(SyncSource(SEMAPHORE_OPAQUE_FD, fd=unchecked))
        with pytest.raises(DriverError):
            semaphore(backend)
        fake.semaphores_poisoned_by = 0
        os.close(null)
        target.close()


def test_a_good_fd_is_imported_and_stays_the_callers() -> None:
    with fake_backend(manners=POISONED) as (fake, backend):
        source = semaphore(backend, timeline=True, shared=True)
        fd = source.export_fd(SEMAPHORE_OPAQUE_FD)
        assert fd is not None
        for trusted in (False, True):
            target = semaphore(backend, timeline=True)
            created = fake.calls.count("vkCreateDevice")
            imported(backend, target, fd.fd, trusted=trusted)
            assert fake.calls.count("vkCreateDevice") - created == (not trusted)
            source.signal(source.counter() + 1)
            assert target.counter() == source.counter()
            target.close()
        os.fstat(fd.fd)
        fd.close()
        source.close()


def test_S61_the_driver_does_not_tell_the_semaphore_type() -> None:
    with fake_backend(manners=POISONED) as (_, backend):
        source = semaphore(backend, shared=True)
        fd = source.export_fd(SEMAPHORE_OPAQUE_FD)
        assert fd is not None
        target = semaphore(backend, timeline=True)
        imported(backend, target, fd.fd)  # the descriptor has to tell; see rules 03263 and 03264
        target.close()
        source.close()
        fd.close()


def test_a_type_that_the_device_lacks_is_a_problem() -> None:
    with fake_backend(sharing(*fake_vulkan.BINARY_SYNC)) as (_, backend):
        source = semaphore(backend, shared=True)
        fd = source.export_fd(SEMAPHORE_OPAQUE_FD)
        assert fd is not None
        assert backend.examine_sync_fd(fd.fd, SEMAPHORE_OPAQUE_FD).problem == ""
        for examined in (
            backend.examine_sync_fd(fd.fd, SEMAPHORE_OPAQUE_FD, timeline=True),
            backend.examine_sync_fd(fd.fd, FENCE_OPAQUE_FD, fence=True),
            backend.examine_sync_fd(fd.fd, SEMAPHORE_SYNC_FD),
        ):
            assert "does not import" in examined.problem
        fd.close()
        source.close()


def test_a_file_that_is_no_sync_file_is_a_problem() -> None:
    with fake_backend(sharing(*fake_vulkan.SYNC_FILES)) as (_, backend):
        null = os.open("/dev/null", os.O_RDWR)
        assert "sync_file" in backend.examine_sync_fd(null, SEMAPHORE_SYNC_FD).problem
        os.close(null)
        page = SyncPage.new("binary", 1, b"", b"", name="fake sync_file")
        assert backend.examine_sync_fd(page.fd, SEMAPHORE_SYNC_FD).problem == ""
        page.close()
