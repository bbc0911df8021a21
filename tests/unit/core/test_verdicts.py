"""Calls that broke no rule are not checked again, and every call that differs from them is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

import extmem
from extmem import rules, vk
from extmem.api import Buffer, Device, DeviceMemory
from extmem.core.validation_cache import ValidationCache

FD = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD
_KMT = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32_KMT
W32 = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32
# A type that payloads have on this system, and another one.
JUDGED = 4 if sys.platform == "linux" else 3
"""The calls of `one_of_each`; that for an NT handle is checked elsewhere."""
MINE, OTHER = (FD, W32) if sys.platform == "linux" else (W32, _KMT)
USAGE = vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST
SIZE = 4096


class Counted:
    """How often each check ran."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        for name in (
            "check_allocate_memory",
            "check_create_buffer",
            "check_bind_buffer_memory",
            "check_get_memory_fd",
        ):
            monkeypatch.setattr(rules, name, self._counting(name, getattr(rules, name)))

    def _counting(self, name: str, real: Any) -> Any:
        def check(*arguments: Any, **named: Any) -> Any:
            self.calls.append(name)
            return real(*arguments, **named)

        return check


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


@pytest.fixture
def fresh() -> Iterator[Device]:
    with extmem.open_device(kind="host") as device:
        yield device


def allocate(device: Device, size: Any = SIZE, kind: Any = 0, types: Any = MINE) -> DeviceMemory:
    return device.allocate_memory(vk.MemoryAllocateInfo(size, kind, vk.ExportMemoryAllocateInfo(types)))


def buffer(device: Device, size: Any = SIZE, types: Any = MINE) -> Buffer:
    return device.create_buffer(
        vk.BufferCreateInfo(size=size, usage=USAGE, p_next=vk.ExternalMemoryBufferCreateInfo(types))
    )


def handle_of(device: Device, memory: DeviceMemory) -> Any:
    if MINE == FD:
        return device.get_memory_fd(vk.MemoryGetFdInfoKHR(memory, FD))
    return device.get_memory_win32_handle(vk.MemoryGetWin32HandleInfoKHR(memory, MINE))


def one_of_each(device: Device) -> None:
    with allocate(device) as memory, buffer(device) as made:
        device.bind_buffer_memory(made, memory)
        handle_of(device, memory).close()


def test_the_same_calls_are_judged_once(fresh: Device, counted: Counted) -> None:
    for _ in range(3):
        one_of_each(fresh)
    assert sorted(counted.calls) == sorted(set(counted.calls)) and len(counted.calls) == JUDGED


def test_another_device_judges_for_itself(fresh: Device, counted: Counted) -> None:
    one_of_each(fresh)
    with extmem.open_device(kind="host") as other:
        one_of_each(other)
    assert len(counted.calls) == 2 * JUDGED


@pytest.mark.parametrize(
    "wrong",
    [
        lambda d: allocate(d, size=0),
        lambda d: allocate(d, kind=9),
        lambda d: allocate(d, size=float(SIZE)),
        lambda d: allocate(d, types=MINE | vk.ExternalMemoryHandleTypeFlagBits.D3D12_HEAP),
        lambda d: buffer(d, size=0),
        lambda d: buffer(d, types=vk.ExternalMemoryHandleTypeFlagBits.D3D12_HEAP),
    ],
)
def test_what_differs_is_judged(wrong: Any, fresh: Device) -> None:
    one_of_each(fresh)
    with pytest.raises((extmem.ExtmemError, TypeError)):
        wrong(fresh)


def test_equal_numbers_of_another_sort_are_judged(fresh: Device, counted: Counted) -> None:
    one_of_each(fresh)
    before = len(counted.calls)
    with pytest.raises(extmem.RuleViolation, match="size-00912"):
        buffer(fresh, size=float(SIZE))
    assert len(counted.calls) == before + 1


def test_a_second_binding_is_judged(fresh: Device) -> None:
    one_of_each(fresh)
    with allocate(fresh) as memory, buffer(fresh) as made:
        fresh.bind_buffer_memory(made, memory)
        with pytest.raises(extmem.RuleViolation):
            fresh.bind_buffer_memory(made, memory)


def test_a_binding_elsewhere_is_judged(fresh: Device) -> None:
    one_of_each(fresh)
    with allocate(fresh) as memory, buffer(fresh) as made, pytest.raises(extmem.RuleViolation):
        fresh.bind_buffer_memory(made, memory, 64)
    with allocate(fresh, types=OTHER) as memory, buffer(fresh) as made, pytest.raises(extmem.RuleViolation):
        fresh.bind_buffer_memory(made, memory)


def test_an_export_of_another_type_is_judged(fresh: Device) -> None:
    one_of_each(fresh)
    with allocate(fresh, types=OTHER) as memory, pytest.raises(extmem.RuleViolation):
        handle_of(fresh, memory)


def test_a_full_device_is_judged(fresh: Device) -> None:
    one_of_each(fresh)
    fresh.max_allocations = 1
    with allocate(fresh), pytest.raises(extmem.RuleViolation) as caught:
        allocate(fresh)
    assert "VUID-vkAllocateMemory-maxMemoryAllocationCount-04101" in caught.value.vuids


def test_a_call_that_breaks_a_rule_is_told_of_each_time() -> None:
    with extmem.open_device(kind="host", check="warn") as device:
        for _ in range(2):
            with pytest.warns(extmem.RuleWarning, match="00920"):
                buffer(device, types=MINE | W32 | _KMT).close()


def test_there_is_an_end_to_remembering() -> None:
    validated = ValidationCache(1_024)
    for number in range(3_000):
        validated.note(("a", number))
    validated.note(None)
    assert ("a", 2_999) in validated and ("a", 0) not in validated and None not in validated
