"""`KernelObject`: what handles and names refer to, of any type."""

from __future__ import annotations

from extmem.objects.names import NameKey
from extmem.objects.object_types import ObjectType
from extmem.objects.security import Token

__all__ = ["KernelObject"]


class KernelObject:
    """An object in the object directory or behind a handle. On Windows, events, mutexes and sections are in the same
    directory (B2).
    """

    __slots__ = ("ceiling", "handles", "id", "name", "refs", "type")

    def __init__(self, object_id: int, object_type: ObjectType, name: NameKey | None) -> None:
        self.id = object_id
        self.type = object_type
        self.name = name
        self.refs = 0
        self.handles = 0
        self.ceiling = object_type.valid  # the rights that the object can give at most, unless it is frozen

    def rights(self, token: Token) -> int:
        """Return the rights of `token` on the object. Objects that extmem does not share are not protected here."""
        return self.type.valid

    @property
    def may_give(self) -> int:
        """The rights that the object can give now at most."""
        return self.ceiling

    @property
    def frozen(self) -> bool:
        """Whether nobody may write to its payload any more."""
        return False

    @property
    def owner(self) -> int:
        """The uid of its owner; -1 for objects that extmem does not share."""
        return -1

    @property
    def name_path(self) -> str:
        """The full path in the creator's case; empty for an unnamed object."""
        return "" if self.name is None else self.name.display
