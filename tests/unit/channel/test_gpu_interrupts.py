"""An exception of a signal handler at each third line of the path of a frame on a GPU: no slot and no place is lost."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

import extmem
from extmem import ChannelReader, ChannelWriter
from extmem.api import Device
from extmem.testing.waiting import wait_until

pytestmark = [
    pytest.mark.linux_only("semaphores of the fake drivers are shared by fd"),
    pytest.mark.slow("interrupts a frame at each of some hundred lines"),
]

STRIDE = 3
"""Lines from one interrupt to the next one."""
W, R = 0x5000, 0x6000


class Interrupted(BaseException):
    """What the signal handler raises."""


class Tracer:
    """Raises at one line of the modules of GPUs, counted from 1."""

    def __init__(self, line: int) -> None:
        self.left = line

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        name = frame.f_code.co_filename.replace("\\", "/")
        return self.local if "/channel/gpu_" in name or name.endswith("/channel/keeper.py") else None

    def local(self, _: FrameType, event: str, __: Any) -> Any:
        if event == "line":
            self.left -= 1
            if not self.left:
                raise Interrupted
        return self.local


def write(writer: ChannelWriter) -> int:
    with writer.write() as frame, frame.on(W):
        pass
    return frame.number


def read(reader: ChannelReader) -> int:
    frame = reader.read(timeout=10)
    with frame.on(R):
        pass
    return frame.number


def interrupted(line: int, side: str, device: Device, name: str) -> bool:
    """Interrupt one frame, and go on. Return whether the line was reached."""
    tracer = Tracer(line)
    with (
        extmem.create_channel(name, 8, device=device, slots=3, when_full="raise") as writer,
        extmem.open_channel(name, device=device) as reader,
    ):
        assert write(writer) == read(reader) == 1
        reader.poll()
        try:
            if side == "reader":
                write(writer)
            sys.settrace(tracer)
            write(writer) if side == "writer" else (read(reader), reader.poll())
        except Interrupted:
            pass
        finally:
            sys.settrace(None)
        for _ in range(6):
            assert write(writer) == read(reader)
        wait_until(lambda: reader.poll() is None and not reader.held, lambda: f"line {line} to lose no slot")
        assert not reader._held and not reader._pending and not reader.gpu.used, line
    return tracer.left <= 0


@pytest.mark.parametrize(("side", "least"), [("writer", 50), ("reader", 100)])
def test_a_frame_that_is_interrupted_at_many_lines(side: str, least: int, cuda: Device, name: str) -> None:
    line = 1
    while interrupted(line, side, cuda, f"{name} {line}"):
        line += STRIDE
    assert line > least, "the lines of the modules are counted"
