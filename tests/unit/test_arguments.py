"""Whole numbers and flags: every call refuses the same values, with the value, its type and what to give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

import extmem
from extmem import raw, vk
from extmem.api import Device
from extmem.arguments import a_type, check_flag, integer_of, whole_number

NO_NUMBERS = [True, False, 1.0, "1", b"1", None, [1], numpy.float32(1)]
SemaphoreType = vk.ExternalSemaphoreHandleTypeFlagBits


class _Index:
    def __index__(self) -> int:
        return 7


def test_types_have_their_article() -> None:
    assert [a_type(value) for value in (1, "", None, True, vk.ImageCreateInfo())] == [
        "an int",
        "a str",
        "a NoneType",
        "a bool",
        "an ImageCreateInfo",
    ]


def test_integers_of_all_types_are_numbers() -> None:
    for value in (7, _Index(), numpy.uint8(7), SemaphoreType(7)):
        assert integer_of(value) == whole_number(value, "value") == 7


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_other_values_are_no_numbers(value: object) -> None:
    assert integer_of(value) is None
    with pytest.raises(TypeError, match=r"^size is .*, an? \w+; give bytes$"):
        whole_number(value, "size", "give bytes")


def test_only_bools_are_flags() -> None:
    check_flag(True, "inherit")
    with pytest.raises(TypeError, match="^inherit is 1, an int; give True or False$"):
        check_flag(1, "inherit")


CALLS: dict[str, Callable[[Device, extmem.Timeline, Any], object]] = {
    "signal": lambda d, t, v: t.signal(v),
    "wait": lambda d, t, v: t.wait(v),
    "wait, timeout": lambda d, t, v: t.wait(5, v),
    "wait_any": lambda d, t, v: extmem.wait_any([(t, v)]),
    "wait_all": lambda d, t, v: extmem.wait_all([(t, v)]),
    "wait_async": lambda d, t, v: t.wait_async(v).send(None),
    "timeline": lambda d, t, v: d.timeline(initial=v),
    "commands": lambda d, t, v: d.commands(signal=(t, v)),
    "wait_semaphores, values": lambda d, t, v: d.wait_semaphores(vk.SemaphoreWaitInfo(0, [t], [v]), 0),
    "wait_semaphores": lambda d, t, v: d.wait_semaphores(vk.SemaphoreWaitInfo(0, [t], [1]), v),
    "wait_for_fences": lambda d, t, v: d.wait_for_fences([], v),
    "signal_semaphore": lambda d, t, v: d.signal_semaphore(vk.SemaphoreSignalInfo(t, v)),
    "open_timeline, access": lambda d, t, v: extmem.open_timeline("no such timeline", access=v),
    "export_handle": lambda d, t, v: t.export_handle(v),
    "import, fd": lambda d, t, v: d.import_semaphore_fd(
        vk.ImportSemaphoreFdInfoKHR(t, handle_type=SemaphoreType.OPAQUE_FD, fd=v)
    ),
    "allocate": lambda d, t, v: d.allocate(v),
    "allocate, access": lambda d, t, v: d.allocate(1, access=v),
    "allocate_memory": lambda d, t, v: d.allocate_memory(vk.MemoryAllocateInfo(v, 0)),
    "nt_handle": lambda d, t, v: raw.nt_handle(v),
    "kmt_handle": lambda d, t, v: raw.kmt_handle(v),
    "fd_handle": lambda d, t, v: raw.fd_handle(v),
}


@pytest.mark.parametrize("call", CALLS)
def test_true_is_a_number_of_no_call(call: str, device: Device) -> None:
    with device.timeline() as timeline:
        for value in (True, False):
            with pytest.raises((TypeError, extmem.RuleViolation), match=f"{value}|of type tuple"):
                CALLS[call](device, timeline, value)
        assert timeline.value == 0
        timeline.signal(numpy.uint8(1))  # the twin: an integer of any type
        timeline.wait(_Index().__index__() - 6)
