"""The object directory: one space of names for objects of every type (B2, B5, B6, B10, B11)."""

from __future__ import annotations

from extmem.objects.entities import KernelObject, SharedObject
from extmem.objects.names import NameKey
from extmem.objects.results import TYPE_NAME
from extmem.objects.status import Refused, Status

__all__ = ["Directory"]


class Directory:
    """Shared memory by folded name; objects of other types by exact name, since their names are case-sensitive (B6)."""

    __slots__ = ("_foreign", "_shared")

    def __init__(self) -> None:
        self._shared: dict[str, SharedObject] = {}
        self._foreign: dict[str, dict[str, KernelObject]] = {}  # folded key -> exact path -> object

    def __len__(self) -> int:
        return len(self._shared) + sum(len(same) for same in self._foreign.values())

    def find(self, name: NameKey) -> SharedObject:
        """The shared memory object of that name, in any case. Refused OBJECT_NAME_NOT_FOUND, OBJECT_TYPE_MISMATCH."""
        found = self._shared.get(name.key)
        if found is None:
            for other in self._foreign.get(name.key, {}).values():
                raise Refused(
                    Status.OBJECT_TYPE_MISMATCH,
                    f"{name.display!r} names an object of type {other.type_name}, not {TYPE_NAME}. Use another name.",
                )
            raise Refused(
                Status.OBJECT_NAME_NOT_FOUND,
                f"No live object is named {name.display!r}. A name lives only while something holds its object: "
                "export first, and keep the memory or a handle open until the importer has it.",
            )
        return found

    def taken(self, name: NameKey) -> Refused | None:
        """Why shared memory can't be created under `name` now, or None."""
        if name.key in self._shared:
            return Refused(
                Status.OBJECT_NAME_COLLISION,
                f"The name {name.display!r} belongs to a live object ({self._shared[name.key].name_path!r}); names are "
                "case-insensitive and an export never joins an existing object. Choose another name, or import "
                "that one.",
            )
        for other in self._foreign.get(name.key, {}).values():
            return Refused(
                Status.OBJECT_TYPE_MISMATCH,
                f"The name {name.display!r} belongs to a live object of type {other.type_name}. Choose another name.",
            )
        return None

    def holder(self, name: NameKey) -> SharedObject | None:
        """The shared memory object that has the name now."""
        return self._shared.get(name.key)

    def add(self, shared: SharedObject) -> None:
        """Enter a shared memory object that has a name; the caller has asked `taken`."""
        if shared.name is not None:
            self._shared[shared.name.key] = shared

    def remove(self, shared: SharedObject) -> None:
        """The name is free at once (B12)."""
        if shared.name is not None:
            del self._shared[shared.name.key]

    def add_foreign(self, other: KernelObject, name: NameKey) -> None:
        """Enter an object of another type. Refused OBJECT_NAME_COLLISION or OBJECT_TYPE_MISMATCH."""
        same = self._foreign.setdefault(name.key, {})
        rival: KernelObject | None = same.get(name.display)
        shared = self._shared.get(name.key)
        if rival is None and shared is not None and shared.name_path == name.display:
            rival = shared
        if rival is not None:
            alike = rival.type_name == other.type_name
            raise Refused(
                Status.OBJECT_NAME_COLLISION if alike else Status.OBJECT_TYPE_MISMATCH,
                f"The name {name.display!r} belongs to a live object of type {rival.type_name}. Choose another name.",
            )
        same[name.display] = other

    def remove_foreign(self, name: NameKey) -> None:
        """An object of another type ends; KeyError when there is none."""
        del self._foreign[name.key][name.display]
