"""The tasks of the demo's two processes. Each function runs in one of them, called by `extmem.cli._worker`."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, cast

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import extmem
from extmem.cli._demo.render import render

__all__ = [
    "check",
    "draw_again",
    "exporter_close",
    "importer_close",
    "importer_open",
    "publish",
    "sheet",
    "try_to_write",
]

_THUMB = (320, 180)
_GAP, _MARGIN, _HEAD, _FOOT = 12, 28, 64, 44
_NIGHT, _INK, _FAINT = (9, 11, 20), (232, 236, 246), (132, 144, 172)
_memory: list[extmem.DeviceMemory] = []
_handle: list[extmem.NtHandle] = []


def _digest(frame: np.ndarray[Any, Any]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(frame).data, digest_size=16).digest()


# The exporter.


def publish(name: str, frames: int, height: int, width: int) -> Iterator[Any]:
    """Share an animation for reading and draw it in place. Yield the facts, then (index, checksum) of each frame."""
    device = extmem.open_device()
    memory = device.allocate((frames, height, width, 4), "uint8", name=name, access=extmem.Access.READ)
    _memory.append(memory)
    yield {"name": device.name, "kind": device.kind, "uuid": device.uuid.hex(), "size": memory.size}
    for index in range(frames):
        frame = render(index, frames, height, width)
        if memory.host_visible:
            memory.numpy()[index] = frame
        else:
            memory.write(frame, offset=index * frame.nbytes)
        yield index, _digest(frame)


def _frame(index: int) -> np.ndarray[Any, Any]:
    """Return one frame: a view of the memory, or a copy by the GPU if the host cannot map it."""
    memory = _memory[0]
    if memory.host_visible:
        return cast("np.ndarray[Any, Any]", memory.numpy()[index])
    shape = _shape()[1:]
    size = prod(shape)
    return np.frombuffer(memory.read_bytes(index * size, size), "uint8").reshape(shape)


def _shape() -> tuple[int, ...]:
    array = _memory[0].descriptor.array
    return tuple(array.shape) if array is not None else ()


def exporter_close() -> None:
    """Close the exporter's memory."""
    _memory.pop().close()


# The importer.


def importer_open(name: str) -> dict[str, Any]:
    """Open the animation by its name alone. Open an NT handle, too, for the list of holders."""
    memory = extmem.open(name)
    _memory.append(memory)
    _handle.append(extmem.open_handle(name, extmem.Access.READ))
    array = memory.descriptor.array
    return {
        "shape": list(_shape()),
        "dtype": array.dtype if array is not None else "",
        "read_only": memory.read_only,
        "host_visible": memory.host_visible,
    }


def check(index: int, digest: bytes) -> bool:
    """Whether a frame has the checksum that the exporter computed."""
    return _digest(_frame(index)) == digest


def draw_again(index: int) -> bool:
    """Whether a frame equals the frame that this process draws itself."""
    frames, height, width, _ = _shape()
    return bool(np.array_equal(_frame(index), render(index, frames, height, width)))


def try_to_write(name: str) -> list[dict[str, str]]:
    """Try to write in several ways. Return for each what refused it, with its error ("" if the attempt succeeded)."""
    memory = _memory[0]

    def through_array() -> None:
        memory.numpy()[0, 0, 0, 0] = 1

    def through_mapping() -> None:
        memory.record.allocation.map(True)

    def through_name() -> None:
        extmem.open(name, access=extmem.Access.READ_WRITE).close()

    if memory.device.kind == "host":
        attempts = [
            ("write to the array", "NumPy", through_array),
            ("map it for writing", "the kernel", through_mapping),
        ]
    else:
        # A GPU driver has no read-only memory: extmem refuses the write.
        attempts = [("have the GPU write to it", "extmem", lambda: memory.fill(0))]
    results = []
    for attempt, by, write in [
        *attempts,
        ("open the name with the right to write", "the object manager", through_name),
    ]:
        try:
            write()
            error = ""
        except (ValueError, OSError, extmem.ExtmemError) as refusal:
            error = f"{type(refusal).__name__}: {refusal}"
        results.append({"attempt": attempt, "by": by, "error": error})
    return results


def sheet(indices: Sequence[int], columns: int, caption: str) -> bytes:
    """Return a PNG of some frames, read from the shared memory."""
    rows = -(-len(indices) // columns)
    width = 2 * _MARGIN + columns * _THUMB[0] + (columns - 1) * _GAP
    height = _HEAD + rows * _THUMB[1] + (rows - 1) * _GAP + _FOOT
    page = Image.new("RGB", (width, height), _NIGHT)
    pen = ImageDraw.Draw(page)
    pen.text((_MARGIN, 20), "extmem", _INK, ImageFont.load_default(26))
    subtitle = "one payload, two processes" + ", no copies" * _memory[0].host_visible
    pen.text((_MARGIN + 112, 28), subtitle, _FAINT, ImageFont.load_default(17))
    small = ImageFont.load_default(14)
    for place, index in enumerate(indices):
        left = _MARGIN + place % columns * (_THUMB[0] + _GAP)
        top = _HEAD + place // columns * (_THUMB[1] + _GAP)
        page.paste(Image.fromarray(_frame(index)).convert("RGB").resize(_THUMB, Image.Resampling.LANCZOS), (left, top))
        pen.text((left + 8, top + _THUMB[1] - 22), f"{index:02}", _FAINT, small)
    pen.text((_MARGIN, height - 30), caption, _FAINT, small)
    file = io.BytesIO()
    page.save(file, "PNG", optimize=True)
    return file.getvalue()


def importer_close() -> None:
    """Close the importer's memory and handle."""
    _handle.pop().close()
    _memory.pop().close()
