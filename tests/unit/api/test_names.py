"""`extmem.open(timeout=)`, `open_async`, `names`, `forget`, `allocate(replace=, keep=)` and names with `@`."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import extmem
from extmem import vk
from extmem.api import Device, DeviceMemory
from extmem.manager import manager
from extmem.testing import fake_vulkan
from extmem.testing.leaks import no_leaks
from extmem.testing.waiting import wait_until

_names = itertools.count(1)


@pytest.fixture
def name() -> str:
    return f"names {os.getpid()} {next(_names)}"


@pytest.fixture
def forgotten(name: str) -> Iterator[str]:
    """A name that is not kept after the test."""
    yield name
    try:
        extmem.forget(name)
    except extmem.NameNotFoundError:
        pass


class Opening(threading.Thread):
    """A thread that opens a name."""

    def __init__(self, name: str, **how: Any) -> None:
        super().__init__(daemon=True)
        self.how = how
        self.target_name = name
        self.memory: DeviceMemory | None = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.memory = extmem.open(self.target_name, **self.how)
        except extmem.ExtmemError as error:
            self.error = error


def waits() -> int:
    status = manager().status()
    return status.waiting if status is not None else -1


def begun(opening: Opening) -> None:
    """Wait until the thread waits in the broker; on Windows, whose kernel counts nothing, until it has run a moment."""
    if manager().has_broker:
        wait_until(lambda: waits() > 0 or not opening.is_alive(), "the wait to begin")


# -- waiting ----------------------------------------------------------------------------------------------------------


def test_open_waits_for_a_name(device: Device, name: str) -> None:
    opening = Opening(name, timeout=30)
    begun(opening)
    with device.allocate(16, name=name.upper()) as memory:
        opening.join(30)
        assert opening.memory is not None, opening.error
        with opening.memory:
            memory.numpy()[3] = 7
            assert opening.memory.numpy()[3] == 7


def test_a_name_that_exists_is_not_waited_for(device: Device, name: str) -> None:
    with device.allocate(16, name=name), extmem.open(name, timeout=0) as a, device.open(name, timeout=math.inf) as b:
        assert a.size == b.size == 16


def test_a_timeout_is_a_name_not_found_and_a_timeout(name: str) -> None:
    with pytest.raises(extmem.NameTimeoutError, match=name) as caught:
        extmem.open(name, timeout=0.01)
    assert isinstance(caught.value, extmem.NameNotFoundError) and isinstance(caught.value, TimeoutError)
    assert (caught.value.winerror, caught.value.errno) == (2, 2)
    with pytest.raises(extmem.NameNotFoundError) as plain:
        extmem.open(name)
    assert not isinstance(plain.value, TimeoutError)


@pytest.mark.parametrize("timeout", [-1, math.nan, -0.001])
def test_a_negative_timeout_is_refused(name: str, timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        extmem.open(name, timeout=timeout)


@pytest.mark.parametrize("timeout", ["5", True, 1j])
def test_a_timeout_is_a_number(name: str, timeout: Any) -> None:
    with pytest.raises(TypeError, match="timeout"):
        extmem.open(name, timeout=timeout)


def test_only_a_name_is_waited_for(device: Device) -> None:
    with device.allocate(16) as memory, memory.export_handle() as handle:
        for call in (extmem.open, device.open):
            with pytest.raises(TypeError, match="timeout is for names"):
                call(handle, timeout=1)


def test_several_threads_wait_and_one_works_meanwhile(device: Device, name: str) -> None:
    openings = [Opening(name, timeout=30) for _ in range(4)]
    for opening in openings:
        begun(opening)
    with device.allocate(8, name=f"{name} other"), extmem.open(f"{name} other"):
        assert all(opening.memory is None for opening in openings)
    with device.allocate(16, name=name):
        for opening in openings:
            opening.join(30)
            assert opening.memory is not None, opening.error
            opening.memory.close()


def test_open_async_waits_while_other_coroutines_run(device: Device, name: str) -> None:
    async def main() -> None:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        opening = asyncio.create_task(extmem.open_async(name))
        while turns < 20:
            await asyncio.sleep(0)
        assert not opening.done()
        with device.allocate(16, name=name):
            with await opening as memory:
                assert memory.size == 16
            with await extmem.open_async(name, device=device) as again:
                assert again.size == 16
        counting.cancel()

    asyncio.run(main())


def test_a_cancelled_open_async_leaves_nothing(device: Device, name: str) -> None:
    async def cancelled() -> None:
        opening = asyncio.create_task(extmem.open_async(name))
        await asyncio.sleep(0)
        if manager().has_broker:
            assert waits() == 1
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        if manager().has_broker:
            wait_until(lambda: waits() == 0, "the wait to end")

    async def timed_out() -> None:
        with pytest.raises(extmem.NameTimeoutError):
            await extmem.open_async(name, timeout=0.01)

    asyncio.run(cancelled())  # loads what it needs
    threads = threading.active_count()
    with no_leaks():
        asyncio.run(cancelled())
        asyncio.run(timed_out())
    assert threading.active_count() == threads
    with device.allocate(16, name=name):
        pass


def test_open_async_takes_names_only(device: Device) -> None:
    with device.allocate(16) as memory, memory.export_handle() as handle:
        with pytest.raises(TypeError, match="names"):
            asyncio.run(extmem.open_async(handle))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="device is 5"):
        asyncio.run(extmem.open_async("x", device=5))  # type: ignore[arg-type]


# -- names ------------------------------------------------------------------------------------------------------------


def test_names_describe_what_is_shared(device: Device, name: str) -> None:
    with device.allocate((2, 3), "float32", name=f"{name}/B"), device.allocate(5, name=f"{name}/a"):
        found = extmem.names(name.upper())
        assert [(one.name, one.shape, one.dtype, one.size, one.owner, one.kept) for one in found] == [
            (f"{name}/B", (2, 3), "float32", 24, os.getpid(), ""),
            (f"{name}/a", (5,), "uint8", 5, os.getpid(), ""),
        ]
        assert [one.name for one in extmem.names(f"{name}/a")] == [f"{name}/a"]
        assert {one.name for one in extmem.names()} >= {f"{name}/B", f"{name}/a"}
    assert extmem.names(name) == []


def test_names_lists_memory_alone_and_no_names_of_other_machines(device: Device, name: str) -> None:
    info = vk.MemoryAllocateInfo(
        16,
        0,
        vk.ExportMemoryAllocateInfo(
            vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32,
            vk.ExportMemoryWin32HandleInfoKHR(None, 0x80000001, f"{name}@here"),
        ),
    )
    with device.allocate_memory(info), device.timeline(name=f"{name} timeline"), device.allocate(4, name=name):
        assert [one.name for one in extmem.names(name)] == [name]


def test_a_prefix_is_text() -> None:
    with pytest.raises(TypeError, match="prefix is 5"):
        extmem.names(5)  # type: ignore[arg-type]


def test_everyday_names_have_no_at_sign_and_those_of_the_specification_may(device: Device, name: str) -> None:
    bad = f"{name}@host"
    for call in (
        lambda: device.allocate(16, name=bad),
        lambda: extmem.open(bad),
        lambda: device.open(bad),
        lambda: device.timeline(name=bad),
        lambda: extmem.open_timeline(bad),
        lambda: extmem.forget(bad),
        lambda: asyncio.run(extmem.open_async(bad)),
    ):
        with pytest.raises(extmem.NameInvalidError, match="another machine"):
            call()
    export = vk.ExportMemoryWin32HandleInfoKHR(None, 0x80000001, bad)
    types = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32
    info = vk.MemoryAllocateInfo(16, 0, vk.ExportMemoryAllocateInfo(types, export))
    with device.allocate_memory(info) as memory, extmem.open_handle(bad) as handle:
        assert memory.name == bad and handle.info.name.endswith(bad)


# -- keep and replace -------------------------------------------------------------------------------------------------


@pytest.mark.linux_only("the Windows kernel keeps nothing without a process")
def test_kept_memory_is_there_without_a_process_until_it_is_forgotten(device: Device, forgotten: str) -> None:
    with device.allocate(16, name=forgotten, keep=True) as memory:
        memory.numpy()[:] = 5
        assert [one.kept for one in extmem.names(forgotten)] == ["until forgotten"]
    (found,) = extmem.names(forgotten)
    assert (found.owner, found.size) == (None, 16)
    with extmem.open(forgotten) as memory:
        assert memory.numpy()[7] == 5
    assert extmem.forget(forgotten) is True and extmem.names(forgotten) == []
    with pytest.raises(extmem.NameNotFoundError):
        extmem.forget(forgotten)


def test_what_is_not_kept_is_not_forgotten(device: Device, name: str) -> None:
    with device.allocate(16, name=name):
        assert extmem.forget(name) is False
    with pytest.raises(TypeError):
        extmem.forget(None)  # type: ignore[arg-type]


@pytest.mark.linux_only("the Windows kernel keeps nothing without a process")
def test_kept_memory_ends_some_time_after_its_last_holder(device: Device, forgotten: str) -> None:
    device.allocate(16, name=forgotten, keep=0.05).close()
    wait_until(lambda: extmem.names(forgotten) == [], "the end of its time")


@pytest.mark.parametrize(
    ("keep", "error"),
    [("given", ValueError), (0, ValueError), (-1, ValueError), (math.inf, ValueError), (math.nan, ValueError),
     (b"taken", TypeError), ([], TypeError)],
)  # fmt: skip
def test_other_values_of_keep_are_refused(device: Device, name: str, keep: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="keep is"):
        device.allocate(16, name=name, keep=keep)


def test_memory_without_a_name_is_neither_kept_nor_a_replacement(device: Device) -> None:
    for how in ({"keep": True}, {"replace": True}):
        with pytest.raises(ValueError, match="name"):
            device.allocate(16, **how)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="replace"):
        device.allocate(16, name="x", replace=1)  # type: ignore[arg-type]


@pytest.mark.windows_only("Linux has both")
def test_windows_refuses_both_with_the_reason(device: Device, name: str) -> None:
    for how, reason in (({"keep": True}, "no process"), ({"replace": True}, "until all handles")):
        with pytest.raises(extmem.UnsupportedError, match=reason):
            device.allocate(16, name=name, **how)  # type: ignore[arg-type]
    with device.allocate(16, name=name) as memory:
        assert not memory.superseded


@pytest.mark.linux_only("the Windows kernel's names belong to one object")
def test_a_replacement_is_opened_and_holders_keep_what_they_have(device: Device, name: str) -> None:
    first = device.allocate(16, name=name)
    reader, pinned = extmem.open(name), extmem.open(name)
    assert pinned.record is reader.record
    second = device.allocate((2, 4), "int32", name=name, replace=True)
    assert (first.superseded, reader.superseded, second.superseded) == (True, True, False)
    with extmem.open(name) as latest, extmem.open(name) as again:
        assert latest.size == 32 and latest.record is again.record is not reader.record
    first.numpy()[0] = 9
    assert reader.numpy()[0] == 9
    for memory in (first, reader, pinned, second):
        memory.close()
    assert not first.superseded
    with pytest.raises(extmem.NameNotFoundError):
        extmem.open(name)


@pytest.mark.linux_only("the Windows kernel's names belong to one object")
def test_a_name_that_is_open_is_asked_for_again_only_after_a_replacement(
    device: Device, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner: Any = manager()
    with device.allocate(16, name=name), device.allocate(16, name=f"{name} 2") as other, extmem.open(name):
        extmem.open(name).close()
        asked: list[str] = []
        original = owner.import_by_name

        def noted(asked_name: str, *more: Any, **how: Any) -> Any:
            asked.append(asked_name)
            return original(asked_name, *more, **how)

        monkeypatch.setattr(owner, "import_by_name", noted)
        extmem.open(name).close()
        assert asked == []
        device.allocate(16, name=f"{name} 2", replace=True).close()
        extmem.open(name).close()
        assert asked == [name]
        extmem.open(name).close()
        assert asked == [name]
        assert other.superseded


def test_unnamed_memory_is_never_superseded(device: Device) -> None:
    with device.allocate(16) as memory:
        assert memory.superseded is False


@pytest.mark.linux_only("the Windows kernel keeps nothing without a process")
def test_a_drivers_memory_is_kept_and_replaced_as_host_memory_is(
    forgotten: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = fake_vulkan.FakeVulkan([fake_vulkan.INTEGRATED], remembers=False)
    with fake_vulkan.installed(fake), extmem.open_device(kind="vulkan") as device:
        first = device.allocate(16, name=forgotten)
        second = device.allocate(32, name=forgotten, replace=True, keep=True)
        assert first.superseded and not second.superseded
        first.close()
        second.close()
        with extmem.open(forgotten, device=device, timeout=0) as found:
            assert found.size == 32
        assert extmem.forget(forgotten)
        assert extmem.names(forgotten) == []


def test_memory_is_filled_before_its_name_exists(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that waits for the name reads it at once."""
    fake = fake_vulkan.FakeVulkan([fake_vulkan.INTEGRATED], remembers=False)
    with fake_vulkan.installed(fake), extmem.open_device(kind="vulkan") as device:
        calls: list[str] = []
        for thing, method in ((device.backend, "fill"), (manager(), "export")):
            original = getattr(thing, method)

            def noted(*arguments: Any, _of: Any = original, _name: str = method, **named: Any) -> Any:
                calls.append(_name)
                return _of(*arguments, **named)

            monkeypatch.setattr(thing, method, noted)
        device.allocate(16, name=name).close()
        assert calls == ["fill", "export"]
