"""A `close()` that an exception interrupts at the begin of a release: what is marked as closed is released."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

import extmem
from extmem.api import Device
from extmem.owning import Held


class Interrupted(Exception):
    pass


def interrupt(call: Callable[[], object]) -> None:
    """Raise where a signal handler could: when `Held.end` has been called, before its first instruction."""

    def trace(frame: FrameType, event: str, argument: Any) -> None:
        if frame.f_code is Held.end.__code__:
            sys.settrace(None)
            raise Interrupted

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with pytest.raises(Interrupted):
            call()
    finally:
        sys.settrace(before)


def test_the_next_allocation_can_have_the_name(device: Device) -> None:
    memory = device.allocate(8, name="interrupted")
    interrupt(memory.close)
    assert memory.closed
    device.allocate(8, name="interrupted").close()
    memory.close()


@pytest.mark.parametrize("call", [extmem.open, extmem.open_handle])
def test_who_opens_next_finds_nobody_who_has_it(device: Device, call: Callable[[str], object]) -> None:
    kept: list[extmem.DeviceMemory] = []

    def leave() -> None:
        with device.allocate(8, name="left") as made:
            kept.append(made)

    interrupt(leave)
    with pytest.raises(extmem.NameNotFoundError):
        call("left")
    kept.pop().close()
