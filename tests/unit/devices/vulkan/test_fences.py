"""Fences of a Vulkan driver: status, reset, sharing."""

from __future__ import annotations

import pytest

from extmem.devices.sync import SyncSource
from extmem.owning import Uses
from extmem.vk.handle_types import FENCE_OPAQUE_FD
from tests.unit.devices.vulkan.sync_steps import SECOND, fake_backend, fence, payload_of

pytestmark = pytest.mark.linux_only("fences are shared by fd")


def test_a_fence_is_signaled_by_a_submission_and_reset() -> None:
    with fake_backend() as (_, backend):
        one, signaled = fence(backend), fence(backend, signaled=True)
        assert (one.status(), signaled.status()) == (False, True)
        backend.submit_batches([], one, Uses())
        assert backend.wait_fences([one, signaled], timeout_ns=SECOND) and one.status()
        one.reset()
        assert not one.status()
        assert backend.wait_fences([one, signaled], any_of=True)
        one.close()
        signaled.close()


def test_S3_a_reset_of_a_permanent_import_resets_all() -> None:
    with fake_backend() as (_, backend):
        first, second = fence(backend, signaled=True, shared=True), fence(backend)
        second.import_payload(SyncSource(FENCE_OPAQUE_FD, payload=payload_of(first)))
        assert second.status()
        second.reset()
        assert not first.status()
        first.close()
        second.close()


def test_S10_a_reset_of_a_temporary_import_restores_the_permanent_payload() -> None:
    with fake_backend() as (_, backend):
        first, second = fence(backend, signaled=True, shared=True), fence(backend)
        second.import_payload(SyncSource(FENCE_OPAQUE_FD, temporary=True, payload=payload_of(first), identity=5))
        assert second.status() and second.stated_identity == 5
        second.reset()
        assert (first.status(), second.status(), second.stated_identity) == (True, False, 0)
        first.close()
        second.close()
