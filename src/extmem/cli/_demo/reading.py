"""The tasks of a reader of the demo. Each function runs in its process, called by `extmem.cli._worker`."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from PIL import Image

import extmem
from extmem.cli._demo.events import Read, digest_of, unpack
from extmem.cli._demo.render import render

__all__ = ["end", "open_channel", "read", "try_to_write"]

THUMB = (354, 200)
"""Width and height of the small pictures."""
_PATIENCE = 60.0
_SOON = 0.001
_channel: list[extmem.ChannelReader] = []


def open_channel(name: str, every: bool) -> None:
    """Open the channel by its name alone. every: whether to read each frame, for which the writer waits."""
    _channel.append(extmem.open_channel(name, every=every, reliable=every, reconnect=True))


def _pixels(frame: extmem.Frame) -> Any:
    """Return a frame as an array: a view of the shared memory, or a copy by the GPU if the host cannot map it."""
    if frame.memory.host_visible:
        return frame.numpy()
    return np.frombuffer(frame.memory.read_bytes(0, frame.memory.size), "uint8").reshape(frame.shape)


def read(frames: int, takes: int, pictures: list[int]) -> dict[str, Any]:
    """Read up to the last frame of the animation, and check each.

    takes: a frame is in use until so many newer ones have come: that is how slow this reader is. 0 for a fast one.
    pictures: the numbers of the frames to keep as small pictures; of all that it reads, if it is empty.
    Return `seen`, a list of `Read`; `lost`; `pictures`: (number, RGB bytes); `different`: the numbers of frames, of
    three that this process draws itself, that differ; `redrawn`: the three.
    """
    channel = _channel[0]
    seen, kept, compared = [], [], {}
    chosen = sorted({1, frames // 3 + 1, frames})
    number = 0
    while number < frames:
        frame = channel.read(timeout=_PATIENCE)
        got = time.perf_counter_ns()
        number = frame.number
        index, writer, digest = unpack(frame.meta)
        pixels = _pixels(frame)
        whole = digest_of(np.ascontiguousarray(pixels)) == digest and index == number - 1
        if number in pictures or not pictures:
            small = Image.fromarray(pixels).convert("RGB").resize(THUMB, Image.Resampling.LANCZOS)
            kept.append((number, small.tobytes()))
        if number in chosen:
            compared[number] = pixels.copy()
        del pixels
        while channel.count < min(number + takes, frames):
            time.sleep(_SOON)
        seen.append(Read(number, writer, frame.skipped, got, time.perf_counter_ns(), whole))
    different = [
        number
        for number, pixels in compared.items()
        if not np.array_equal(pixels, render(number - 1, frames, *pixels.shape[:2]))
    ]
    return {
        "seen": seen,
        "lost": channel.lost,
        "pictures": kept,
        "redrawn": sorted(compared),
        "different": different,
    }


def try_to_write(name: str) -> list[dict[str, str]]:
    """Try to write in several ways. Return for each what refused it, with its error ("" if the attempt succeeded)."""
    with extmem.open_channel(name) as other:
        frame = other.read(timeout=_PATIENCE)
        shape, memory = frame.shape, frame.memory

        def through_array() -> None:
            frame.numpy()[0, 0, 0] = 1

        def through_mapping() -> None:
            memory.record.allocation.map(True)

        def as_writer() -> None:
            extmem.create_channel(name, shape).close()

        if memory.device.kind == "host":
            attempts = [
                ("write to the array of a frame", "NumPy", through_array),
                ("map a slot for writing", "the kernel", through_mapping),
            ]
        else:
            # A GPU driver has no read-only memory: extmem refuses the write.
            attempts = [("have the GPU write to a slot", "extmem", lambda: memory.fill(0))]
        results = []
        for attempt, by, write in [*attempts, ("publish a frame", "the lock of the writer", as_writer)]:
            try:
                write()
                error = ""
            except (ValueError, OSError, extmem.ExtmemError) as refusal:
                error = f"{type(refusal).__name__}: {refusal}"
            results.append({"attempt": attempt, "by": by, "error": error})
    return results


def end() -> None:
    """Close the channel."""
    _channel.pop().close()
