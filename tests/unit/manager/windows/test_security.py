"""Where SDDL is wrong: a pure part of the Windows manager, tested on every system."""

from __future__ import annotations

import pytest

from extmem.manager.windows.security import find_fault, find_misshape
from extmem.objects import MEMORY, Refused, Token, parse_sddl


def accepts(text: str) -> bool:
    """Return whether SDDL is valid, by a check that exists on every system: the object manager's own parser."""
    try:
        parse_sddl(text, Token(1000, 1000), MEMORY)
    except Refused:
        return False
    return True


@pytest.mark.parametrize(
    ("text", "position", "problem"),
    [
        ("", 0, "empty"),
        ("nonsense", 0, "expected O:"),
        ("D:(X;;GA;;;WD)", 3, "ACE type"),
        ("D:(A;XX;GA;;;WD)", 5, "flags"),
        ("D:(A;;QQ;;;WD)", 6, "rights"),
        ("D:(A;;GA;;WD)", 10, "inherited object type"),
        ("D:(A;;GA;;;)", 11, "trustee"),
        ("D:(A;;GA;;;WD", 13, "')'"),
        ("D:(A;;GA)", 8, "';'"),
        ("D:(A;;GA;;;WD)(A;;GR;;;S-1-x)", 23, "trustee"),
        ("O:ZZD:(A;;GA;;;WD)", 2, "user or group"),
        ("D:(A;;GA;;;WD)rest", 14, "expected O:"),
        ("D:(A;;GA;;;WD)D:(A;;GA;;;WD)", 14, "twice"),
    ],
)
def test_the_first_fault_of_a_text_is_found(text: str, position: int, problem: str) -> None:
    assert not accepts(text)
    fault = find_fault(text, accepts)
    assert fault.position == position
    assert problem in fault.problem


@pytest.mark.parametrize(
    "text",
    ["D:", "D:P", "D:(A;;GA;;;WD)", "D:PAI(A;OICI;GRGW;;;OW)(D;;GA;;;WD)", "D:NO_ACCESS_CONTROL", "O:S-1-22-1-1000D:"],
)
def test_sound_texts_are_well_shaped(text: str) -> None:
    assert accepts(text)
    assert find_misshape(text) is None


@pytest.mark.parametrize("text", ["D:(A;;GA;;;WD)rest", "D:(A;;GA;;;WD", "nonsense", "D:(A;;GA)", ""])
def test_misshapen_texts_are_seen_without_asking_the_system(text: str) -> None:
    assert find_misshape(text) is not None


def test_conditions_are_left_to_the_system() -> None:
    assert find_misshape('D:(XA;;GA;;;WD;(@User.Title=="PM"))') is None
