"""Who may do what: tokens, security descriptors, and the access check (B18, B26, B32, B33, B38).

How this works. The check walks the DACL in order and answers per bit: the first ACE that speaks about a bit for one of
the caller's identities decides it. A missing or NULL DACL lets everybody do everything, an empty one nobody anything.
The owner always has READ_CONTROL and WRITE_DAC, unless an ACE for owner rights (`OW`) is there, which then says all
that the owner has by being the owner. There is no user that the check does not apply to, uid 0 included.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final

from extmem.objects.access import (
    GENERIC_ALL,
    MAXIMUM_ALLOWED,
    READ_CONTROL,
    RESOURCE_WRITE,
    VALID_BITS,
    WRITE_DAC,
    describe,
    map_generic,
    requested,
)
from extmem.objects.status import Refused, Status

__all__ = [
    "EVERYONE",
    "OWNER_RIGHTS",
    "Ace",
    "AceFlag",
    "AceKind",
    "DaclFlag",
    "SecurityDescriptor",
    "Token",
    "allowed",
    "default_descriptor",
    "grant",
    "granted",
    "group_sid",
    "user_sid",
]

EVERYONE: Final = "S-1-1-0"
OWNER_RIGHTS: Final = "S-1-3-4"
_IMPLICIT_OWNER: Final = READ_CONTROL | WRITE_DAC


def user_sid(uid: int) -> str:
    """The SID of a Unix user (Samba's scheme)."""
    return f"S-1-22-1-{uid}"


def group_sid(gid: int) -> str:
    """The SID of a Unix group (Samba's scheme)."""
    return f"S-1-22-2-{gid}"


@dataclass(frozen=True, slots=True)
class Token:
    """Whom a process acts as: the kernel's word on its user and groups."""

    uid: int
    gid: int
    groups: frozenset[int] = frozenset()

    def sids(self) -> frozenset[str]:
        """Every SID that an ACE can mean this process by, owner rights aside."""
        groups = (group_sid(gid) for gid in (self.gid, *sorted(self.groups)))
        return frozenset((EVERYONE, user_sid(self.uid), *groups))


class AceKind(IntEnum):
    """ACCESS_ALLOWED_ACE_TYPE and ACCESS_DENIED_ACE_TYPE."""

    ALLOW = 0
    DENY = 1


class AceFlag(IntFlag):
    """Inheritance flags of an ACE. Only INHERIT_ONLY matters here: such an ACE says nothing about the object itself
    (B33).
    """

    OBJECT_INHERIT = 1
    CONTAINER_INHERIT = 2
    NO_PROPAGATE = 4
    INHERIT_ONLY = 8


@dataclass(frozen=True, slots=True)
class Ace:
    """One entry of a DACL. `mask` is as written; generic bits are mapped, unknown ones ignored at evaluation."""

    kind: AceKind
    mask: int
    sid: str
    flags: AceFlag = AceFlag(0)


class DaclFlag(IntFlag):
    """Control flags of a DACL. Kept and shown, never evaluated: nothing inherits here."""

    PROTECTED = 1
    AUTO_INHERIT_REQ = 2
    AUTO_INHERITED = 4


@dataclass(frozen=True, slots=True)
class SecurityDescriptor:
    """Owner, group and DACL. `dacl` None is no DACL (everybody may do everything), `()` an empty one (nobody may)."""

    owner: str
    group: str
    dacl: tuple[Ace, ...] | None
    flags: DaclFlag = DaclFlag(0)


def default_descriptor(token: Token) -> SecurityDescriptor:
    """What an object gets whose creator states no security (B26): its user may do everything, nobody else anything."""
    owner = user_sid(token.uid)
    return SecurityDescriptor(owner, group_sid(token.gid), (Ace(AceKind.ALLOW, GENERIC_ALL, owner),))


def allowed(sd: SecurityDescriptor, token: Token) -> int:
    """Every right that `token` has by `sd`, as a specific mask (what MAXIMUM_ALLOWED grants)."""
    if sd.dacl is None:
        return VALID_BITS
    is_owner = sd.owner == user_sid(token.uid)
    rights = 0
    decided = 0
    speaking = [ace for ace in sd.dacl if not ace.flags & AceFlag.INHERIT_ONLY]
    if is_owner and all(ace.sid != OWNER_RIGHTS for ace in speaking):
        rights = decided = _IMPLICIT_OWNER
    sids = token.sids()
    for ace in speaking:
        if ace.sid in sids or (is_owner and ace.sid == OWNER_RIGHTS):
            news = map_generic(ace.mask) & VALID_BITS & ~decided
            decided |= news
            if ace.kind is AceKind.ALLOW:
                rights |= news
    return rights


def granted(sd: SecurityDescriptor, token: Token, desired: int, *, ceiling: int = VALID_BITS) -> int:
    """The access check of an open: the specific mask that a handle gets. `ceiling` caps what the object can give at
    all.

    Raises Refused ACCESS_DENIED: for 0 (B18), for bits the type does not have (B23), for rights the DACL does not give.
    """
    return grant(allowed(sd, token), desired, user=token.uid, ceiling=ceiling)


def grant(rights: int, desired: int, *, user: int, ceiling: int = VALID_BITS) -> int:
    """`granted`, where what `user` may have by the DACL is known already."""
    if desired == 0:
        raise Refused(
            Status.ACCESS_DENIED,
            "An open that asks for no access (0) is refused, even to the owner. "
            "Ask for 0x80000000 to read, for 0x80000001 to write too.",
        )
    wanted = requested(desired)
    rights &= ceiling
    if wanted & MAXIMUM_ALLOWED:
        wanted = (wanted & ~MAXIMUM_ALLOWED) | rights
        if not wanted:
            raise Refused(
                Status.ACCESS_DENIED,
                f"The object's security gives user {user} no right at all. Ask the exporter to allow it in its "
                "security descriptor, for example with the ACE (A;;GR;;;WD).",
            )
    missing = wanted & ~rights
    if missing:
        read_only = missing == RESOURCE_WRITE and not ceiling & RESOURCE_WRITE
        raise Refused(
            Status.ACCESS_DENIED,
            f"User {user} asks for {describe(wanted)} and may have {describe(rights)}: {describe(missing)} is refused"
            + (
                " because the memory was shared read-only. Ask for less."
                if read_only
                else ". Ask for less, or have the exporter allow it in its security descriptor."
            ),
        )
    return wanted
