"""Security descriptors as text: the subset of SDDL that applies to shared objects (B33, B34).

How this works. One cursor walks the text and every refusal names its position. Accepted are `O:`, `G:` and `D:`, DACL
flags P, AI, AR and NO_ACCESS_CONTROL, ACEs of type A and D with flags OI CI NP IO, rights in letters (those that the
type has) or as a number, and the trustees WD, OW, S-1-1-0, S-1-3-4, S-1-22-1-<uid>, S-1-22-2-<gid>. All else is an
error: a descriptor of which a part is ignored does not protect. The size is bounded, since the text comes from other
processes.
"""

from __future__ import annotations

import re
from typing import Final, NoReturn

from extmem.objects import access
from extmem.objects.object_types import ObjectType
from extmem.objects.security import (
    EVERYONE,
    OWNER_RIGHTS,
    Ace,
    AceFlag,
    AceKind,
    DaclFlag,
    SecurityDescriptor,
    Token,
    group_sid,
    user_sid,
)
from extmem.objects.status import Refused, Status

__all__ = ["MAX_ACES", "MAX_LENGTH", "format_sddl", "parse_sddl", "rights_of"]

MAX_LENGTH: Final = 4096
MAX_ACES: Final = 64

_RIGHTS: Final = {
    "GA": access.GENERIC_ALL,
    "GR": access.GENERIC_READ,
    "GW": access.GENERIC_WRITE,
    "GX": access.GENERIC_EXECUTE,
    "RC": access.READ_CONTROL,
    "SD": access.DELETE,
    "WD": access.WRITE_DAC,
    "WO": access.WRITE_OWNER,
}
_SPECIFIC: Final = ("CC", "DC", "LC", "SW", "RP", "WP", "DT", "LO", "CR")
"""The letters for the specific rights of any type, from bit 0 on."""
_OTHER_TYPES: Final = frozenset((*_SPECIFIC, "FA", "FR", "FW", "FX", "KA", "KR", "KW", "KX", "NR", "NW", "NX"))
_ACE_FLAGS: Final = {
    "OI": AceFlag.OBJECT_INHERIT,
    "CI": AceFlag.CONTAINER_INHERIT,
    "NP": AceFlag.NO_PROPAGATE,
    "IO": AceFlag.INHERIT_ONLY,
}
_DACL_FLAGS: Final = {
    "P": DaclFlag.PROTECTED,
    "AR": DaclFlag.AUTO_INHERIT_REQ,
    "AI": DaclFlag.AUTO_INHERITED,
}
_KINDS: Final = {"A": AceKind.ALLOW, "D": AceKind.DENY}
_ALIASES: Final = {"WD": EVERYONE, "OW": OWNER_RIGHTS}
_SID: Final = re.compile(r"S-(\d{1,10})((?:-\d{1,10}){2,16})(?![\d-])", re.ASCII)
_NUMBER: Final = re.compile(r"0[xX][0-9A-Fa-f]{1,8}|0|[1-9][0-9]{0,9}")
_NULL_DACL: Final = "NO_ACCESS_CONTROL"
_ID_MAX: Final = 0xFFFF_FFFE  # 0xFFFFFFFF means "no id" to the kernel


def rights_of(object_type: ObjectType) -> dict[str, int]:
    """Return the letters of the rights of a type, with their bits."""
    specific = {letters: 1 << bit for bit, letters in enumerate(_SPECIFIC)}
    return _RIGHTS | {letters: bit for letters, bit in specific.items() if bit & object_type.valid}


def parse_sddl(text: str, token: Token, object_type: ObjectType) -> SecurityDescriptor:
    """Return the descriptor that `text` describes when `token`'s process creates an object of that type with it.

    Owner and group default to the token's. Raises Refused INVALID_SECURITY_DESCR (what, and at which position),
    UNKNOWN_REVISION for a SID that is not of revision 1, INVALID_OWNER for an owner that the token may not name.
    """
    if len(text) > MAX_LENGTH:
        raise Refused(
            Status.INVALID_SECURITY_DESCR,
            f"The security descriptor has {len(text)} characters, at most {MAX_LENGTH} are allowed. Use fewer ACEs, "
            "or a group.",
        )
    return _Parser(text, object_type).descriptor(token)


def format_sddl(sd: SecurityDescriptor, object_type: ObjectType) -> str:
    """Return the text of a descriptor. `parse_sddl` of it, with the owner's token, gives an equal descriptor."""
    letters = rights_of(object_type)
    flags = "".join(word for word, bit in _DACL_FLAGS.items() if sd.flags & bit)
    body = _NULL_DACL if sd.dacl is None else "".join(_format_ace(ace, letters) for ace in sd.dacl)
    return f"O:{sd.owner}G:{_format_sid(sd.group)}D:{flags}{body}"


def _format_ace(ace: Ace, letters: dict[str, int]) -> str:
    kind = "A" if ace.kind is AceKind.ALLOW else "D"
    flags = "".join(word for word, bit in _ACE_FLAGS.items() if ace.flags & bit)
    return f"({kind};{flags};{_format_mask(ace.mask, letters)};;;{_format_sid(ace.sid)})"


def _format_mask(mask: int, letters: dict[str, int]) -> str:
    words = [word for word, bit in letters.items() if mask & bit]
    covered = sum(letters[word] for word in words)
    return "".join(words) if words and covered == mask else f"0x{mask:x}"


def _format_sid(sid: str) -> str:
    return next((alias for alias, meant in _ALIASES.items() if meant == sid), sid)


class _Parser:
    """A cursor over the text. Every method consumes what it is named after."""

    def __init__(self, text: str, object_type: ObjectType) -> None:
        self.text = text
        self.noun = object_type.noun
        self.letters = rights_of(object_type)
        self.at = 0

    def fail(self, problem: str, *, at: int | None = None, status: Status = Status.INVALID_SECURITY_DESCR) -> NoReturn:
        where = self.at if at is None else at
        near = self.text[where : where + 12]
        raise Refused(
            status,
            f"Security descriptor, position {where}{f' ({near!r})' if near else ' (the end)'}: {problem}",
        )

    def take(self, word: str) -> bool:
        if self.text.startswith(word, self.at):
            self.at += len(word)
            return True
        return False

    def descriptor(self, token: Token) -> SecurityDescriptor:
        owner, group = user_sid(token.uid), group_sid(token.gid)
        dacl: tuple[Ace, ...] | None = None
        flags = DaclFlag(0)
        seen: set[str] = set()
        if not self.text:
            self.fail(
                "it is empty. Omit it for the default (the owner alone), or write D:NO_ACCESS_CONTROL for no "
                "protection."
            )
        while self.at < len(self.text):
            start = self.at
            part = self.text[start : start + 2]
            if part in seen:
                self.fail(f"{part} appears twice. State it once.")
            seen.add(part)
            if self.take("O:"):
                owner = self.owner(token)
            elif self.take("G:"):
                group = self.sid("a group such as S-1-22-2-1000")
            elif self.take("D:"):
                dacl, flags = self.dacl()
            elif part == "S:":
                self.fail("auditing (S:) is not supported. Omit that part.")
            else:
                self.fail("expected O:, G: or D: here.")
        return SecurityDescriptor(owner, group, dacl, flags)

    def owner(self, token: Token) -> str:
        start = self.at
        owner = self.sid("a user such as S-1-22-1-1000")
        if owner != user_sid(token.uid) and (token.uid != 0 or not owner.startswith("S-1-22-1-")):
            self.fail(
                f"user {token.uid} can't make {owner} the owner. Omit O:, or name {user_sid(token.uid)}.",
                at=start,
                status=Status.INVALID_OWNER,
            )
        return owner

    def dacl(self) -> tuple[tuple[Ace, ...] | None, DaclFlag]:
        flags = DaclFlag(0)
        while True:
            if self.take(_NULL_DACL):
                return None, flags
            word = next((word for word in _DACL_FLAGS if self.take(word)), None)
            if word is None:
                break
            flags |= _DACL_FLAGS[word]
        aces: list[Ace] = []
        while self.text.startswith("(", self.at):
            if len(aces) == MAX_ACES:
                self.fail(f"a DACL has at most {MAX_ACES} ACEs. Use a group instead of many users.")
            aces.append(self.ace())
        return tuple(aces), flags

    def ace(self) -> Ace:
        self.at += 1  # the parenthesis that brought us here
        kind = next((meant for word, meant in _KINDS.items() if self.take(word)), None)
        if kind is None:
            self.fail("expected an ACE of type A (allow) or D (deny).")
        self.semicolon("the ACE's type")
        flags = AceFlag(0)
        while (word := self.text[self.at : self.at + 2]) in _ACE_FLAGS:
            self.at += 2
            flags |= _ACE_FLAGS[word]
        self.semicolon("the ACE's flags (OI, CI, NP, IO or none)")
        mask = self.mask()
        self.semicolon("the ACE's rights")
        self.semicolon("the object type, which must be empty")
        self.semicolon("the inherited object type, which must be empty")
        sid = self.sid("a trustee: WD, OW, S-1-22-1-<uid> or S-1-22-2-<gid>")
        if not self.take(")"):
            self.fail("expected ')' after the ACE's trustee.")
        return Ace(kind, mask, sid, flags)

    def semicolon(self, after: str) -> None:
        if not self.take(";"):
            self.fail(f"expected ';' after {after}.")

    def mask(self) -> int:
        if number := _NUMBER.match(self.text, self.at):
            value = int(number[0], 0)
            if value > 0xFFFF_FFFF:
                self.fail("an access mask has 32 bits.")
            self.at = number.end()
            return value
        mask = 0
        start = self.at
        while (word := self.text[self.at : self.at + 2]) in self.letters:
            self.at += 2
            mask |= self.letters[word]
        if word in _OTHER_TYPES:
            self.fail(f"{self.noun} has no right {word}. Use {', '.join(self.letters)} or a number.")
        if self.at == start:
            self.fail(f"expected rights: {', '.join(self.letters)}, or a number such as 0x20001.")
        return mask

    def sid(self, what: str) -> str:
        start = self.at
        for alias, meant in _ALIASES.items():
            if self.take(alias):
                return meant
        match = _SID.match(self.text, start)
        if match is None:
            self.fail(f"expected {what}.")
        if int(match[1]) != 1:
            self.fail(f"SIDs have revision 1, this one has {match[1]}.", status=Status.UNKNOWN_REVISION)
        sid = match[0]
        known = sid in (EVERYONE, OWNER_RIGHTS) or any(
            sid.startswith(prefix) and sid[len(prefix) :].isdecimal() and _plain_id(sid[len(prefix) :])
            for prefix in ("S-1-22-1-", "S-1-22-2-")
        )
        if not known:
            self.fail(f"{sid} is not a user or group of this system. Use WD, OW, S-1-22-1-<uid> or S-1-22-2-<gid>.")
        self.at = match.end()
        return sid


def _plain_id(digits: str) -> bool:
    """No leading zeros (two texts for one user would compare unequal), and an id that a user can have."""
    return str(int(digits)) == digits and int(digits) <= _ID_MAX
