"""Names, security descriptors and access checks, whatever the input."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from extmem.objects import (
    MEMORY,
    Refused,
    SecurityDescriptor,
    Status,
    Token,
    format_sddl,
    parse_sddl,
    resolve_name,
)
from extmem.objects.names import MAX_UNITS, parse_path
from extmem.objects.security import (
    EVERYONE,
    OWNER_RIGHTS,
    Ace,
    AceFlag,
    AceKind,
    DaclFlag,
    allowed,
    grant,
    group_sid,
    user_sid,
)

ids = st.integers(0, 3) | st.integers(0, 0xFFFF_FFFE)
sids = st.sampled_from([EVERYONE, OWNER_RIGHTS]) | ids.map(user_sid) | ids.map(group_sid)
masks = st.integers(0, 0xFFFF_FFFF) | st.sampled_from([0, 1, 0x20000, 0x8000_0000, 0x1000_0000])
flags = st.integers(0, 15).map(AceFlag)
aces = st.builds(Ace, st.sampled_from(AceKind), masks, sids, flags)
dacls = st.none() | st.lists(aces, max_size=6).map(tuple)
tokens = st.builds(Token, st.integers(0, 3), st.integers(0, 3), st.frozensets(st.integers(0, 3), max_size=3))


@st.composite
def descriptors(draw: st.DrawFn) -> SecurityDescriptor:
    return SecurityDescriptor(
        user_sid(draw(st.integers(0, 3))), draw(sids), draw(dacls), draw(st.integers(0, 7).map(DaclFlag))
    )


@given(descriptors())
def test_every_descriptor_survives_its_text(sd: SecurityDescriptor) -> None:
    owner = Token(int(sd.owner.rpartition("-")[2]), 0)
    assert parse_sddl(format_sddl(sd, MEMORY), owner, MEMORY) == sd


@given(st.text("OGDAIPRWC:(;)S-1230xFN_ ", max_size=60))
def test_text_is_a_descriptor_or_refused_with_a_position(text: str) -> None:
    try:
        sd = parse_sddl(text, Token(1, 1), MEMORY)
    except Refused as refusal:
        assert refusal.status in (Status.INVALID_SECURITY_DESCR, Status.UNKNOWN_REVISION, Status.INVALID_OWNER)
        assert "position" in refusal.detail
    else:
        assert parse_sddl(format_sddl(sd, MEMORY), Token(1, 1), MEMORY) == sd


def bit_by_bit(sd: SecurityDescriptor, token: Token) -> int:
    """Another implementation of the access check: for each bit, the first ACE that contains it."""
    if sd.dacl is None:
        return MEMORY.valid
    owner = sd.owner == user_sid(token.uid)
    me = {EVERYONE, user_sid(token.uid), *map(group_sid, token.groups | {token.gid})} | (
        {OWNER_RIGHTS} if owner else set()
    )
    matching = [ace for ace in sd.dacl if AceFlag.INHERIT_ONLY not in ace.flags]
    rights = 0
    for bit in (1 << n for n in range(32) if MEMORY.valid >> n & 1):
        if owner and bit in (0x20000, 0x40000) and OWNER_RIGHTS not in {ace.sid for ace in matching}:
            rights |= bit
            continue
        first = next((ace for ace in matching if ace.sid in me and MEMORY.map_generic(ace.mask) & bit), None)
        if first is not None and first.kind is AceKind.ALLOW:
            rights |= bit
    return rights


@given(descriptors(), tokens)
def test_the_access_check_takes_the_first_ace_of_every_bit(sd: SecurityDescriptor, token: Token) -> None:
    assert allowed(sd, token, MEMORY) == bit_by_bit(sd, token)


@given(descriptors(), tokens, masks)
def test_an_open_grants_the_requested_access_or_fails(sd: SecurityDescriptor, token: Token, desired: int) -> None:
    rights = allowed(sd, token, MEMORY)
    try:
        got = grant(allowed(sd, token, MEMORY), desired, MEMORY, user=token.uid, ceiling=MEMORY.valid)
    except Refused as refusal:
        assert refusal.status is Status.ACCESS_DENIED
        maximum = bool(desired & 0x0200_0000)
        named = MEMORY.map_generic(desired & ~0x0200_0000)
        assert desired == 0 or named & ~rights or (maximum and not rights)
    else:
        assert got and not got & ~rights
        assert got == (MEMORY.map_generic(desired) if not desired & 0x0200_0000 else rights)


@given(st.text(max_size=300), st.integers(0, 3))
def test_a_name_resolves_to_one_place_or_is_refused(name: str, session: int) -> None:
    try:
        key = resolve_name(name, session)
    except Refused as refusal:
        assert refusal.status in (Status.OBJECT_NAME_INVALID, Status.OBJECT_PATH_NOT_FOUND)
        return
    assert "\0" not in name and name and len(name.encode("utf-16-le")) <= 2 * MAX_UNITS
    assert parse_path(key.display, session) == key
    assert resolve_name("Local\\" * (len(name) < 100) + name, session) == key
    leaf = name.rpartition("\\")[2]
    assert key.display.endswith("\\" + leaf)


@given(st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_folding_keeps_the_length_and_is_done_once(name: str) -> None:
    if "\\" in name or "\0" in name:
        return
    folded = resolve_name(name, 1).key.partition("\\")[2]
    assert len(folded) == len(name)
    assert resolve_name(folded, 1).key.partition("\\")[2] == folded
