"""The pure parts of the Windows manager, on any system: names, rights, descriptions, and where SDDL goes wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extmem import errors
from extmem.manager.windows import names, rights
from extmem.manager.windows.section_frame import FRAME, Description, pack, unpack
from extmem.manager.windows.security import find_fault, find_misshape
from extmem.objects import MEMORY, Refused, Token, parse_sddl


def path(name: str, session: int = 1) -> str:
    return names.payload_path(names.resolve(name, session))


@pytest.mark.parametrize(
    ("name", "session", "expected"),
    [
        ("Camera", 1, r"\Sessions\1\BaseNamedObjects\extmem.CAMERA"),
        (r"Local\Camera", 2, r"\Sessions\2\BaseNamedObjects\extmem.CAMERA"),
        (r"global\Camera", 2, r"\BaseNamedObjects\extmem.CAMERA"),
        ("Camera", 0, r"\BaseNamedObjects\extmem.CAMERA"),
        ("straße é", 1, "\\Sessions\\1\\BaseNamedObjects\\extmem.STRAßE É"),
    ],
)
def test_a_name_becomes_one_kernel_object(name: str, session: int, expected: str) -> None:
    assert path(name, session) == expected


@given(st.text(st.characters(exclude_characters="\\\0", exclude_categories=["Cs"]), min_size=1, max_size=60))
def test_no_name_is_a_companion_or_a_number(name: str) -> None:
    kernel = path(name)
    assert names.is_ours(kernel)
    assert not names.is_ours(names.companion_of(kernel))
    assert names.find_number(kernel) == 0
    assert kernel != names.companion_of(path("x"))


@given(st.integers(0x4000_0000, 0xFFFF_FFFF), st.integers(0, 9))
def test_a_number_and_its_path_belong_together(number: int, session: int) -> None:
    kernel = names.kmt_path(number, session)
    assert names.find_number(kernel) == number
    assert names.is_ours(kernel)
    assert names.find_number(names.companion_of(kernel)) == 0


def test_names_that_nothing_can_have_are_refused_before_the_kernel_sees_them() -> None:
    for bad in ("", "a\0b", "\\x", "x" * 261):
        with pytest.raises(errors.NameInvalidError):
            names.resolve(bad, 1)
    with pytest.raises(errors.NameNotFoundError):
        names.resolve("a\\b", 1)


@pytest.mark.parametrize(
    ("asked", "section"),
    [
        (0x8000_0000, 0x20005),
        (0x8000_0001, 0x20007),
        (0x1000_0000, 0xF0007),
        (0x1, 0x2),
        (0, 0),
        (0x0200_0000, 0x0200_0000),
        (0x1F0001, 0xF0007),
        (0x10000, 0x10000),
    ],
)
def test_rights_of_shared_memory_as_a_sections(asked: int, section: int) -> None:
    assert rights.to_section(rights.asked(asked)) == section


@pytest.mark.parametrize(
    ("section", "memory"),
    [(0x20005, 0x20000), (0x20007, 0x20001), (0xF001F, 0xF0001), (0x4, 0x20000), (0x2, 0x1), (0x1, 0), (0, 0)],
)
def test_a_sections_rights_as_those_of_shared_memory(section: int, memory: int) -> None:
    assert rights.from_section(section) == memory


@given(st.integers(0, 0xFFFF_FFFF).map(lambda mask: mask & 0x000F_0001))
def test_rights_come_back_as_they_were_asked(mask: int) -> None:
    assert rights.from_section(rights.to_section(mask)) == mask


def test_bits_that_shared_memory_has_not_are_refused() -> None:
    with pytest.raises(errors.AccessDeniedError):
        rights.asked(0x2)
    with pytest.raises(errors.InvalidHandleError):
        rights.asked(1 << 32)


_DESCRIPTION = Description(7, 1, False, r"\Sessions\1\BaseNamedObjects\Camera", b"descriptor")


def test_a_description_comes_back_from_its_frame() -> None:
    assert unpack(pack(_DESCRIPTION)) == _DESCRIPTION
    assert unpack(pack(_DESCRIPTION).ljust(FRAME, b"\0")) == _DESCRIPTION


def test_the_largest_description_fits() -> None:
    largest = Description(2**62, 255, True, "😀" * 300, b"\xff" * 4096)
    assert unpack(pack(largest)) == largest
    with pytest.raises(ValueError, match="does not fit"):
        pack(Description(1, 1, False, "x", b"\0" * FRAME))


@given(st.binary(max_size=200), st.integers(0, 120))
def test_a_damaged_frame_is_no_description_and_no_error(noise: bytes, at: int) -> None:
    frame = bytearray(pack(_DESCRIPTION))
    frame[at : at + len(noise)] = noise
    found = unpack(bytes(frame))
    assert found is None or found == _DESCRIPTION


def accepts(text: str) -> bool:
    """Check SDDL on every system: by the object manager's own parser."""
    try:
        parse_sddl(text, Token(1000, 1000), MEMORY)
    except Refused:
        return False
    return True


@pytest.mark.parametrize(
    ("text", "position", "said"),
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
def test_the_first_fault_of_a_text_is_found(text: str, position: int, said: str) -> None:
    assert not accepts(text)
    fault = find_fault(text, accepts)
    assert fault.position == position
    assert said in fault.problem


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
