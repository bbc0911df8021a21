"""Semaphores of a VkDevice that another binding created: it has the features that its creator enabled."""

from __future__ import annotations

import pytest

from extmem import raw
from extmem.devices.sync import SemaphoreSpec, SyncSource
from extmem.devices.vulkan.backend import VulkanBackend
from extmem.errors import UnsupportedError
from extmem.vk.handle_types import SEMAPHORE_OPAQUE_FD
from tests.unit.devices.vulkan.sync_steps import SECOND, fake_backend, fence, payload_of, semaphore, wait_for

pytestmark = pytest.mark.linux_only("semaphores are shared by fd")
_VERSION_1_3 = 1 << 22 | 3 << 12


def test_its_timelines_are_used_if_the_feature_is_stated() -> None:
    with fake_backend() as (_, backend):
        physical = backend.device.physical
        handles = (physical.instance.raw, physical.raw, backend.raw)
        extensions = backend.device.enabled
        stated = {"extensions": extensions, "queue_family_index": 0, "api_version": _VERSION_1_3}
        with raw.adopt_device(*handles, **stated, features=["timelineSemaphore"]) as device:  # type: ignore[arg-type]
            adopted = device.backend
            assert isinstance(adopted, VulkanBackend)
            assert (adopted.timelines, adopted.device.features) == ("driver", {"timelineSemaphore"})
            one, other, done = semaphore(adopted, timeline=True, shared=True), semaphore(backend, timeline=True), None
            other.import_payload(SyncSource(SEMAPHORE_OPAQUE_FD, timeline=True, payload=payload_of(one)))
            done = fence(adopted)
            wait_for(adopted, one, 1, done)
            other.signal(1)  # not by a submission: both devices have one queue, which executes in order
            assert adopted.wait_fences([done], timeout_ns=SECOND)
            for made in (one, other, done):
                made.close()
            adopted.finish_submitted()
        with raw.adopt_device(*handles, **stated) as device:  # type: ignore[arg-type]
            assert isinstance(device.backend, VulkanBackend)
            assert (device.backend.timelines, device.backend.device.features) == ("host", frozenset())
            with pytest.raises(UnsupportedError, match="timelineSemaphore"):
                device.backend.create_semaphore(SemaphoreSpec(True))
