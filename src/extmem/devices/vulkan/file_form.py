"""The form of a driver's files: what they contain besides the payload, learned from samples. Pure.

How this works. Software drivers share memory as a file, and some write into it what they read again at an import: the
length of the file, the offset of the payload. They trust what they read, so other bytes there end the process that
imports the file. This module does not identify drivers by name. Instead the driver exports a few payloads (`Sample`) of
different sizes, dedicated and not, each with marks at the payload's beginning and end. `learn` compares them in words
of eight bytes:

* a word that all samples have in common is the driver's, and every file of this driver must have it;
* a word that differs from the file's length, or from the payload's, by the same number in all samples stands for that
  length, and does so in every file;
* every other word is not compared.

Bytes behind the payload are compared only if the samples have other bytes than zeros there: bytes that round a size up
may be anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

__all__ = ["Form", "Sample", "learn"]

_WORD = 8
_MOST = 1 << 16
"""Bytes before the payload, and behind it, that are compared at most."""


class Sample(msgspec.Struct, frozen=True):
    """A file that the driver exported. first, last: the bytes that were written at the payload's beginning and end."""

    size: int
    """Bytes of the payload."""
    content: bytes
    first: bytes
    last: bytes


class _Length(NamedTuple):
    """A word that stands for a length: this much more than the file's, or than the payload's; None if it is not."""

    at: int
    than_file: int | None
    than_payload: int | None


class _Part(msgspec.Struct, frozen=True):
    """The bytes before the payload, or behind it."""

    size: int
    """Bytes."""
    runs: tuple[tuple[int, bytes], ...]
    """Offsets and bytes that every file has."""
    lengths: tuple[_Length, ...]

    def differs(self, seen: bytes, length: int, size: int) -> int:
        """The offset of the first byte that is not the driver's; -1 if there is none."""
        for at, run in self.runs:
            if seen[at : at + len(run)] != run:
                return at + next(i for i, byte in enumerate(run) if seen[at + i : at + i + 1] != bytes((byte,)))
        for at, than_file, than_payload in self.lengths:
            value = int.from_bytes(seen[at : at + _WORD], "little")
            if (than_file is None or value != length + than_file) and (
                than_payload is None or value != size + than_payload
            ):
                return at
        return -1


class Form(msgspec.Struct, frozen=True):
    """The common form of the files of one driver, handle type and memory type."""

    start: int
    """Bytes before the payload."""
    besides: int
    """Bytes that a file has more than its payload, at least."""
    head: _Part
    tail: _Part

    def problem(self, head: bytes, tail: bytes, length: int, size: int) -> str:
        """Why a file of `length` bytes is not one of the driver's; empty if it may be one.

        head, tail: its first and last bytes, as many as these parts have. size: bytes of the payload.
        """
        if length < size + self.besides:
            return f"a file of {length} bytes, and a payload of {size} bytes takes {size + self.besides}"
        for part, seen, where in ((self.head, head, 0), (self.tail, tail, length - self.tail.size)):
            at = part.differs(seen, length, size) if part.size else -1
            if at >= 0:
                return f"a file whose byte {where + at}, which is not the payload's, differs from the driver's own"
        return ""


def learn(samples: Sequence[Sample]) -> Form | None:
    """Return the common form. None if the payload is not in one piece, at the same offset, in all files."""
    starts = {one.content.find(one.first, 0, _MOST + len(one.first)) for one in samples}
    start = starts.pop() if len(starts) == 1 else -1
    if start < 0 or not all(one.content.startswith(one.last, start + one.size - len(one.last)) for one in samples):
        return None
    behind = min(_MOST, min(len(one.content) - start - one.size for one in samples))
    tails = [one.content[len(one.content) - behind :] for one in samples] if behind else []
    kept = [tail[behind % _WORD :] for tail in tails]
    if not any(map(any, kept)):
        kept = [b"" for _ in samples]
    return Form(
        start,
        min(len(one.content) - one.size for one in samples),
        _common(samples, [one.content[:start] for one in samples]),
        _common(samples, kept),
    )


def _common(samples: Sequence[Sample], parts: Sequence[bytes]) -> _Part:
    """Return what the same part of all samples has in common."""
    whole = len(parts[0])
    runs: list[tuple[int, bytes]] = []
    lengths: list[_Length] = []
    for at in range(0, whole, _WORD):
        words = [part[at : at + _WORD] for part in parts]
        if len(set(words)) == 1:
            if runs and runs[-1][0] + len(runs[-1][1]) == at:
                runs[-1] = (runs[-1][0], runs[-1][1] + words[0])
            else:
                runs.append((at, words[0]))
            continue
        numbers = [int.from_bytes(word, "little") for word in words]
        than_file = {n - len(one.content) for n, one in zip(numbers, samples, strict=True)}
        than_payload = {n - one.size for n, one in zip(numbers, samples, strict=True)}
        found = [one.pop() if len(one) == 1 else None for one in (than_file, than_payload)]
        if found != [None, None]:
            lengths.append(_Length(at, *found))
    return _Part(whole, tuple(runs), tuple(lengths))
