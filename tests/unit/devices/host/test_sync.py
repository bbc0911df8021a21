"""Semaphores and fences of the host device by `SyncBackend`: payloads, permanence, submissions."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from extmem import vk
from extmem.devices.backend import Recorder
from extmem.devices.host.backend import HostBackend
from extmem.devices.sync import (
    Batch,
    FenceSpec,
    NativeFence,
    NativeSemaphore,
    SemaphoreSignal,
    SemaphoreSpec,
    SemaphoreWait,
    SyncBackend,
    SyncSource,
)
from extmem.errors import AccessDeniedError, DriverError, HandleStateError, UnsupportedError
from extmem.owning import Uses
from extmem.testing.leaks import no_leaks
from extmem.testing.waiting import DEADLINE
from extmem.vk.handle_types import FENCE_OPAQUE_FD, FENCE_SYNC_FD, SEMAPHORE_OPAQUE_FD, SEMAPHORE_SYNC_FD

FAR = int(DEADLINE * 1e9)
FDS = pytest.mark.linux_only("file descriptors of payloads")


@pytest.fixture
def backend() -> Iterator[HostBackend]:
    made = HostBackend()
    yield made
    made.close()


def timeline(backend: HostBackend, value: int = 0) -> NativeSemaphore:
    return backend.create_semaphore(SemaphoreSpec(True, value))


def binary(backend: HostBackend) -> NativeSemaphore:
    return backend.create_semaphore(SemaphoreSpec(False))


def fence(backend: HostBackend, signaled: bool = False) -> NativeFence:
    return backend.create_fence(FenceSpec(signaled))


def submit(
    backend: HostBackend,
    *,
    waits: list[tuple[NativeSemaphore, int]] | None = None,
    signals: list[tuple[NativeSemaphore, int]] | None = None,
    fence: NativeFence | None = None,
    **batch: Any,
) -> None:
    one = Batch(
        waits=[SemaphoreWait(*wait) for wait in waits or ()],
        signals=[SemaphoreSignal(*made) for made in signals or ()],
        **batch,
    )
    with Uses() as uses:
        backend.submit_batches([one], fence, uses)


def share(backend: HostBackend, source: Any, target: Any, *, temporary: bool = False, writable: bool = True) -> None:
    """Export from `source` as OPAQUE_FD, and import into `target`."""
    is_fence = isinstance(source, type(fence(backend)))
    is_timeline = not is_fence and source.timeline
    with_type = FENCE_OPAQUE_FD if is_fence else SEMAPHORE_OPAQUE_FD
    exported = source.export_fd(with_type)
    examined = backend.examine_sync_fd(exported.fd, with_type, fence=is_fence, timeline=is_timeline)
    target.import_payload(
        SyncSource(with_type, temporary=temporary, timeline=is_timeline, fd=examined, writable=writable)
    )
    exported.close()


def is_signaled(backend: HostBackend, semaphore: Any) -> bool:
    """Whether a binary semaphore is signaled; a wait consumes the signal."""
    return bool(semaphore.submit_wait(0))


def test_the_host_device_has_semaphores(backend: HostBackend) -> None:
    assert isinstance(backend, SyncBackend)
    assert (backend.timelines, backend.max_timeline_difference) == ("host", 2**63 - 1)
    assert not hasattr(backend, "queue_submit")
    found = backend.external_semaphore_properties(
        vk.PhysicalDeviceExternalSemaphoreInfo(vk.ExternalSemaphoreHandleTypeFlagBits.OPAQUE_WIN32)
    )
    assert found.external_semaphore_features == 3
    fences = backend.external_fence_properties(
        vk.PhysicalDeviceExternalFenceInfo(vk.ExternalFenceHandleTypeFlagBits.OPAQUE_WIN32)
    )
    assert fences.external_fence_features == 3


def test_a_closed_device_creates_none(backend: HostBackend) -> None:
    kept = timeline(backend)
    backend.close()
    for create in (timeline, binary, fence):
        with pytest.raises(HandleStateError, match="open the device again"):
            create(backend)
    kept.signal(1)
    assert kept.counter() == 1


# Timelines.


def test_a_timeline_counts_and_is_waited_for(backend: HostBackend) -> None:
    one, two = timeline(backend, 5), timeline(backend)
    assert (one.timeline, one.raw, one.counter()) == (True, 0, 5)
    assert backend.wait_semaphores([(one, 5)])
    assert not backend.wait_semaphores([(one, 6)], timeout_ns=1_000_000)
    assert backend.wait_semaphores([(one, 5), (two, 1)], any_of=True)
    thread = threading.Thread(target=one.signal, args=(7,))
    thread.start()
    assert backend.wait_semaphores([(one, 6)], timeout_ns=FAR)
    thread.join(DEADLINE)
    with pytest.raises(DriverError, match="signal a greater value"):
        one.signal(7)


@FDS
def test_S3_imports_of_a_timeline_are_one_payload(backend: HostBackend) -> None:
    one, two = timeline(backend), timeline(backend, 3)
    share(backend, one, two)
    assert two.counter() == 0
    two.signal(4)
    assert one.counter() == 4
    one.close()
    two.signal(5)
    assert two.counter() == 5


@FDS
def test_S23_an_import_without_the_right_to_signal_waits_only(backend: HostBackend) -> None:
    one, two = timeline(backend), timeline(backend)
    share(backend, one, two, writable=False)
    with pytest.raises(AccessDeniedError):
        two.signal(1)
    with pytest.raises(AccessDeniedError):
        submit(backend, signals=[(two, 1)])
    exported = two.export_fd(SEMAPHORE_OPAQUE_FD)
    assert exported is not None
    assert not backend.examine_sync_fd(exported.fd, SEMAPHORE_OPAQUE_FD, timeline=True).writable
    one.signal(1)
    assert backend.wait_semaphores([(two, 1)])


@FDS
@pytest.mark.parametrize("kind", ["timeline", "binary", "fence"])
def test_S16_a_bad_fd_is_the_error_of_a_bad_handle(backend: HostBackend, kind: str) -> None:
    made: Any = {"timeline": timeline, "binary": binary, "fence": fence}[kind](backend)
    with open(os.devnull) as other:
        handle_type = FENCE_OPAQUE_FD if kind == "fence" else SEMAPHORE_OPAQUE_FD
        examined = backend.examine_sync_fd(
            other.fileno(), handle_type, fence=kind == "fence", timeline=kind == "timeline"
        )
        with pytest.raises(DriverError, match=r"vkImport(Semaphore|Fence)FdKHR: VK_ERROR_INVALID_EXTERNAL_HANDLE"):
            made.import_payload(SyncSource(handle_type, fd=examined))
        other.fileno()  # it is open
    with pytest.raises(UnsupportedError, match="by fd, or through the object manager"):
        made.import_payload(SyncSource(handle_type, name="a name"))
    with pytest.raises(UnsupportedError, match="no driver that makes HANDLEs"):
        made.export_win32(handle_type)
    assert made.stated_identity == 0


# Binary semaphores.


def test_a_binary_semaphore_is_signaled_and_waited_for_by_submissions(backend: HostBackend) -> None:
    one = binary(backend)
    submit(backend, signals=[(one, 0)])
    with pytest.raises(DriverError, match="is signaled already"):
        submit(backend, signals=[(one, 0)])
    submit(backend, waits=[(one, 0)])
    assert not is_signaled(backend, one)
    for call in (one.counter, lambda: one.signal(1)):
        with pytest.raises(UnsupportedError, match="a binary semaphore, which has no value"):
            call()


@FDS
def test_S3_imports_of_a_binary_semaphore_are_one_payload(backend: HostBackend) -> None:
    """CTS's transference_permanent: signal A, wait B, signal B, wait A."""
    one, two = binary(backend), binary(backend)
    share(backend, one, two)
    for first, second in ((one, two), (two, one)):
        submit(backend, signals=[(first, 0)])
        submit(backend, waits=[(second, 0)])


@FDS
def test_S6_a_permanent_import_replaces_the_payload(backend: HostBackend) -> None:
    one, two = binary(backend), binary(backend)
    submit(backend, signals=[(two, 0)])
    share(backend, one, two)
    assert not is_signaled(backend, two)
    share(backend, one, two)  # again
    submit(backend, signals=[(one, 0)])
    assert is_signaled(backend, two)


@FDS
def test_S7_a_temporary_payload_ends_with_the_next_wait(backend: HostBackend) -> None:
    one, two = binary(backend), binary(backend)
    share(backend, one, two, temporary=True)
    submit(backend, signals=[(two, 0)])  # goes to the temporary payload
    submit(backend, waits=[(one, 0)])
    submit(backend, signals=[(one, 0)])
    submit(backend, waits=[(two, 0)])  # consumes, and restores
    submit(backend, signals=[(one, 0)])
    assert not is_signaled(backend, two)  # its own payload was never signaled
    assert is_signaled(backend, one)


@FDS
def test_S8_a_second_temporary_import_replaces_the_first(backend: HostBackend) -> None:
    one, two, target = binary(backend), binary(backend), binary(backend)
    submit(backend, signals=[(target, 0)])
    share(backend, one, target, temporary=True)
    share(backend, two, target, temporary=True)
    submit(backend, signals=[(two, 0)])
    submit(backend, waits=[(target, 0)])
    assert is_signaled(backend, target)  # the permanent payload is back


@FDS
def test_S18_minus_one_is_a_signaled_payload(backend: HostBackend) -> None:
    one = binary(backend)
    with pytest.raises(UnsupportedError, match="only while it is signaled, as fd -1"):
        one.export_fd(SEMAPHORE_SYNC_FD)
    one.import_payload(SyncSource(SEMAPHORE_SYNC_FD, temporary=True, signaled=True))
    assert one.export_fd(SEMAPHORE_SYNC_FD) is None  # S5: acts like a wait
    assert not is_signaled(backend, one)
    made = fence(backend)
    made.import_payload(SyncSource(FENCE_SYNC_FD, temporary=True, signaled=True))
    assert made.status()
    assert made.export_fd(FENCE_SYNC_FD) is None
    assert not made.status()


# Fences.


def test_a_fence_is_signaled_waited_for_and_reset(backend: HostBackend) -> None:
    one, two = fence(backend), fence(backend, signaled=True)
    assert (one.status(), two.status()) == (False, True)
    assert backend.wait_fences([one, two], any_of=True)
    assert not backend.wait_fences([one, two], timeout_ns=1_000_000)
    submit(backend, fence=one)
    assert backend.wait_fences([one, two])
    one.reset()
    assert not one.status()
    assert backend.wait_fences([])


@FDS
def test_S3_a_reset_resets_all_fences_of_the_payload(backend: HostBackend) -> None:
    one, two = fence(backend), fence(backend)
    share(backend, one, two)
    submit(backend, fence=one)
    assert two.status()
    two.reset()
    assert not one.status()


@FDS
def test_S9_S10_a_reset_ends_a_temporary_import_and_resets_the_own_payload(backend: HostBackend) -> None:
    one, two = fence(backend, signaled=True), fence(backend, signaled=True)
    share(backend, one, two, temporary=True)
    assert backend.wait_fences([two])
    assert two.status()
    two.reset()
    assert not two.status()
    assert one.status()


@FDS
def test_S23_a_fence_without_the_right_to_signal_is_not_reset(backend: HostBackend) -> None:
    one, two = fence(backend), fence(backend)
    share(backend, one, two, writable=False)
    with pytest.raises(AccessDeniedError):
        submit(backend, fence=two)
    submit(backend, fence=one)
    assert two.status()
    with pytest.raises(AccessDeniedError):
        two.reset()
    assert one.status()


# Submissions.


def test_a_batch_waits_then_runs_then_signals(backend: HostBackend) -> None:
    begin, end, done = timeline(backend), timeline(backend), fence(backend)
    seen: list[int] = []

    def record(recorder: Recorder) -> None:
        recorder.pipeline_barrier(1, 1, (), (), ())
        seen.append(begin.counter())

    thread = threading.Thread(target=begin.signal, args=(3,))
    thread.start()
    submit(backend, waits=[(begin, 3)], record=record, signals=[(end, 9)], fence=done)
    thread.join(DEADLINE)
    assert (seen, end.counter(), done.status()) == ([3], 9, True)


def test_command_buffers_of_other_code_are_refused(backend: HostBackend) -> None:
    done = fence(backend)
    with pytest.raises(UnsupportedError, match="1 command buffers are given"):
        submit(backend, command_buffers=[1], fence=done)
    assert not done.status()


@pytest.mark.linux_only("signals of a timer")
@pytest.mark.parametrize("kind", ["timeline", "binary"])
def test_S76_a_submission_that_waits_for_itself_is_interrupted(backend: HostBackend, kind: str) -> None:
    class Interrupted(Exception):
        pass

    def handler(*_: object) -> None:
        raise Interrupted

    made = timeline(backend) if kind == "timeline" else binary(backend)
    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(Interrupted):
            submit(backend, waits=[(made, 1)], signals=[(made, 1)])
    finally:
        signal.signal(signal.SIGALRM, before)
    assert kind == "binary" or made.counter() == 0


# Ends.


@pytest.mark.parametrize("kind", ["timeline", "binary", "fence"])
def test_what_is_closed_says_so_and_leaves_nothing(backend: HostBackend, kind: str) -> None:
    create: Any = {"timeline": timeline, "binary": binary, "fence": fence}[kind]
    create(backend).close()
    with no_leaks(objects=False):
        made = create(backend)
        assert made.fd > 0
        assert made.pages is not None
        with made.keeper.use():
            made.close()
            assert made.fd > 0  # in use
        made.close()
        with pytest.raises(HandleStateError, match="is closed; create or"):
            made.fd  # noqa: B018
        with pytest.raises(HandleStateError):
            made.export_fd(1)
        uses: list[Any] = [made.status, made.reset] if kind == "fence" else [lambda: made.signal(1)]
        for use in uses if kind != "binary" else [lambda: is_signaled(backend, made)]:
            with pytest.raises(HandleStateError):
                use()


@FDS
@pytest.mark.slow("4,096 imports")
@pytest.mark.parametrize("kind", ["timeline", "binary", "fence"])
def test_S20_a_payload_is_imported_4096_times(backend: HostBackend, kind: str) -> None:
    create: Any = {"timeline": timeline, "binary": binary, "fence": fence}[kind]
    source, target = create(backend), create(backend)
    share(backend, source, target)
    with no_leaks(objects=False):
        for _ in range(4096):
            share(backend, source, target)
