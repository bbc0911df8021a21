"""Security descriptors as text (B33, B34, B35)."""

from __future__ import annotations

import pytest

from extmem.objects import MEMORY, SecurityDescriptor, Status, Token, default_descriptor, format_sddl, parse_sddl
from extmem.objects.sddl import MAX_ACES, MAX_LENGTH
from extmem.objects.security import EVERYONE, OWNER_RIGHTS, Ace, AceFlag, AceKind, DaclFlag
from tests.unit.objects.world import ALICE, ROOT, World, refused

ME = "S-1-22-1-1000"


def dacl(text: str) -> tuple[Ace, ...]:
    aces = parse_sddl(text, ALICE, MEMORY).dacl
    assert aces is not None
    return aces


def test_B33_owner_and_group_default_to_the_creators() -> None:
    sd = parse_sddl("D:", ALICE, MEMORY)
    assert sd == SecurityDescriptor(ME, "S-1-22-2-1000", ())


@pytest.mark.parametrize("text", ["D:NO_ACCESS_CONTROL", "D:PNO_ACCESS_CONTROL", "O:S-1-22-1-1000", "G:WD"])
def test_B33_no_dacl_and_a_null_dacl_are_none(text: str) -> None:
    assert parse_sddl(text, ALICE, MEMORY).dacl is None


def test_B33_everything_that_an_ace_can_say() -> None:
    text = (
        "O:S-1-22-1-1000G:S-1-22-2-27D:PAIAR(A;OICINPIO;GRGW;;;WD)(D;;0x1;;;S-1-22-1-0)"
        "(A;;GAGXRCSDWDWOCC;;;OW)(A;;131073;;;S-1-1-0)(A;IO;0X1FFFFF;;;S-1-3-4)(D;;0;;;S-1-22-2-4294967294)"
    )
    sd = parse_sddl(text, ALICE, MEMORY)
    every = AceFlag.OBJECT_INHERIT | AceFlag.CONTAINER_INHERIT | AceFlag.NO_PROPAGATE | AceFlag.INHERIT_ONLY
    assert sd.group == "S-1-22-2-27"
    assert sd.flags == DaclFlag.PROTECTED | DaclFlag.AUTO_INHERITED | DaclFlag.AUTO_INHERIT_REQ
    assert sd.dacl == (
        Ace(AceKind.ALLOW, 0xC000_0000, EVERYONE, every),
        Ace(AceKind.DENY, 1, "S-1-22-1-0"),
        Ace(AceKind.ALLOW, 0x300F_0001, OWNER_RIGHTS),
        Ace(AceKind.ALLOW, 0x20001, EVERYONE),
        Ace(AceKind.ALLOW, 0x1FFFFF, OWNER_RIGHTS, AceFlag.INHERIT_ONLY),
        Ace(AceKind.DENY, 0, "S-1-22-2-4294967294"),
    )
    assert parse_sddl(format_sddl(sd, MEMORY), ALICE, MEMORY) == sd


def test_parts_may_come_in_any_order_but_once() -> None:
    assert parse_sddl("D:O:S-1-22-1-1000", ALICE, MEMORY) == parse_sddl("O:S-1-22-1-1000D:", ALICE, MEMORY)
    with refused(Status.INVALID_SECURITY_DESCR, "position 2", "twice"):
        parse_sddl("D:D:", ALICE, MEMORY)


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("", 0, "empty"),
        ("X:", 0, "expected O:, G: or D:"),
        (" D:", 0, "expected O:, G: or D:"),
        ("D: ", 2, "expected O:, G: or D:"),
        ("D:Q", 2, "expected O:, G: or D:"),
        ("S:(AU;SA;GA;;;WD)", 0, "auditing"),
        ("D:(X;;GA;;;WD)", 3, "type A (allow) or D (deny)"),
        ("D:(AU;SA;GA;;;WD)", 4, "';' after the ACE's type"),
        ("D:(A;ID;GA;;;WD)", 5, "';' after the ACE's flags"),
        ("D:(A;;;;;WD)", 6, "expected rights"),
        ("D:(A;;QQ;;;WD)", 6, "expected rights"),
        ("D:(A;;GAQ;;;WD)", 8, "';' after the ACE's rights"),
        ("D:(A;;GAFA;;;WD)", 8, "no right FA"),
        ("D:(A;;DC;;;WD)", 6, "no right DC"),
        ("D:(A;;0x100000000;;;WD)", 16, "';' after the ACE's rights"),
        ("D:(A;;4294967296;;;WD)", 6, "32 bits"),
        ("D:(A;;010;;;WD)", 7, "';' after the ACE's rights"),
        ("D:(A;;-1;;;WD)", 6, "expected rights"),
        ("D:(A;;GA;bf967aba;;WD)", 9, "object type"),
        ("D:(A;;GA;;bf967aba;WD)", 10, "inherited object type"),
        ("D:(A;;GA;;;)", 11, "expected a trustee"),
        ("D:(A;;GA;;;BA)", 11, "expected a trustee"),
        ("D:(A;;GA;;;WD", 13, "expected ')'"),
        ("D:(A;;GA;;;WDX)", 13, "expected ')'"),
        ("D:(A;;GA;;;S-1-5-18)", 11, "is not a user or group"),
        ("D:(A;;GA;;;S-1-22-1-4294967295)", 11, "is not a user or group"),
        ("D:(A;;GA;;;S-1-22-1-007)", 11, "is not a user or group"),
        ("D:(A;;GA;;;S-1-22-1-1-2)", 11, "is not a user or group"),
        ("D:(A;;GA;;;S-1-22-1-11111111111)", 11, "expected a trustee"),
        ("D:(A;;GA;;;S-1)", 11, "expected a trustee"),
        ("D:(A;;GA;;;S-1-22-1-٣)", 11, "expected a trustee"),
        ("O:", 2, "expected a user"),
        ("G:", 2, "expected a group"),
        ("D:(", 3, "type A"),
        ("D:(A;;GA;;;WD)(A;;GA;;;ow)", 23, "expected a trustee"),
    ],
)
def test_B34_a_typo_is_named_with_its_position(text: str, position: int, words: str) -> None:
    with refused(Status.INVALID_SECURITY_DESCR, f"position {position} ", words):
        parse_sddl(text, ALICE, MEMORY)


def test_B34_another_sid_revision_is_an_unknown_revision() -> None:
    with refused(Status.UNKNOWN_REVISION, "revision 1, this one has 2"):
        parse_sddl("D:(A;;GA;;;S-2-1-0-0)", ALICE, MEMORY)
    assert parse_sddl("D:(A;;GA;;;S-1-1-0)", ALICE, MEMORY)


def test_B34_a_bad_descriptor_refuses_the_export_and_makes_nothing(world: World) -> None:
    before = world.m.counts()
    with refused(Status.INVALID_SECURITY_DESCR):
        world.export("frames", sddl="D:(A;;GA;;;XX)")
    assert world.m.counts() == before
    assert world.export("frames", sddl="D:(A;;GA;;;WD)")


@pytest.mark.parametrize("owner", ["S-1-22-1-1001", "WD", "S-1-22-2-1000", "OW"])
def test_only_oneself_can_be_made_the_owner(owner: str) -> None:
    with refused(Status.INVALID_OWNER, "position 2", ME):
        parse_sddl(f"O:{owner}", ALICE, MEMORY)
    assert parse_sddl(f"O:{ME}", ALICE, MEMORY).owner == ME


def test_uid_0_may_name_any_user_as_the_owner_but_nothing_else() -> None:
    assert parse_sddl("O:S-1-22-1-1001", ROOT, MEMORY).owner == "S-1-22-1-1001"
    with refused(Status.INVALID_OWNER):
        parse_sddl("O:WD", ROOT, MEMORY)


def test_length_and_count_are_bounded() -> None:
    ace = "(A;;GA;;;WD)"
    assert len(dacl("D:" + ace * MAX_ACES)) == MAX_ACES
    with refused(Status.INVALID_SECURITY_DESCR, f"at most {MAX_ACES} ACEs"):
        parse_sddl("D:" + ace * (MAX_ACES + 1), ALICE, MEMORY)
    with refused(Status.INVALID_SECURITY_DESCR, f"at most {MAX_LENGTH}"):
        parse_sddl("D:" + "P" * MAX_LENGTH, ALICE, MEMORY)
    assert parse_sddl("D:" + "P" * (MAX_LENGTH - 2), ALICE, MEMORY).dacl == ()


def test_format_uses_letters_where_they_say_it_all() -> None:
    sd = SecurityDescriptor(
        ME, EVERYONE, (Ace(AceKind.ALLOW, 0x2_0001, OWNER_RIGHTS), Ace(AceKind.DENY, 0x10_0001, EVERYONE))
    )
    assert format_sddl(sd, MEMORY) == "O:S-1-22-1-1000G:WDD:(A;;RCCC;;;OW)(D;;0x100001;;;WD)"


def test_the_default_descriptor_has_a_text() -> None:
    sd = default_descriptor(Token(5, 6))
    assert format_sddl(sd, MEMORY) == "O:S-1-22-1-5G:S-1-22-2-6D:(A;;GA;;;S-1-22-1-5)"
    assert parse_sddl(format_sddl(sd, MEMORY), Token(5, 9), MEMORY) == sd
