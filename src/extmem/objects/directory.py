"""The object directory: one set of names for objects of every type (B2, B5, B6, B10, B11)."""

from __future__ import annotations

from typing import Final

from extmem.objects.entities import SharedObject
from extmem.objects.kernel_object import KernelObject
from extmem.objects.names import NameKey
from extmem.objects.object_types import OBJECT_TYPES
from extmem.objects.status import Refused, Status

__all__ = ["Directory"]

_TYPE_NAMES: Final = " or ".join(known.name for known in OBJECT_TYPES.values())


class Directory:
    """Shared objects by folded name; objects that extmem does not share by exact name, as their case counts (B6)."""

    __slots__ = ("_foreign", "_shared")

    def __init__(self) -> None:
        self._shared: dict[str, SharedObject] = {}
        self._foreign: dict[str, dict[str, KernelObject]] = {}  # folded key -> exact path -> object

    def __len__(self) -> int:
        return len(self._shared) + sum(len(same) for same in self._foreign.values())

    def find(self, name: NameKey) -> SharedObject:
        """Return the shared object of that name, in any case. Refused OBJECT_NAME_NOT_FOUND, OBJECT_TYPE_MISMATCH."""
        found = self._shared.get(name.key)
        if found is None:
            for other in self._foreign.get(name.key, {}).values():
                raise Refused(
                    Status.OBJECT_TYPE_MISMATCH,
                    f"{name.display!r} is the name of an object of type {other.type.name}, not of {_TYPE_NAMES}. Use "
                    "another name.",
                )
            raise Refused(
                Status.OBJECT_NAME_NOT_FOUND,
                f"No live object is named {name.display!r}. A name lives only while something holds its object: "
                "export first, and keep the exported object or a handle open until the importer has it, or wait for "
                "the name: extmem.open(name, timeout=seconds).",
            )
        return found

    def taken(self, name: NameKey) -> Refused | None:
        """Return why a shared object cannot be created under `name` now, or None."""
        if name.key in self._shared:
            return Refused(
                Status.OBJECT_NAME_COLLISION,
                f"The name {name.display!r} belongs to a live object ({self._shared[name.key].name_path!r}); names are "
                "case-insensitive and an export never joins an existing object. Choose another name, import that one, "
                "or take its name with replace=True.",
            )
        for other in self._foreign.get(name.key, {}).values():
            return Refused(
                Status.OBJECT_TYPE_MISMATCH,
                f"The name {name.display!r} belongs to a live object of type {other.type.name}. Choose another name.",
            )
        return None

    def holder(self, name: NameKey) -> SharedObject | None:
        """Return the shared object that has the name now."""
        return self._shared.get(name.key)

    def add(self, shared: SharedObject) -> None:
        """Enter a shared object, if it has a name. The caller has checked `taken`."""
        if shared.name is not None:
            self._shared[shared.name.key] = shared

    def remove(self, shared: SharedObject) -> None:
        """Remove a shared object. Its name is free at once (B12)."""
        if shared.name is not None:
            del self._shared[shared.name.key]

    def add_foreign(self, other: KernelObject, name: NameKey) -> None:
        """Enter an object that extmem does not share. Refused OBJECT_NAME_COLLISION or OBJECT_TYPE_MISMATCH."""
        same = self._foreign.setdefault(name.key, {})
        rival: KernelObject | None = same.get(name.display)
        shared = self._shared.get(name.key)
        if rival is None and shared is not None and shared.name_path == name.display:
            rival = shared
        if rival is not None:
            alike = rival.type.name == other.type.name
            raise Refused(
                Status.OBJECT_NAME_COLLISION if alike else Status.OBJECT_TYPE_MISMATCH,
                f"The name {name.display!r} belongs to a live object of type {rival.type.name}. Choose another name.",
            )
        same[name.display] = other

    def remove_foreign(self, name: NameKey) -> None:
        """Remove an object that extmem does not share. KeyError when there is none."""
        del self._foreign[name.key][name.display]
