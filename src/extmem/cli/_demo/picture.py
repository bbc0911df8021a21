"""The picture of a run of the demo: who wrote and read which frame when, and what the readers saw.

How this works. Everything is drawn at twice the size, and then made smaller, so that lines and text are smooth. The
picture has its own dark page with round corners, so that it can be put on a page of any colour.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from extmem.cli._demo.events import Written
from extmem.cli._demo.reading import THUMB

__all__ = ["draw"]

_SCALE = 2
_WIDTH, _MARGIN, _LABELS = 1600, 52, 268
_RIGHT = _WIDTH - _MARGIN
_TOP, _LANE, _BAR = 168, 104, 30
_STRIPS, _COLUMNS, _GAP = 590, 8, 12
_HEIGHT, _ROUND = 990, 26

_PAGE, _EDGE, _PANEL, _GRID = (10, 12, 22), (52, 60, 86), (17, 20, 34), (36, 42, 62)
_INK, _SOFT, _FAINT = (236, 240, 250), (178, 188, 212), (124, 136, 166)
_FIRST, _SECOND, _KILL = (72, 205, 190), (250, 196, 92), (255, 104, 112)
_FAST, _SLOW = (118, 160, 255), (202, 148, 255)

_UNCHANGED = ", held and unchanged"

_Colour = tuple[int, int, int]


class _Pen:
    """Draws in units of the finished picture."""

    def __init__(self, width: int, height: int) -> None:
        self.page = Image.new("RGB", (width * _SCALE, height * _SCALE), _PAGE)
        self._draw = ImageDraw.Draw(self.page, "RGBA")

    def box(
        self,
        left: float,
        top: float,
        right: float,
        bottom: float,
        fill: Sequence[int] | None = None,
        *,
        radius: float = 0,
        outline: Sequence[int] | None = None,
        line: float = 1,
    ) -> None:
        corners = tuple(round(one * _SCALE) for one in (left, top, right, bottom))
        self._draw.rounded_rectangle(
            corners,
            radius * _SCALE,
            tuple(fill) if fill is not None else None,
            tuple(outline) if outline is not None else None,
            round(line * _SCALE),
        )

    def line(self, *points: tuple[float, float], colour: Sequence[int], width: float = 1) -> None:
        scaled = [(x * _SCALE, y * _SCALE) for x, y in points]
        self._draw.line(scaled, tuple(colour), max(1, round(width * _SCALE)))

    def dot(self, x: float, y: float, radius: float, colour: Sequence[int], *, hollow: bool = False) -> None:
        corners = tuple(one * _SCALE for one in (x - radius, y - radius, x + radius, y + radius))
        if hollow:
            self._draw.ellipse(corners, None, tuple(colour), max(1, round(1.2 * _SCALE)))
        else:
            self._draw.ellipse(corners, tuple(colour))

    def text(self, x: float, y: float, text: str, size: int, colour: Sequence[int], anchor: str = "la") -> None:
        font = ImageFont.load_default(size * _SCALE)
        self._draw.text((x * _SCALE, y * _SCALE), text, tuple(colour), font, anchor)

    def measure(self, text: str, size: int) -> float:
        return ImageDraw.ImageDraw.textlength(self._draw, text, ImageFont.load_default(size * _SCALE)) / _SCALE

    def picture(self, image: Image.Image, left: float, top: float, width: float, height: float) -> None:
        size = round(width * _SCALE), round(height * _SCALE)
        self.page.paste(image.resize(size, Image.Resampling.LANCZOS), (round(left * _SCALE), round(top * _SCALE)))

    def png(self) -> bytes:
        """Return the page as a PNG file, with round corners."""
        size = self.page.width // _SCALE, self.page.height // _SCALE
        corners = Image.new("L", self.page.size, 0)
        whole = (0, 0, self.page.width - 1, self.page.height - 1)
        ImageDraw.Draw(corners).rounded_rectangle(whole, _ROUND * _SCALE, 255)
        page = self.page.resize(size, Image.Resampling.LANCZOS)
        page.putalpha(corners.resize(size, Image.Resampling.LANCZOS))
        file = io.BytesIO()
        page.save(file, "PNG", optimize=True)
        return file.getvalue()


def draw(
    facts: dict[str, Any],
    written: Sequence[Written],
    half: Written | None,
    killed: int,
    results: Sequence[dict[str, Any]],
) -> bytes:
    """Return the picture as a PNG file.

    facts: of the run. written: the frames that were published. half: the one that was not. killed: when the first
    writer was killed. results: of `reading.read`, for the fast and the slow reader.
    """
    pen = _Pen(_WIDTH, _HEIGHT)
    pen.box(0, 0, _WIDTH - 1, _HEIGHT - 1, _PAGE, radius=_ROUND, outline=_EDGE, line=1.5)
    pen.text(_MARGIN, 38, "extmem", 38, _INK)
    pen.text(
        _MARGIN + pen.measure("extmem", 38) + 22, 53, "one channel, two readers, and a writer that is killed", 22, _SOFT
    )
    _timeline(pen, facts, written, half, killed, results)
    _strips(pen, facts, written, results)
    device = facts["device"]["name"]
    checked, torn = facts["checked"], sum(reader["torn"] for reader in facts["readers"])
    pen.text(
        _MARGIN,
        _HEIGHT - 62,
        f"Readers see each frame where the writer drew it, in shared memory ({device}). {checked} frames were compared "
        f"with their checksums: {torn} torn.",
        17,
        _SOFT,
    )
    return pen.png()


def _axis(written: Sequence[Written], results: Sequence[dict[str, Any]]) -> tuple[int, int]:
    reads = [one for result in results for one in result["seen"]]
    begin = min(one.began for one in written)
    end = max([one.ended for one in written] + [one.released for one in reads])
    margin = max(1, (end - begin) // 60)
    return begin - margin, end + margin


def _timeline(
    pen: _Pen,
    facts: dict[str, Any],
    written: Sequence[Written],
    half: Written | None,
    killed: int,
    results: Sequence[dict[str, Any]],
) -> None:
    begin, end = _axis(written, results)
    left, right = _MARGIN + _LABELS, _RIGHT - 18
    bottom = _TOP + 3 * _LANE + 12

    def at(when: int) -> float:
        return left + (when - begin) / (end - begin) * (right - left)

    pen.box(_MARGIN, _TOP - 52, _RIGHT, bottom + 44, _PANEL, radius=16)
    _seconds(pen, begin, end, at, bottom)
    resumed = next((one.ended for one in written if one.writer == facts["writers"][1]), killed)
    dark = at(killed), at(resumed)
    pen.box(dark[0], _TOP - 8, dark[1], bottom, (*_KILL, 26))

    middles = [_TOP + _LANE * index + 42 for index in range(3)]
    _names(pen, facts, middles, bottom)
    for middle in middles:
        pen.line((left, middle), (right, middle), colour=_GRID)

    published = {one.number: one.ended for one in written}
    for result, colour, middle in zip(results, (_FAST, _SLOW), middles[1:], strict=True):
        for one in result["seen"]:
            start = at(published.get(one.number, one.got)), middles[0] + _BAR / 2
            pen.line(start, (at(one.got), middle - _BAR / 2), colour=(*colour, 64), width=0.8)
    for one in written:
        colour = _FIRST if one.writer == facts["writers"][0] else _SECOND
        _bar(pen, at(one.began), at(one.ended), middles[0], colour)
    if half is not None:
        _bar(pen, at(half.began), at(killed), middles[0], _KILL, hollow=True)
    for result, colour, middle in zip(results, (_FAST, _SLOW), middles[1:], strict=True):
        seen = {one.number for one in result["seen"]}
        for one in result["seen"]:
            _bar(pen, at(one.got), at(one.released), middle, colour)
            text, room = str(one.number), at(one.released) - at(one.got)
            if one.got < killed < one.released and room > pen.measure(text + _UNCHANGED, 14) + 8:
                text += _UNCHANGED
            if room > pen.measure(text, 14) + 8:
                pen.text((at(one.got) + at(one.released)) / 2, middle, text, 14, _PAGE, "mm")
        for number, when in published.items():
            pen.dot(
                at(when), middle + _BAR / 2 + 13, 2.6, colour if number in seen else _FAINT, hollow=number not in seen
            )
    _events(pen, facts, at(killed), at(resumed), bottom)


def _bar(pen: _Pen, left: float, right: float, middle: float, colour: _Colour, *, hollow: bool = False) -> None:
    right = max(right, left + 2.4)
    inner = max(left + 2.0, right - 1.0)
    if hollow:
        pen.box(left, middle - _BAR / 2, inner, middle + _BAR / 2, (*colour, 70), radius=3, outline=colour, line=1.4)
    else:
        pen.box(left, middle - _BAR / 2, inner, middle + _BAR / 2, colour, radius=min(3, (inner - left) / 2))


def _seconds(pen: _Pen, begin: int, end: int, at: Callable[[int], float], bottom: float) -> None:
    span = (end - begin) / 1e9
    step = next(one for one in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60) if span / one <= 14 or one == 60)
    for index in range(int(span / step) + 1):
        x = at(begin + int(index * step * 1e9))
        pen.line((x, _TOP - 8), (x, bottom), colour=_GRID, width=0.8)
        pen.text(x, bottom + 10, f"{index * step:.2g} s" if step < 1 else f"{index * step:.0f} s", 13, _FAINT, "ma")


def _names(pen: _Pen, facts: dict[str, Any], middles: Sequence[float], bottom: float) -> None:
    """Write who is in which lane, and what the dots are."""
    left, (fast, slow) = _MARGIN + 22, facts["readers"]
    titles = (
        ("the writer", _INK),
        ("the recorder: every frame", _FAST),
        ("the viewer: the newest, slowly", _SLOW),
    )
    for (title, colour), middle in zip(titles, middles, strict=True):
        pen.text(left, middle - 22, title, 17, colour)
    first, second = f"process {facts['writers'][0]}", f", then {facts['writers'][1]}"
    pen.text(left, middles[0] + 4, first, 14, _FIRST)
    pen.text(left + pen.measure(first, 14), middles[0] + 4, second, 14, _SECOND)
    for reader, middle in zip((fast, slow), middles[1:], strict=True):
        pen.text(left, middle + 4, f"{reader['read']} read, {reader['skipped']} skipped", 14, _SOFT)
    pen.dot(left + 4, bottom + 18, 2.8, _SLOW)
    pen.text(left + 14, bottom + 10, "read", 13, _FAINT)
    pen.dot(left + 66, bottom + 18, 2.8, _FAINT, hollow=True)
    pen.text(left + 76, bottom + 10, "skipped", 13, _FAINT)


def _events(pen: _Pen, facts: dict[str, Any], kill: float, resume: float, bottom: float) -> None:
    """Mark the kill, and the first frame after it."""
    frame, seconds = facts["killed"]["frame"], facts["killed"]["seconds"]
    killed, resumed = f"kill -9: frame {frame} half written", f"the next writer: frame {frame}, {seconds:.2f} s later"
    pen.line((kill, _TOP - 20), (kill, bottom), colour=_KILL, width=1.8)
    pen.line((resume, _TOP - 20), (resume, bottom), colour=_SECOND, width=1.8)
    at = max(kill - 8, _MARGIN + 22 + pen.measure(killed, 15))
    pen.text(at, _TOP - 26, killed, 15, _KILL, "rs")
    pen.text(
        max(at + 16, min(resume + 8, _RIGHT - 18 - pen.measure(resumed, 15))), _TOP - 26, resumed, 15, _SECOND, "ls"
    )


def _strips(pen: _Pen, facts: dict[str, Any], written: Sequence[Written], results: Sequence[dict[str, Any]]) -> None:
    width = (_RIGHT - _MARGIN - (_COLUMNS - 1) * _GAP) / _COLUMNS
    height = width * THUMB[1] / THUMB[0]
    titles = ("what the recorder saw", "what the viewer saw")
    writers = {one.number: one.writer for one in written}
    for row, (result, title, colour) in enumerate(zip(results, titles, (_FAST, _SLOW), strict=True)):
        top = _STRIPS + row * (height + 78)
        pen.text(_MARGIN, top - 30, title, 18, colour)
        skipped = {one.number: one.skipped for one in result["seen"]}
        for place, (number, pixels) in enumerate(_spread(result["pictures"])):
            left = _MARGIN + place * (width + _GAP)
            pen.picture(Image.frombytes("RGB", THUMB, pixels), left, top, width, height)
            first = writers.get(number) == facts["writers"][0]
            pen.box(left, top + height, left + width, top + height + 4, _FIRST if first else _SECOND)
            label = f"frame {number}" + (f", {skipped[number]} skipped before" if skipped.get(number) else "")
            pen.text(left, top + height + 11, label, 14, _SOFT)


def _spread(pictures: Sequence[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Return as many pictures as there are columns, from the first to the last one."""
    last, count = len(pictures) - 1, min(_COLUMNS, len(pictures))
    return [pictures[index * last // max(1, count - 1)] for index in range(count)]
