"""Waits and signals on streams: without a wait of the host, held until they are done, and nothing left afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import extmem
from extmem.api import Device
from extmem.devices.sync import SemaphoreSpec
from extmem.testing import fake_cuda
from extmem.testing.waiting import wait_until

STREAM = 0x5000
S = 1_000_000_000


@pytest.fixture
def backend(cuda: Device) -> Iterator[Any]:
    yield cuda.backend
    cuda.backend.finish_submitted()  # type: ignore[attr-defined]


def timeline(backend: Any, value: int = 0) -> Any:
    return backend.create_semaphore(SemaphoreSpec(timeline=True, initial_value=value))


@pytest.fixture(params=["page", "driver"])
def semaphore(request: pytest.FixtureRequest, backend: Any, vulkan: Device, name: str) -> Iterator[Any]:
    """The native semaphore of a timeline of each kind: a page of the host, and one of the Vulkan driver."""
    if request.param == "page":
        made = timeline(backend)
        yield made
        made.close()
        return
    with vulkan.timeline(name=name), extmem.open_timeline(name, device=request.getfixturevalue("cuda")) as opened:
        yield opened.record.native


def reached(backend: Any, semaphore: Any, value: int, timeout: float = 10.0) -> bool:
    return bool(backend.wait_semaphores([(semaphore, value)], timeout_ns=int(timeout * S)))


def test_a_stream_waits_and_signals_while_the_host_goes_on(backend: Any, semaphore: Any) -> None:
    backend.stream_wait(STREAM, [(semaphore, 1)])
    backend.stream_signal(STREAM, [(semaphore, 2)])
    assert semaphore.counter() == 0
    semaphore.signal(1)
    assert reached(backend, semaphore, 2) and semaphore.counter() == 2


@pytest.mark.parametrize("stream", [0, 1, 2])
def test_the_default_streams_are_those_of_the_primary_context(stream: int, backend: Any, semaphore: Any) -> None:
    backend.stream_signal(stream, [(semaphore, 3)])
    assert reached(backend, semaphore, 3)


def test_several_at_once_are_one_operation(backend: Any, semaphore: Any, fake: fake_cuda.FakeCuda) -> None:
    other = timeline(backend)
    backend.stream_wait(STREAM, [(semaphore, 1), (other, 1)])
    backend.stream_signal(STREAM, [(semaphore, 5), (other, 6)])
    semaphore.signal(1)
    assert not reached(backend, other, 6, timeout=0)
    other.signal(1)
    assert reached(backend, semaphore, 5) and reached(backend, other, 6)
    other.close()


def test_a_second_signal_calls_cuda_as_often_as_c_does(backend: Any, fake: fake_cuda.FakeCuda, semaphore: Any) -> None:
    for value in (1, 2):
        fake.calls.clear()
        backend.stream_wait(STREAM, [(semaphore, 0)])
        backend.stream_signal(STREAM, [(semaphore, value)])
    # The first call is repeated in the primary context, because no context is current here.
    asked = ["cuStreamIsCapturing"] * 2
    words = [*asked, "cuStreamWaitValue64", "cuEventRecord", *asked, "cuStreamWriteValue64", "cuLaunchHostFunc"]
    waits = [*asked, "cuWaitExternalSemaphoresAsync", "cuEventRecord"]
    driver = [*waits, *asked, "cuSignalExternalSemaphoresAsync", "cuLaunchHostFunc"]
    assert [name for name in fake.calls if not name.startswith("cuCtx")] in (words, driver)


def test_in_a_current_context_nothing_is_called_twice(backend: Any, fake: fake_cuda.FakeCuda, semaphore: Any) -> None:
    backend.stream_signal(STREAM, [(semaphore, 1)])
    with backend.device.gpu.current:
        fake.calls.clear()
        backend.stream_signal(STREAM, [(semaphore, 2)])
        assert fake.calls[-1] == "cuLaunchHostFunc" and len(fake.calls) == 3


def test_what_a_stream_still_waits_for_is_kept_when_it_is_closed(backend: Any, fake: fake_cuda.FakeCuda) -> None:
    waited, other = timeline(backend), timeline(backend)
    backend.stream_wait(STREAM, [(other, 1), (waited, 0)])
    waited.close()
    backend.finish_submitted()
    assert fake.alive()["registrations"] == 2, "the stream has not reached the wait"
    other.signal(1)
    wait_until(lambda: not any(fake.queues.values()), lambda: "the stream to go on")
    backend.finish_submitted()
    assert fake.alive()["registrations"] == 1
    other.close()
    assert not fake.alive()["registrations"] and not fake.alive()["events"]


def test_a_closed_semaphore_is_refused(backend: Any, semaphore: Any) -> None:
    backend.stream_signal(STREAM, [(semaphore, 1)])
    closed = timeline(backend)
    backend.stream_signal(STREAM, [(closed, 1)])
    closed.close()
    for use in (backend.stream_wait, backend.stream_signal):
        with pytest.raises(extmem.HandleStateError, match="closed"):
            use(STREAM, [(closed, 2)])


def test_without_the_right_to_signal_a_stream_waits_and_does_not_signal(cuda: Device, host: Device, name: str) -> None:
    backend: Any = cuda.backend
    with (
        host.timeline(name=name) as owner,
        extmem.open_timeline(name, device=cuda, access=extmem.Access.READ) as opened,
    ):
        native = opened.record.native
        backend.stream_wait(STREAM, [(native, 1)])
        with pytest.raises(extmem.AccessDeniedError, match="right to signal"):
            backend.stream_signal(STREAM, [(native, 2)])
        assert owner.value == 0
        owner.signal(1)


@pytest.fixture
def host() -> Iterator[Device]:
    with extmem.open_device(kind="host") as opened:
        yield opened


def test_a_gpu_that_cannot_wait_for_words_is_told() -> None:
    fake = fake_cuda.FakeCuda([fake_cuda.Gpu(waits_for_words=False)])
    with fake_cuda.installed(fake), extmem.open_device(kind="cuda") as device, device.timeline() as one:
        backend: Any = device.backend
        with pytest.raises(extmem.UnsupportedError, match="64-bit words.*wait on the host"):
            backend.stream_wait(STREAM, [(one.record.native, 1)])
        one.signal(1)


@pytest.mark.parametrize("command", ["cuEventRecord", "cuStreamWaitValue64"])
def test_a_wait_that_fails_is_an_error_and_holds_nothing(command: str, backend: Any, fake: fake_cuda.FakeCuda) -> None:
    one = timeline(backend)
    backend.stream_wait(STREAM, [(one, 0)])
    fake.fail(1, 719, command=command)
    with pytest.raises(extmem.DriverError, match=f"{command}.*719"):
        backend.stream_wait(STREAM, [(one, 0)])
    one.close()
    backend.finish_submitted()
    assert not fake.alive()["registrations"]


@pytest.mark.parametrize("command", ["cuStreamWriteValue64", "cuLaunchHostFunc"])
@pytest.mark.parametrize("used", [False, True], ids=["first", "second"])
def test_a_signal_that_fails_is_an_error_and_holds_nothing(
    command: str, used: bool, backend: Any, fake: fake_cuda.FakeCuda
) -> None:
    one = timeline(backend)
    if used:
        backend.stream_signal(STREAM, [(one, 1)])
    fake.fail(1, 719, command=command)
    with pytest.raises(extmem.DriverError, match=f"{command}.*719"):
        backend.stream_signal(STREAM, [(one, 2)])
    backend.stream_signal(STREAM, [(one, 3)])
    assert reached(backend, one, 3)
    one.close()
    backend.finish_submitted()
    assert not fake.alive()["registrations"]


def test_the_devices_own_commands_wait_and_signal_in_order(cuda: Device, backend: Any) -> None:
    with cuda.allocate(4096) as memory, cuda.timeline() as one:
        memory.fill(1)
        with cuda.commands(wait=(one, 1), signal=(one, 2)) as commands:
            commands.fill_buffer(memory.buffer(), 0x02020202)
        assert one.value == 0, "the block has ended, and the stream waits"
        one.signal(1)
        one.wait(2, 10)
        assert set(memory.read_bytes()) == {2}


def test_a_fence_is_signaled_when_the_commands_are_done(cuda: Device) -> None:
    with cuda.allocate(4096) as memory, cuda.timeline() as one, cuda.fence() as fence:
        with cuda.commands(wait=(one, 1), fence=fence) as commands:
            commands.fill_buffer(memory.buffer(), 5)
        assert not fence.signaled
        one.signal(1)
        fence.wait(10)


@pytest.mark.parametrize("kind", ["cuda", "vulkan"])
def test_a_timeline_for_streams(kind: str, cuda: Device, vulkan: Device) -> None:
    maker = {"cuda": cuda, "vulkan": vulkan}[kind]
    timeline = maker.timeline()
    ordered = extmem.raw.stream_timeline(cuda, timeline)
    ordered.wait(STREAM, 1)
    ordered.signal(STREAM, 2)
    timeline.signal(1)
    timeline.wait(2, 10)
    timeline.close()
    cuda.backend.finish_submitted()  # type: ignore[attr-defined]
    with pytest.raises(extmem.HandleStateError):
        ordered.wait(STREAM, 3)
    with vulkan.timeline() as other, pytest.raises(extmem.UnsupportedError, match="no CUDA device"):
        extmem.raw.stream_timeline(vulkan, other)


def test_a_stream_that_is_captured_is_refused(backend: Any, semaphore: Any, fake: fake_cuda.FakeCuda) -> None:
    """A graph would signal by a record that other signals use again, and may outlive the semaphore."""
    backend.stream_signal(STREAM, [(semaphore, 1)])
    fake.capturing = {STREAM}
    for pairs in ([(semaphore, 2)], [(semaphore, 2), (semaphore, 2)]):
        for use in (backend.stream_wait, backend.stream_signal):
            with pytest.raises(extmem.UnsupportedError, match="captured.*cuda_graph_signal"):
                use(STREAM, pairs)
    fake.capturing = set()
    backend.stream_signal(STREAM, [(semaphore, 3)])
    assert reached(backend, semaphore, 3)
