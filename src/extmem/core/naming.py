"""What is shared under names, and how long it is kept."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

import msgspec

from extmem.arguments import a_type, check_flag
from extmem.core.everyday_names import everyday_name
from extmem.errors import DescriptorError, UnsupportedError
from extmem.manager import manager
from extmem.objects import READ_CONTROL, ObjectKind
from extmem.owning import work_off
from extmem.sharing.descriptor import Descriptor
from extmem.sharing.keeping import MAX_MILLISECONDS, NOT_KEPT, Keep, KeepMode

if TYPE_CHECKING:
    from extmem.core.memory_record import MemoryRecord
    from extmem.objects import ObjectRow, PayloadRow

__all__ = ["SharedName", "forget", "is_superseded", "keep_of", "names", "refuse_terms", "short_name"]

_OWN_NAMES = re.compile(r"\\Sessions\\\d+\\BaseNamedObjects\\")


class SharedName(msgspec.Struct, frozen=True):
    """What is shared under a name now, as its publisher described it."""

    name: str
    """The name, as `extmem.open` takes it."""
    shape: tuple[int, ...] | None
    """The shape of the array in elements; None if the memory contains no described array."""
    dtype: str | None
    """The element type of the array."""
    size: int
    """The number of bytes of the payload."""
    owner: int | None
    """The pid of the process that shared it; None if that process does not hold it any more."""
    kept: str = ""
    """What ends the keeping of the payload by the object manager; empty if it is not kept."""


def keep_of(keep: object) -> Keep:
    """Return the argument `keep`: None, True, "taken" or seconds. Errors: TypeError; ValueError."""
    if keep is None or keep is False:
        return NOT_KEPT
    if keep is True:
        return Keep(KeepMode.FORGOTTEN)
    if isinstance(keep, str):
        if keep != "taken":
            raise ValueError(f'keep is {keep!r}; give "taken", seconds, True, or None')
        return Keep(KeepMode.TAKEN)
    if not isinstance(keep, (int, float)):
        raise TypeError(f'keep is {keep!r}, {a_type(keep)}; give "taken", seconds, True, or None')
    if not 0 < keep <= MAX_MILLISECONDS / 1000:
        raise ValueError(
            f"keep is {keep} s; give more than 0 and at most {MAX_MILLISECONDS // 1000} seconds, or True for no limit"
        )
    return Keep(KeepMode.TIME, max(1, round(keep * 1000)))


def refuse_terms(name: str | None, replace: bool, keep: Keep) -> None:
    """Refuse `replace=` and `keep=` without a name, and on Windows.

    Errors: TypeError for a `replace` that is not a bool; ValueError; UnsupportedError.
    """
    check_flag(replace, "replace")
    if not replace and not keep:
        return
    what = "replace=True" if replace else "keep"
    if name is None:
        raise ValueError(f"{what} is for memory with a name, by which others find it; give a name, or omit it")
    if not manager().has_broker:
        why = (
            "a name of the Windows kernel belongs to one object until all handles of that are closed"
            if replace
            else "no process beside those that open the memory could hold it"
        )
        raise UnsupportedError(
            f"{what} does not exist on Windows: {why}; "
            + ("use another name for new memory" if replace else "have a process of your own keep the memory open"),
            requires_one_of=["Linux"],
        )


def is_superseded(record: MemoryRecord) -> bool:
    """Return whether other memory has got the name of this memory, which is in use."""
    record.check_process()
    owner = record.manager
    if owner is None or record.name is None:
        return False
    return any(owner.is_superseded(reference.number) for reference in record.references if reference.number)


def forget(name: str) -> bool:
    """`extmem.forget`."""
    checked = everyday_name(name)
    if checked is None:
        raise TypeError("name is None; give the name of kept memory as a str")
    return manager().forget_name(checked)


def names(prefix: str) -> list[SharedName]:
    """`extmem.names`."""
    if not isinstance(prefix, str):
        raise TypeError(f"prefix is {prefix!r}, {a_type(prefix)}; give a str")
    work_off()
    owner = manager()
    if owner.has_broker and not owner.holds_payloads and owner.status() is None:
        return []  # else the broker has just ended, and the next one learns of what is held here
    folded = prefix.casefold()
    found: list[SharedName] = []
    for row in owner.snapshot():
        if row.object_kind is not ObjectKind.MEMORY or not row.names:
            continue
        with contextlib.suppress(DescriptorError):  # `extmem.open` refuses it
            descriptor = Descriptor.parse(row.descriptor)
            for shared in row.objects:
                if shared.name is not None and (not owner.has_broker or shared.rights & READ_CONTROL):
                    found.append(_described(row, shared, short_name(shared.name), descriptor))
    # A name with `@` is of the specification-level API; `extmem.open` does not open it.
    chosen = [one for one in found if one.name.casefold().startswith(folded) and "@" not in one.name]
    return sorted(chosen, key=lambda one: one.name)


def _described(row: PayloadRow, shared: ObjectRow, name: str, descriptor: Descriptor) -> SharedName:
    publisher = shared.publisher or descriptor.owner_pid
    array = descriptor.array
    return SharedName(
        name,
        None if array is None else tuple(array.shape),
        None if array is None else array.dtype,
        descriptor.payload_size,
        publisher if any(holder.pid == publisher for holder in row.holders) else None,
        shared.kept,
    )


def short_name(path: str) -> str:
    """Return the name by which a program opens a path: `frames`, `Global\\frames`, or else the path itself."""
    own = _OWN_NAMES.match(path)
    if own is not None:
        return path[own.end() :]
    return "Global" + path.removeprefix("\\BaseNamedObjects") if path.startswith("\\BaseNamedObjects\\") else path
