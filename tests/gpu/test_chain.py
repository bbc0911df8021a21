"""Frames that Vulkan fills, PyTorch doubles on a stream, and Vulkan reads, in one and in two processes.

Each frame is copied to a place of its own, and all are compared at the end: a step too early shows in the bytes. No
host waits between frames. With one signal left out the chain must stop, which shows that it is the order that works.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import extmem
from extmem.api import Device
from extmem.api.device import DeviceMemory
from extmem.api.timeline import Timeline
from extmem.testing.children import Peer

FRAMES, SIZE = 200, 4096
LEFT_OUT = FRAMES - 5
"""The frame whose signal can be left out. Few come after it: a stream that waits takes a limited number of operations,
and then CUDA's call blocks.
"""
S = 30.0
SOON = 1.0
"""Seconds after which a chain without one of its signals counts as stopped: it takes some milliseconds with it."""


def _bits(number: int) -> int:
    return int(np.float32(number).view("uint32"))


def _fill(vulkan: Device, frame: DeviceMemory, order: Timeline, number: int) -> None:
    with vulkan.commands(wait=(order, 3 * number), signal=(order, 3 * number + 1)) as commands:
        commands.acquire(frame.buffer())
        commands.fill_buffer(frame.buffer(), _bits(number + 1))
        commands.release(frame.buffer())


def _copy(vulkan: Device, frame: DeviceMemory, seen: DeviceMemory, order: Timeline, number: int) -> None:
    with vulkan.commands(wait=(order, 3 * number + 2), signal=(order, 3 * number + 3)) as commands:
        for buffer in (frame.buffer(), seen.buffer()):
            commands.acquire(buffer)
        commands.copy_buffer(frame.buffer(), seen.buffer(), target_offset=number * SIZE, size=SIZE)
        for buffer in (frame.buffer(), seen.buffer()):
            commands.release(buffer)


@contextlib.contextmanager
def _payloads(vulkan: Device, name: str) -> Iterator[tuple[DeviceMemory, DeviceMemory, Timeline]]:
    with (
        vulkan.allocate((SIZE // 4,), "float32", name=f"{name} frame") as frame,
        vulkan.allocate((FRAMES, SIZE // 4), "float32") as seen,
        vulkan.timeline(name=f"{name} order") as order,
    ):
        yield frame, seen, order


def _run(
    vulkan: Device, name: str, start: Callable[[], None], turn: Callable[[int], None], *, leaves_out: bool
) -> None:
    """Submit the queue's part of all frames, and check what it saw. turn: gives the stream's part of a frame."""
    with _payloads(vulkan, name) as (frame, seen, order):
        try:
            start()
            for number in range(FRAMES):
                _fill(vulkan, frame, order, number)
                turn(number)
                _copy(vulkan, frame, seen, order, number)
            if leaves_out:
                order.wait(3 * LEFT_OUT + 1, S)
                with pytest.raises(extmem.WaitTimeoutError, match=str(3 * LEFT_OUT + 1)):
                    order.wait(3 * FRAMES, SOON)
                assert order.value == 3 * LEFT_OUT + 1, "the chain went on without a signal"
                order.signal(3 * LEFT_OUT + 2)
            order.wait(3 * FRAMES, S)
            found = seen.read()
            expected = 2 * np.arange(1, FRAMES + 1, dtype="float32")
            assert (found == expected[:, None]).all()
        except BaseException:
            with contextlib.suppress(extmem.ExtmemError):
                order.signal(3 * FRAMES)  # whoever waits for the stream or the queue goes on
            raise


@pytest.mark.parametrize("leaves_out", [False, True], ids=["in order", "a signal is missing"])
def test_frames_of_one_process(leaves_out: bool, cuda: Device, vulkan: Device, torch: Any, name: str) -> None:
    stream = torch.cuda.Stream()
    opened: list[Any] = []

    def start() -> None:
        memory = extmem.open(f"{name} frame")
        opened.extend((memory, memory.torch(), extmem.open_timeline(f"{name} order")))

    def turn(number: int) -> None:
        memory, tensor, order = opened
        skipped = leaves_out and number == LEFT_OUT
        # Without timelines to signal, the end of a block waits for the stream: so it gets one that nobody waits for.
        signal = (spare, 1) if skipped else (order, 3 * number + 2)
        with memory.access(stream=stream, wait=(order, 3 * number + 1), signal=signal), torch.cuda.stream(stream):
            tensor.mul_(2)

    with cuda.timeline() as spare:
        try:
            _run(vulkan, name, start, turn, leaves_out=leaves_out)
            stream.synchronize()
        finally:
            while opened:  # the tensor ends before the memory is closed
                one = opened.pop()
                if hasattr(one, "close"):
                    one.close()


THEIR_START = """
import extmem
import torch
stream = torch.cuda.Stream()
memory, order, spare = extmem.open(name + " frame"), extmem.open_timeline(name + " order"), None
tensor = memory.torch()
spare = memory.device.timeline()
None
"""
THEIR_TURNS = """
for number in range(frames):
    signal = (spare, 1) if number == left_out else (order, 3 * number + 2)
    with memory.access(stream=stream, wait=(order, 3 * number + 1), signal=signal), torch.cuda.stream(stream):
        tensor.mul_(2)
None
"""
THEIR_END = """
stream.synchronize()
del tensor
for one in (memory, order, spare):
    one.close()
None
"""


@pytest.mark.parametrize("leaves_out", [False, True], ids=["in order", "a signal is missing"])
def test_frames_of_two_processes(leaves_out: bool, cuda: Device, vulkan: Device, torch: Any, name: str) -> None:
    left_out = LEFT_OUT if leaves_out else -1
    with Peer() as peer:

        def start() -> None:
            peer(THEIR_START, deadline=60.0, name=name)
            peer.start(THEIR_TURNS, frames=FRAMES, left_out=left_out)  # it blocks while its stream is full

        _run(vulkan, name, start, lambda number: None, leaves_out=leaves_out)
        peer.finish(deadline=S)
        peer(THEIR_END, deadline=S)
