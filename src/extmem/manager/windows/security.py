"""Finds the position of the fault in SDDL text that Windows refuses.

How this works. `find_fault` is pure. Windows reports only that a text is wrong. So the text is divided by SDDL's
grammar, and each part is checked by itself inside a valid text: the first one that is refused is the fault.
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
    ("object type", "(OA;;GA;{};;WD)", "an object type, which shared memory does not have: leave it empty"),
    ("inherited object type", "(OA;;GA;;{};WD)", "an inherited object type: leave it empty"),
    ("trustee", "(A;;GA;;;{})", "a trustee: WD (everyone), OW (the owner), BA, BU, or a SID such as S-1-5-32-545"),
)


class Fault(NamedTuple):
    """The position of a fault, and what is expected there."""

    position: int
    problem: str


def find_fault(text: str, accepts: Accepts) -> Fault:
    """Return the first fault of a text that `accepts` refuses."""
    for fault in _faults(text, accepts):
        return fault
    return Fault(0, "each part is valid by itself, but not all together; state each part (O:, G:, D:) once")


def find_misshape(text: str) -> Fault | None:
    """Return the first fault by SDDL's grammar alone, for systems that accept it (text after the last part).

    None also for a text with conditions, `(XA;;GA;;;WD;(…))`, which the system checks.
    """
    return None if _NESTED.search(text) else next(_faults(text, lambda part: True), None)


def _faults(text: str, accepts: Accepts) -> Iterator[Fault]:
    if not text:
        yield Fault(0, "it is empty. Omit it for the default, or write D:NO_ACCESS_CONTROL for no protection")
    at, seen = 0, ""
    while at < len(text):
        part = _PART.match(text, at)
        if part is None:
            yield Fault(at, "expected O:, G:, D: or S: here")
            return
        if part[0] in seen:
            yield Fault(at, f"{part[0]} occurs twice. State it once")
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
    """Return the fault of the ACE that begins at `start`, or None; and where it ends."""
    end = text.find(")", start)
    if end < 0:
        return Fault(len(text), "expected ')' after the ACE's trustee"), len(text)
    fields = text[start + 1 : end].split(";")
    at = start + 1
    for index, (field, (name, sound, expected)) in enumerate(zip(fields, _FIELDS, strict=False)):
        may_be_empty = name not in ("type", "trustee")
        if not (may_be_empty if not field else accepts("D:" + sound.format(field))):
            return Fault(
                at, f"{field!r} is not a valid {name}; expected {expected}" if field else f"expected {expected}"
            ), end
        at += len(field)
        if index == len(fields) - 1 and index < len(_FIELDS) - 1:
            return Fault(at, f"expected ';' and {_FIELDS[index + 1][2]}"), end
        at += 1
    if not accepts(f"D:{text[start : end + 1]}"):
        return Fault(start, "this ACE is refused as a whole"), end
    return None, end + 1
