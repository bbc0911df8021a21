"""Updates of memory in one process, and what is refused. `tests/process/test_changes.py` has several processes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import Iterator

import pytest

import extmem
from extmem.api import DeviceMemory
from extmem.core import changes
from extmem.errors import HandleStateError, PeerGoneError, StaleSourceError, UnsupportedError, WaitTimeoutError
from extmem.testing.leaks import descriptors
from extmem.testing.waiting import wait_until


@pytest.fixture
def memory() -> Iterator[DeviceMemory]:
    with extmem.open_device(kind="host") as device, device.allocate(16) as made:
        yield made


def test_an_update_counts_two_and_is_odd_inside(memory: DeviceMemory) -> None:
    assert (memory.generation, memory.torn) == (0, False)
    with memory.update() as update:
        assert (memory.generation, update.generation, memory.torn) == (1, 2, False)
    assert memory.generation == 2
    assert memory.wait(after=0, timeout=0) == 2
    with pytest.raises(WaitTimeoutError, match="generation 2, and none after 2"):
        memory.wait(timeout=0)


def test_an_exception_tears_the_memory_until_the_next_update(memory: DeviceMemory) -> None:
    with pytest.raises(KeyError), memory.update():
        raise KeyError
    assert memory.torn and memory.generation == 1
    with pytest.raises(PeerGoneError, match=r"this process left an update by an exception .* after generation 0"):
        memory.wait(timeout=0)
    with pytest.raises(PeerGoneError), memory.stable():
        pass
    with memory.update():
        assert not memory.torn
    assert memory.generation == 4 and memory.wait(after=0, timeout=0) == 4


def test_an_update_is_used_once(memory: DeviceMemory) -> None:
    update = memory.update()
    with update:
        pass
    with pytest.raises(HandleStateError, match="begun already"):
        update.__enter__()
    assert memory.generation == 2


def test_threads_update_one_after_the_other(memory: DeviceMemory) -> None:
    seen: list[int] = []

    def add() -> None:
        for _ in range(20):
            with memory.update() as update:
                seen.append(update.generation)

    threads = [threading.Thread(target=add) for _ in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert seen == list(range(2, 122, 2)) and memory.generation == 120


def test_a_wait_is_woken_by_another_thread(memory: DeviceMemory) -> None:
    found: list[int] = []
    waiter = threading.Thread(target=lambda: found.append(memory.wait(after=0, timeout=60)))
    waiter.start()
    with memory.update():
        pass
    waiter.join()
    assert found == [2]


def test_an_update_in_an_update_of_the_same_thread_is_refused(memory: DeviceMemory) -> None:
    with memory.update():
        before = descriptors()
        for refused in (memory.update(), memory.update(timeout=60)):
            with pytest.raises(HandleStateError, match=r"this thread .* updates this memory \(16 bytes\) already"):
                refused.__enter__()
        assert descriptors() == before
        with extmem.open_device(kind="host") as device, device.allocate(16) as other, other.update():
            pass
    with memory.update():
        pass
    assert memory.generation == 4


def test_a_block_that_is_lost_does_not_forbid_the_next(memory: DeviceMemory) -> None:
    lost = memory.update()
    lost.__enter__()
    del lost
    with memory.update(timeout=60):
        pass
    assert memory.generation == 4


def test_an_update_of_a_source_that_has_other_memory_is_refused(memory: DeviceMemory) -> None:
    now = ""
    memory.record.moved = lambda: now
    with memory.update():
        pass
    now = "a tensor whose storage was resized (set_, resize_ or .data = other)"
    with pytest.raises(StaleSourceError, match="was shared from a tensor whose storage was resized"):
        memory.update()
    assert memory.generation == 2


def test_a_coroutine_waits_for_a_change(memory: DeviceMemory) -> None:
    async def main() -> tuple[int, list[int]]:
        ran: list[int] = []
        waiting = asyncio.create_task(memory.wait_async(after=0, timeout=60))
        await asyncio.sleep(0)
        ran.append(memory.generation)
        await asyncio.to_thread(update)
        return await waiting, ran

    def update() -> None:
        with memory.update():
            pass

    assert asyncio.run(main()) == (2, [0])
    assert asyncio.run(memory.wait_async(after=0)) == 2
    with pytest.raises(WaitTimeoutError, match="generation 2, and none after 2"):
        asyncio.run(memory.wait_async(timeout=0.01))
    with pytest.raises(TypeError, match="after is '0'"):
        asyncio.run(memory.wait_async(after="0"))  # type: ignore[arg-type]


def test_a_coroutine_is_told_of_torn_memory(memory: DeviceMemory) -> None:
    async def main() -> None:
        waiting = asyncio.create_task(memory.wait_async(after=0, timeout=60))
        await asyncio.sleep(0)
        with contextlib.suppress(OSError), memory.update():
            raise OSError
        with pytest.raises(PeerGoneError, match="this process left an update"):
            await waiting

    asyncio.run(main())


@pytest.mark.parametrize("ring", [True, False], ids=["ring", "thread"])
def test_a_cancelled_wait_leaves_nothing(memory: DeviceMemory, ring: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from extmem.devices.host import sync_async

    if not ring:
        monkeypatch.setattr(sync_async, "waits_of_loop", lambda loop: None)
    with pytest.raises(WaitTimeoutError):  # what stays for the next wait is there then
        asyncio.run(memory.wait_async(timeout=0))

    async def main() -> None:
        waiting = asyncio.create_task(memory.wait_async())
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert sync_async._sleeper._watches == {}

    gc.collect()
    before, threads = descriptors(), threading.active_count()
    asyncio.run(main())
    wait_until(lambda: threading.active_count() == threads, "the end of the thread")
    wait_until(lambda: gc.collect() >= 0 and descriptors() == before, "the end of the ring")
    memory.close()


def test_an_update_that_cannot_begin_leaves_no_lease(memory: DeviceMemory) -> None:
    with memory.update():
        before = descriptors()
        outcomes: list[type[BaseException]] = []

        def begin() -> None:
            try:
                memory.update(timeout=0.01).__enter__()
            except WaitTimeoutError as error:
                outcomes.append(type(error))

        other = threading.Thread(target=begin)
        other.start()
        other.join()
        assert outcomes == [WaitTimeoutError] and descriptors() == before
    with memory.update(timeout=10):
        pass
    assert memory.generation == 4


def test_the_memory_of_a_host_pointer_has_no_count() -> None:
    import mmap

    from extmem import vk

    with mmap.mmap(-1, mmap.PAGESIZE) as pages, extmem.open_device(kind="host") as device:
        import ctypes

        octets = (ctypes.c_char * mmap.PAGESIZE).from_buffer(pages)
        pointer = vk.ImportMemoryHostPointerInfoEXT(
            vk.ExternalMemoryHandleTypeFlagBits.HOST_ALLOCATION_EXT, ctypes.addressof(octets)
        )
        with device.allocate_memory(vk.MemoryAllocateInfo(mmap.PAGESIZE, 0, pointer)) as memory:
            for call in (lambda: memory.generation, memory.update, memory.stable, lambda: memory.wait(timeout=0)):
                with pytest.raises(UnsupportedError, match="no control page"):
                    call()
        del octets


@pytest.mark.parametrize(("timeout", "error"), [("1", TypeError), (True, TypeError), (-1, ValueError)])
def test_timeouts_are_checked(timeout: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="timeout is"):
        changes.checked_timeout(timeout)  # type: ignore[arg-type]
    assert changes.checked_timeout(float("inf")) is None and changes.checked_timeout(2) == 2.0
