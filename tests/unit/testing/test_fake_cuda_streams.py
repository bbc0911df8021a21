"""The scripted CUDA driver's streams and semaphores: its manners, and the misuses that it must notice."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from typing import Any

import pytest

from extmem.testing import fake_cuda
from extmem.testing.fake_vulkan.sync_pages import SyncPage
from extmem.testing.waiting import wait_until

pytestmark = pytest.mark.linux_only("semaphores of the fake drivers are shared by fd")

GPU = fake_cuda.Gpu()
STREAM, PAGE = 0x5000, 4096
OPAQUE_FD, TIMELINE = 1, 9
UNKNOWN, INVALID_VALUE, INVALID_CONTEXT, NOT_READY = 999, 1, 201, 600


@pytest.fixture
def fake() -> Iterator[fake_cuda.FakeCuda]:
    """A fake with a current context."""
    made = fake_cuda.FakeCuda()
    cu = made.module
    cu.cuInit(0)
    cu.cuCtxPushCurrent(cu.cuDevicePrimaryCtxRetain(0)[1])
    yield made
    cu.cuCtxPopCurrent()
    cu.cuDevicePrimaryCtxRelease(0)
    assert not made.alive() and not made.misuses


def imported(fake: fake_cuda.FakeCuda, kind: str, cuda_type: int, device: bytes = GPU.uuid) -> tuple[Any, SyncPage]:
    """Import a new semaphore, and return it with its payload, which the test closes."""
    page = SyncPage.new(kind, 0, device, GPU.driver_uuid)
    result, semaphore = fake_import(fake, os.dup(page.fd), cuda_type)
    assert not result
    return semaphore, page


def fake_import(fake: fake_cuda.FakeCuda, fd: int, cuda_type: int) -> Any:
    cu = fake.module
    description = cu.CUDA_EXTERNAL_SEMAPHORE_HANDLE_DESC()
    description.type = cu.CUexternalSemaphoreHandleType(cuda_type)
    description.handle.fd = fd
    return cu.cuImportExternalSemaphore(description)


def wait(fake: fake_cuda.FakeCuda, semaphore: Any, value: int = 0) -> None:
    params = fake.module.CUDA_EXTERNAL_SEMAPHORE_WAIT_PARAMS()
    params.params.fence.value = value
    assert not fake.module.cuWaitExternalSemaphoresAsync([semaphore], [params], 1, STREAM)[0]


def signal(fake: fake_cuda.FakeCuda, semaphore: Any, value: int = 0) -> None:
    params = fake.module.CUDA_EXTERNAL_SEMAPHORE_SIGNAL_PARAMS()
    params.params.fence.value = value
    assert not fake.module.cuSignalExternalSemaphoresAsync([semaphore], [params], 1, STREAM)[0]


@pytest.mark.parametrize(("kind", "cuda_type"), [("binary", TIMELINE), ("timeline", OPAQUE_FD)])
def test_S53_the_wrong_type_is_imported_without_an_error(kind: str, cuda_type: int, fake: fake_cuda.FakeCuda) -> None:
    semaphore, page = imported(fake, kind, cuda_type)
    fake.module.cuDestroyExternalSemaphore(semaphore)
    page.close()


def test_a_file_that_is_no_semaphore_is_unknown_and_stays_the_callers(fake: fake_cuda.FakeCuda) -> None:
    fd = os.open("/dev/null", os.O_RDWR)
    assert int(fake_import(fake, fd, TIMELINE)[0]) == UNKNOWN
    os.close(fd)
    other = SyncPage.new("timeline", 0, b"another gpu 0001", GPU.driver_uuid)
    assert int(fake_import(fake, other.fd, TIMELINE)[0]) == INVALID_VALUE
    other.close()


def test_S54_a_stream_works_in_order_and_another_process_can_let_it_go_on(fake: fake_cuda.FakeCuda) -> None:
    cu = fake.module
    semaphore, page = imported(fake, "timeline", TIMELINE)
    event = cu.cuEventCreate(0)[1]
    wait(fake, semaphore, 1)
    signal(fake, semaphore, 2)
    cu.cuEventRecord(event, STREAM)
    assert int(cu.cuStreamQuery(STREAM)[0]) == int(cu.cuEventQuery(event)[0]) == NOT_READY
    assert not cu.cuStreamQuery(STREAM + 16)[0], "another stream"
    page.signal(1)  # as another process does, without a call here
    wait_until(lambda: page.number == 2, lambda: "the fake's thread")
    assert not cu.cuStreamSynchronize(STREAM)[0] and not cu.cuEventQuery(event)[0]
    cu.cuEventDestroy(event)
    cu.cuDestroyExternalSemaphore(semaphore)
    page.close()


def test_a_binary_wait_consumes_the_signal(fake: fake_cuda.FakeCuda) -> None:
    semaphore, page = imported(fake, "binary", OPAQUE_FD)
    signal(fake, semaphore)
    assert page.number == 1
    wait(fake, semaphore)
    assert not page.number
    fake.module.cuDestroyExternalSemaphore(semaphore)
    page.close()


def test_S56_destroying_what_a_stream_waits_for_is_a_misuse(fake: fake_cuda.FakeCuda) -> None:
    semaphore, page = imported(fake, "timeline", TIMELINE)
    wait(fake, semaphore, 1)
    fake.module.cuDestroyExternalSemaphore(semaphore)
    assert [misuse.command for misuse in fake.misuses] == ["cuDestroyExternalSemaphore"]
    fake.misuses.clear()
    fake.queues.clear()
    page.close()


@pytest.fixture
def word(fake: fake_cuda.FakeCuda) -> Iterator[ctypes.c_uint64]:
    """A word of registered memory."""
    room = ctypes.create_string_buffer(2 * PAGE)
    address = -(-ctypes.addressof(room) // PAGE) * PAGE
    fake.module.cuMemHostRegister(address, PAGE, 2)
    yield ctypes.c_uint64.from_address(address)
    fake.module.cuMemHostUnregister(address)


def test_S58_words_of_memory_order_streams(fake: fake_cuda.FakeCuda, word: ctypes.c_uint64) -> None:
    cu, at = fake.module, ctypes.addressof(word)
    cu.cuStreamWaitValue64(STREAM, at, 5, 0)
    cu.cuStreamWriteValue64(STREAM, at, 9, 0)
    assert not word.value
    word.value = 6
    assert not cu.cuStreamSynchronize(STREAM)[0] and word.value == 9


def test_misuses_of_words_are_noticed(fake: fake_cuda.FakeCuda, word: ctypes.c_uint64) -> None:
    cu, at = fake.module, ctypes.addressof(word)
    assert int(cu.cuStreamWaitValue64(STREAM, at + 4, 1, 0)[0]) == INVALID_VALUE
    assert int(cu.cuStreamWaitValue64(STREAM, at + PAGE, 1, 0)[0]) == INVALID_VALUE
    assert len(fake.misuses) == 2
    cu.cuStreamWaitValue64(STREAM, at, 1, 0)
    cu.cuMemHostUnregister(at)
    assert len(fake.misuses) == 3 and "a stream has still to wait" in fake.misuses[2].problem
    cu.cuMemHostRegister(at, PAGE, 0x0A)  # for reading
    assert int(cu.cuStreamWriteValue64(STREAM, at, 1, 0)[0]) == 700
    fake.misuses.clear()
    word.value = 1


def test_without_a_current_context_nothing_is_given_to_a_stream(fake: fake_cuda.FakeCuda, word: Any) -> None:
    cu = fake.module
    context = cu.cuCtxPopCurrent()[1]
    assert int(cu.cuStreamWriteValue64(STREAM, ctypes.addressof(word), 1, 0)[0]) == INVALID_CONTEXT
    cu.cuCtxPushCurrent(context)
    assert not word.value
