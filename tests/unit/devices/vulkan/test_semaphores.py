"""Semaphores of a Vulkan driver: created, signaled, exported and imported."""

from __future__ import annotations

import pytest

from extmem import vk
from extmem.devices.sync import Batch, SemaphoreSpec, SyncSource
from extmem.errors import AccessDeniedError, HandleStateError, UnsupportedError
from extmem.owning import Uses
from extmem.testing import fake_vulkan
from extmem.vk.handle_types import SEMAPHORE_OPAQUE_FD, SEMAPHORE_SYNC_FD
from tests.unit.devices.vulkan.sync_steps import (
    SECOND,
    fake_backend,
    fence,
    payload_of,
    semaphore,
    sharing,
    signal,
    wait_for,
)

pytestmark = pytest.mark.linux_only("semaphores are shared by fd")


def test_S1_a_timeline_has_a_value_that_the_host_reads_and_signals() -> None:
    with fake_backend() as (_, backend):
        one = semaphore(backend, timeline=True)
        assert (one.timeline, one.counter(), one.raw != 0) == (True, 0, True)
        one.signal(3)
        assert one.counter() == 3
        assert backend.wait_semaphores([(one, 3)])
        assert not backend.wait_semaphores([(one, 4)])
        one.close()


def test_a_closed_semaphore_cannot_be_used() -> None:
    with fake_backend() as (_, backend):
        one = semaphore(backend, timeline=True)
        one.close()
        one.close()
        with pytest.raises(HandleStateError):
            one.counter()


def test_S3_all_semaphores_on_one_payload_behave_as_one() -> None:
    with fake_backend() as (_, backend):
        first, second, done = semaphore(backend, shared=True), semaphore(backend), fence(backend)
        second.import_payload(SyncSource(SEMAPHORE_OPAQUE_FD, payload=payload_of(first), identity=7))
        assert second.stated_identity == 7
        for signaler, waiter in ((first, second), (second, first)):
            signal(backend, signaler)
            wait_for(backend, waiter, then=done)
            assert backend.wait_fences([done], timeout_ns=SECOND)
            done.reset()
        for one in (first, second, done):
            one.close()


def test_S7_a_wait_ends_a_temporary_import() -> None:
    with fake_backend() as (_, backend):
        first, second, done = semaphore(backend, shared=True), semaphore(backend), fence(backend)
        signal(backend, first)
        second.import_payload(
            SyncSource(SEMAPHORE_OPAQUE_FD, temporary=True, payload=payload_of(first), identity=first.stated_identity)
        )
        assert second.fd is not None
        wait_for(backend, second, then=done)
        assert backend.wait_fences([done], timeout_ns=SECOND)
        assert (second.fd, second.stated_identity) == (None, 0)  # its permanent payload is not shared
        signal(backend, second)  # which is unsignaled
        wait_for(backend, second)
        for one in (first, second, done):
            one.close()


def test_S18_a_sync_fd_of_minus_one_is_signaled() -> None:
    with fake_backend(sharing(*fake_vulkan.SYNC_FILES)) as (_, backend):
        one, done = backend.create_semaphore(SemaphoreSpec(False, export_types=SEMAPHORE_SYNC_FD)), fence(backend)
        one.import_payload(SyncSource(SEMAPHORE_SYNC_FD, temporary=True, signaled=True))
        backend.submit_batches([Batch(signals=[])], None, Uses())
        wait_for(backend, one, then=done)  # type: ignore[arg-type]
        assert backend.wait_fences([done], timeout_ns=SECOND)
        signal(backend, one)  # type: ignore[arg-type]
        assert one.export_fd(SEMAPHORE_SYNC_FD) is None  # signaled already
        one.close()
        done.close()


def test_S4_a_sync_fd_is_a_copy_of_a_pending_signal() -> None:
    with fake_backend(sharing(*fake_vulkan.SYNC_FILES)) as (_, backend):
        gate, done = semaphore(backend, timeline=True), fence(backend)
        made = backend.create_semaphore(SemaphoreSpec(False, export_types=SEMAPHORE_SYNC_FD))
        other = semaphore(backend)
        wait_for(backend, gate, 1)
        signal(backend, made)  # type: ignore[arg-type]
        copy = made.export_fd(SEMAPHORE_SYNC_FD)
        assert copy is not None
        examined = backend.examine_sync_fd(copy.fd, SEMAPHORE_SYNC_FD)
        assert examined.problem == ""
        other.import_payload(SyncSource(SEMAPHORE_SYNC_FD, temporary=True, fd=examined))
        copy.close()
        wait_for(backend, other, then=done)
        assert not backend.wait_fences([done])
        gate.signal(1)
        assert backend.wait_fences([done], timeout_ns=SECOND)
        for one in (gate, done, made, other):
            one.close()


def test_a_shared_timeline_has_a_host_word_that_every_signal_raises() -> None:
    with fake_backend() as (_, backend):
        first, second = semaphore(backend, timeline=True, shared=True), semaphore(backend, timeline=True)
        assert first.word is not None and second.word is None
        second.import_payload(SyncSource(SEMAPHORE_OPAQUE_FD, timeline=True, payload=payload_of(first)))
        assert second.word is not None
        first.signal(2)
        assert second.word.counter() == second.counter() == 2
        signal(backend, second, 5)
        assert backend.wait_semaphores([(first, 5)], timeout_ns=SECOND)
        backend.finish_submitted()
        assert first.word.counter() == first.counter() == 5
        first.close()
        second.close()


def test_a_signal_needs_its_right() -> None:
    with fake_backend() as (_, backend):
        first, second = semaphore(backend, timeline=True, shared=True), semaphore(backend, timeline=True)
        second.import_payload(
            SyncSource(SEMAPHORE_OPAQUE_FD, timeline=True, payload=payload_of(first, writable=False), writable=False)
        )
        for attempt in (lambda: second.signal(1), lambda: signal(backend, second, 1)):
            with pytest.raises(AccessDeniedError, match="right to signal"):
                attempt()
        first.signal(1)
        assert backend.wait_semaphores([(second, 1)])
        first.close()
        second.close()


def test_a_timeline_that_the_driver_does_not_share_is_the_hosts() -> None:
    with fake_backend(sharing(*fake_vulkan.BINARY_SYNC)) as (_, backend):
        assert backend.timelines == "host"
        first, second = semaphore(backend, timeline=True, shared=True), semaphore(backend, timeline=True)
        assert first.raw == 0 and second.raw != 0
        second.import_payload(SyncSource(SEMAPHORE_OPAQUE_FD, timeline=True, payload=payload_of(first)))
        assert second.raw == 0
        second.signal(4)
        assert first.counter() == 4
        first.close()
        second.close()


def test_a_payload_of_the_driver_replaces_one_of_the_host() -> None:
    with fake_backend() as (_, backend):
        source, target = semaphore(backend, timeline=True, shared=True), semaphore(backend, timeline=True)
        from extmem.devices.host import late

        host = late.sync.create_semaphore(SemaphoreSpec(True, export_types=SEMAPHORE_OPAQUE_FD))
        target.import_payload(SyncSource(SEMAPHORE_OPAQUE_FD, timeline=True, payload=payload_of(host)))
        assert target.raw == 0
        host.signal(1)
        assert target.counter() == 1
        target.import_payload(SyncSource(SEMAPHORE_OPAQUE_FD, timeline=True, payload=payload_of(source)))
        assert target.raw != 0 and target.counter() == 0
        for one in (source, target, host):
            one.close()


def test_a_failed_import_leaves_everything_as_it_was() -> None:
    with fake_backend() as (fake, backend):
        first, second = semaphore(backend, timeline=True, shared=True), semaphore(backend, timeline=True)
        second.signal(9)
        fake.fail(1, vk.Result.ERROR_OUT_OF_HOST_MEMORY, command="vkImportSemaphoreFdKHR")
        payload = payload_of(first)
        with pytest.raises(Exception, match="OUT_OF_HOST_MEMORY"):
            second.import_payload(SyncSource(SEMAPHORE_OPAQUE_FD, timeline=True, payload=payload))
        assert not payload.closed and second.counter() == 9
        payload.close()
        first.close()
        second.close()


def test_a_handle_needs_a_driver_of_windows() -> None:
    with fake_backend() as (_, backend):
        one = semaphore(backend, shared=True)
        with pytest.raises(UnsupportedError, match="by fd"):
            one.import_payload(SyncSource(SEMAPHORE_OPAQUE_FD, handle=4))
        with pytest.raises(UnsupportedError, match="by fd"):
            one.export_win32(SEMAPHORE_OPAQUE_FD)
        one.close()


def test_a_timeline_needs_the_feature_unless_it_is_the_hosts() -> None:
    from dataclasses import replace

    extensions = tuple(name for name in fake_vulkan.DISCRETE.extensions if name != "VK_KHR_timeline_semaphore")
    with fake_backend(replace(fake_vulkan.DISCRETE, extensions=extensions)) as (_, backend):
        assert backend.timelines == "host"
        with pytest.raises(UnsupportedError, match="timelineSemaphore"):
            semaphore(backend, timeline=True)
        one = semaphore(backend, timeline=True, shared=True)
        signal(backend, one, 1)
        assert backend.wait_semaphores([(one, 1)], timeout_ns=SECOND)
        one.close()


def test_an_fd_is_a_new_one_for_each_export_and_one_for_the_object_manager() -> None:
    with fake_backend() as (_, backend):
        one = semaphore(backend, shared=True)
        first, second = one.export_fd(SEMAPHORE_OPAQUE_FD), one.export_fd(SEMAPHORE_OPAQUE_FD)
        assert first is not None and second is not None and first.fd != second.fd
        assert one.fd == one.fd and one.stated_identity
        for fd in (first, second):
            fd.close()
        one.close()
        alone = semaphore(backend)
        assert (alone.fd, alone.stated_identity, alone.pages) == (None, 0, ())
        alone.close()
