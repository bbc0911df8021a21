"""Access control: tokens, security descriptors, and the access check (B18, B26, B32, B33, B38).

How this works. The check walks the DACL in order and decides per bit: the first ACE that contains a bit and applies to
one of the caller's SIDs allows or denies it. A missing or NULL DACL allows everything to every user, an empty one
allows nothing. The owner always has READ_CONTROL and WRITE_DAC, unless the DACL contains an ACE for owner rights
(`OW`), which then states all rights that the owner has as the owner. The check applies to every user, uid 0 included.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final

import msgspec

from extmem.objects.access import GENERIC_ALL, GENERIC_READ, MAXIMUM_ALLOWED, READ_CONTROL, WRITE_DAC
from extmem.objects.object_types import ObjectType
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


class Token(msgspec.Struct, frozen=True):
    """The user and the groups of a process, as the kernel reports them."""

    uid: int
    gid: int
    groups: frozenset[int] = frozenset()

    def sids(self) -> frozenset[str]:
        """Return every SID by which an ACE can apply to this process, except that of owner rights."""
        groups = (group_sid(gid) for gid in (self.gid, *sorted(self.groups)))
        return frozenset((EVERYONE, user_sid(self.uid), *groups))


class AceKind(IntEnum):
    """ACCESS_ALLOWED_ACE_TYPE and ACCESS_DENIED_ACE_TYPE."""

    ALLOW = 0
    DENY = 1


class AceFlag(IntFlag):
    """Inheritance flags of an ACE.

    Only INHERIT_ONLY has an effect: such an ACE does not apply to the object itself (B33).
    """

    OBJECT_INHERIT = 1
    CONTAINER_INHERIT = 2
    NO_PROPAGATE = 4
    INHERIT_ONLY = 8


class Ace(msgspec.Struct, frozen=True):
    """One entry of a DACL. `mask` is as written; generic bits are mapped, unknown ones ignored at evaluation."""

    kind: AceKind
    mask: int
    sid: str
    flags: AceFlag = AceFlag(0)


class DaclFlag(IntFlag):
    """Control flags of a DACL. They are kept and shown, and never evaluated: objects here do not inherit security."""

    PROTECTED = 1
    AUTO_INHERIT_REQ = 2
    AUTO_INHERITED = 4


class SecurityDescriptor(msgspec.Struct, frozen=True):
    """Owner, group and DACL. `dacl` None is a missing DACL (all is allowed), `()` an empty one (nothing is allowed)."""

    owner: str
    group: str
    dacl: tuple[Ace, ...] | None
    flags: DaclFlag = DaclFlag(0)


def default_descriptor(token: Token) -> SecurityDescriptor:
    """Return the security of an object whose creator states none (B26): its user has all rights, other users none."""
    owner = user_sid(token.uid)
    return SecurityDescriptor(owner, group_sid(token.gid), (Ace(AceKind.ALLOW, GENERIC_ALL, owner),))


def allowed(sd: SecurityDescriptor, token: Token, object_type: ObjectType) -> int:
    """Return every right that `token` has by `sd`, as a specific mask (what MAXIMUM_ALLOWED grants)."""
    if sd.dacl is None:
        return object_type.valid
    is_owner = sd.owner == user_sid(token.uid)
    rights = 0
    decided = 0
    effective = [ace for ace in sd.dacl if not ace.flags & AceFlag.INHERIT_ONLY]
    if is_owner and all(ace.sid != OWNER_RIGHTS for ace in effective):
        rights = decided = _IMPLICIT_OWNER
    sids = token.sids()
    for ace in effective:
        if ace.sid in sids or (is_owner and ace.sid == OWNER_RIGHTS):
            undecided = object_type.map_generic(ace.mask) & object_type.valid & ~decided
            decided |= undecided
            if ace.kind is AceKind.ALLOW:
                rights |= undecided
    return rights


def grant(rights: int, desired: int, object_type: ObjectType, *, user: int, ceiling: int, frozen: bool = False) -> int:
    """Return the specific mask that a handle gets by an open: the access check.

    rights: those of `user` by the DACL (`allowed`). ceiling: the rights that the object can give. frozen: whether these
    lack the right to write because nobody may write any more.
    Raises Refused ACCESS_DENIED: for 0 (B18), for bits that the type does not have (B23), for rights that the DACL does
    not allow.
    """
    if desired == 0:
        raise Refused(
            Status.ACCESS_DENIED,
            "An open that requests no access (0) is refused, even to the owner. "
            f"Request 0x80000000 to read or wait, 0x{GENERIC_READ | object_type.modify:08X} to write or signal too.",
        )
    wanted = object_type.requested(desired)
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
        describe = object_type.describe
        read_only = missing == object_type.modify and not ceiling & object_type.modify
        if frozen and read_only:
            raise Refused(
                Status.ACCESS_DENIED,
                f"User {user} requests {describe(wanted)}, and the object ({object_type.noun}) was frozen by a process "
                "that could write to it: nobody may any more. Request the right to read, or share a copy.",
            )
        raise Refused(
            Status.ACCESS_DENIED,
            f"User {user} requests {describe(wanted)} and may have {describe(rights)}: {describe(missing)} is refused"
            + (
                f" because the object ({object_type.noun}) was shared read-only. Request less."
                if read_only
                else ". Request less, or have the exporter allow it in its security descriptor."
            ),
        )
    return wanted
