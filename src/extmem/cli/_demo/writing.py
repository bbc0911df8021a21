"""The tasks of a writer of the demo. Each function runs in its process, called by `extmem.cli._worker`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import extmem
from extmem.cli._demo.events import HALF, Written, digest_of, pack
from extmem.cli._demo.render import render

__all__ = ["SLOTS", "begin", "end", "write"]

SLOTS = 4
_PACE = 1 / 30
_PATIENCE = 30.0
_AGAIN = 5.0
"""Seconds for which a writer tries to take a channel over. The system may need a moment to end the one before."""
_KILLED_WITHIN = 20.0
_channel: list[extmem.ChannelWriter] = []


def begin(name: str, height: int, width: int) -> dict[str, Any]:
    """Create the channel, or take it over. Return facts about it."""
    device = extmem.open_device()
    deadline = time.monotonic() + _AGAIN
    while True:
        try:
            channel = extmem.create_channel(
                name,
                (height, width, 4),
                "uint8",
                slots=SLOTS,
                when_full="wait",
                timeout=_PATIENCE,
                device=device,
            )
            break
        except extmem.UnsupportedError:
            if device.kind == "host":
                raise
            device = extmem.open_device(kind="host")  # this release has no slots on that device
        except extmem.ChannelTakenError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    _channel.append(channel)
    return {
        "name": device.name,
        "kind": device.kind,
        "uuid": device.uuid.hex(),
        "slot": height * width * 4,
        "count": channel.count,
    }


def _fill(frame: extmem.WritableFrame, pixels: Any, rows: int) -> None:
    """Write the first rows of a picture into a frame, where readers will read it."""
    if frame.memory.host_visible:
        frame.numpy()[:rows] = pixels[:rows]
    else:
        frame.memory.write(pixels[:rows], offset=0)


def write(frames: int, half: int | None) -> Iterator[Any]:
    """Write the frames of the animation that are missing. Yield each, as `Written`.

    half: the number of a frame of which half is written; then this process waits for its end. None for all frames.
    """
    channel, pid = _channel[0], os.getpid()
    height, width, _ = channel.shape
    due = time.monotonic()
    for number in range(channel.count + 1, frames + 1):
        began = time.perf_counter_ns()
        pixels = render(number - 1, frames, height, width)
        with channel.write() as frame:
            if number == half:
                _fill(frame, pixels, height // 2)
                yield HALF, Written(number, pid, began, time.perf_counter_ns())
                time.sleep(_KILLED_WITHIN)
                raise RuntimeError("the writer was to be killed, and was not")
            _fill(frame, pixels, height)
            frame.meta = pack(number - 1, pid, digest_of(pixels))
            ended = time.perf_counter_ns()  # the end of the block publishes it, and readers have it at once
        yield Written(number, pid, began, ended)
        due = max(due + _PACE, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))


def end() -> None:
    """Close the channel."""
    _channel.pop().close()
