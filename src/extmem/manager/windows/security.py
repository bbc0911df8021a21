"""Security descriptors as SDDL text, judged by Windows; where it refuses one, the position is found and named.

How this works. `find_fault` is pure. Windows says only that a text is wrong. So the text is taken apart by SDDL's
grammar, and each part is judged by itself inside a text that is sound: the first that is refused is the one at fault.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

__all__ = ["Fault", "find_fault", "find_misshape"]

Accepts = Callable[[str], bool]
_DACL_FLAGS = re.compile(r"(?:P|AI|AR|NO_ACCESS_CONTROL)*")
_NESTED = re.compile(r"\([^)]*\(")
_PART = re.compile(r"[OGDS]:")
_FIELDS = (
    ("type", "({};;GA;;;WD)", "an ACE type: A (allow) or D (deny)"),
    ("flags", "(A;{};GA;;;WD)", "ACE flags such as OI, CI, NP, IO, or none"),
    ("rights", "(A;;{};;;WD)", "rights such as GA, GR, GW, RC, SD, WD, WO, or a number such as 0x20005"),
    ("object type", "(OA;;GA;{};;WD)", "an object type, which shared memory has none of: leave it empty"),
    ("inherited object type", "(OA;;GA;;{};WD)", "an inherited object type: leave it empty"),
    ("trustee", "(A;;GA;;;{})", "a trustee: WD (everyone), OW (the owner), BA, BU, or a SID such as S-1-5-32-545"),
)


class Fault(NamedTuple):
    """Where a text goes wrong, and what would have been right there."""

    position: int
    problem: str


def find_fault(text: str, accepts: Accepts) -> Fault:
    """The first thing wrong with a text that `accepts` refuses."""
    for fault in _faults(text, accepts):
        return fault
    return Fault(0, "each part is sound by itself and together they are not; state each part (O:, G:, D:) once")


def find_misshape(text: str) -> Fault | None:
    """The first thing that SDDL's grammar alone forbids, for systems that are lax about it (text after the last part).

    None, too, for a text with conditions in it, `(XA;;GA;;;WD;(…))`: those are the system's to judge.
    """
    return None if _NESTED.search(text) else next(_faults(text, lambda part: True), None)


def _faults(text: str, accepts: Accepts) -> Iterator[Fault]:
    if not text:
        yield Fault(0, "it is empty. Leave it out for the default, or write D:NO_ACCESS_CONTROL for no protection")
    at, seen = 0, ""
    while at < len(text):
        part = _PART.match(text, at)
        if part is None:
            yield Fault(at, "expected O:, G:, D: or S: here")
            return
        if part[0] in seen:
            yield Fault(at, f"{part[0]} is there twice. State it once")
        seen += part[0]
        at = part.end()
        following = _PART.search(text, at) if part[0] in "O:G:" else None
        if part[0] in ("O:", "G:"):
            end = following.start() if following is not None else len(text)
            if not accepts(f"{part[0]}{text[at:end]}"):
                yield Fault(at, "expected a user or group: BA, SY or a SID such as S-1-5-32-545")
            at = end
            continue
        flags = _DACL_FLAGS.match(text, at)
        at = flags.end() if flags is not None else at
        while text.startswith("(", at):
            fault, at = _ace(text, at, accepts)
            if fault is not None:
                yield fault
                return


def _ace(text: str, start: int, accepts: Accepts) -> tuple[Fault | None, int]:
    """What is wrong with the ACE that begins at `start`, or None; and where it ends."""
    end = text.find(")", start)
    if end < 0:
        return Fault(len(text), "expected ')' after the ACE's trustee"), len(text)
    fields = text[start + 1 : end].split(";")
    at = start + 1
    for index, (field, (name, sound, expected)) in enumerate(zip(fields, _FIELDS, strict=False)):
        empty_is_sound = name not in ("type", "trustee")
        if not (empty_is_sound if not field else accepts("D:" + sound.format(field))):
            return Fault(at, f"{field!r} is no {name}; expected {expected}" if field else f"expected {expected}"), end
        at += len(field)
        if index == len(fields) - 1 and index < len(_FIELDS) - 1:
            return Fault(at, f"expected ';' and {_FIELDS[index + 1][2]}"), end
        at += 1
    if not accepts(f"D:{text[start : end + 1]}"):
        return Fault(start, "this ACE is refused as a whole"), end
    return None, end + 1
