"""The picture of the demo's run."""

from __future__ import annotations

import io
from typing import Any

import pytest

pytest.importorskip("numpy", reason="NumPy is not installed")

from PIL import Image

from extmem.cli._demo.events import Read, Written
from extmem.cli._demo.picture import draw
from extmem.cli._demo.reading import THUMB

SECOND = 1_000_000_000


def run_of(frames: int) -> tuple[Any, ...]:
    """Return the arguments of `draw` for a run whose first writer is killed in the middle."""
    half = frames // 2 + 1
    written = [
        Written(number, 10 if number < half else 11, number * SECOND, number * SECOND + 9)
        for number in range(1, frames + 1)
    ]
    seen = [Read(one.number, one.writer, 0, one.ended + 5, one.ended + SECOND // 9, True) for one in written]
    green = Image.new("RGB", THUMB, (0, 200, 0)).tobytes()
    pictures = [(number, green) for number in {1, frames}]
    results = [{"seen": seen, "pictures": pictures}, {"seen": seen[::4], "pictures": pictures[:1]}]
    readers = [{"read": frames, "skipped": 0, "torn": 0}, {"read": len(seen[::4]), "skipped": 3, "torn": 0}]
    facts = {
        "writers": [10, 11],
        "readers": readers,
        "killed": {"frame": half, "seconds": 0.5},
        "device": {"name": "extmem host memory"},
        "checked": frames,
    }
    return facts, written, Written(half, 10, half * SECOND - 900, half * SECOND - 500), half * SECOND - 400, results


@pytest.mark.parametrize("frames", [1, 2, 512])
def test_it_is_a_png_with_round_corners_and_the_frames(frames: int) -> None:
    picture = Image.open(io.BytesIO(draw(*run_of(frames))))
    assert picture.format == "PNG" and picture.mode == "RGBA" and picture.size == (1600, 990)
    assert picture.getpixel((0, 0))[3] == 0 and picture.getpixel((800, 500))[3] == 255
    assert picture.getpixel((130, 640))[:3] == (0, 200, 0), "the first small picture"
