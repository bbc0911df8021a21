"""Whether two buffers or images were created alike.

The rules on dedicated imports say "identical", and cannot mean the very same object: the importer is another device,
often another process. Like the Khronos layer we compare what they were created from. The order of the pNext chain
does not count, nor do queue families that exclusive sharing ignores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from enum import IntEnum, IntFlag
from functools import cache
from typing import Any

from extmem import vk

__all__ = ["difference"]

_CONCURRENT = int(vk.SharingMode.CONCURRENT)
_LONGEST_CHAIN = 64


@cache
def _names(struct: type[Any]) -> tuple[str, ...]:
    return tuple(f.name for f in fields(struct) if f.name != "p_next")


def _chain(info: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    node = info.p_next
    while node is not None and len(found) < _LONGEST_CHAIN and type(node).__name__ not in found:
        found[type(node).__name__] = node
        node = node.p_next if isinstance(node, vk.ChainStruct) else None
    return found


def _plain(value: Any) -> Any:
    """Lists and tuples are the same thing here."""
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else value


def _shown(value: Any) -> str:
    return value.name or hex(value) if isinstance(value, (IntEnum, IntFlag)) else repr(value)


def _differing(a: Any, b: Any, prefix: str) -> list[str]:
    found = []
    for name in _names(a.__class__):
        x, y = _plain(getattr(a, name)), _plain(getattr(b, name))
        if name == "queue_family_indices" or x == y:
            continue
        if isinstance(x, vk.Extent3D) and isinstance(y, vk.Extent3D):
            found += _differing(x, y, f"{prefix}{name}.")
        elif name == "plane_layouts" and len(x) == len(y):
            for number, (one, other) in enumerate(zip(x, y, strict=True)):
                found += _differing(one, other, f"{prefix}{name}[{number}].")
        else:
            found.append(f"{prefix}{name} is {_shown(x)} here and {_shown(y)} there")
    return found


def difference(ours: Any, theirs: Any) -> str:
    """What two create infos differ in, as text; empty when they would create the same resource."""
    if type(ours) is not type(theirs):
        return f"one is a {type(ours).__name__}, the other a {type(theirs).__name__}"
    found = _differing(ours, theirs, "")
    if _CONCURRENT in (ours.sharing_mode, theirs.sharing_mode):
        families = sorted(set(ours.queue_family_indices or ())), sorted(set(theirs.queue_family_indices or ()))
        if families[0] != families[1]:
            found.append(f"queue_family_indices are {families[0]} here and {families[1]} there")
    chains = _chain(ours), _chain(theirs)
    for name in sorted(set(chains[0]) | set(chains[1])):
        a, b = chains[0].get(name), chains[1].get(name)
        if a is None or b is None:
            found.append(f"{name} is chained only {'there' if a is None else 'here'}")
        else:
            found += _differing(a, b, f"{name}.")
    return "; ".join(found)
