"""Comparison of two create infos: would they create identical buffers or images?

The rules on dedicated imports require an "identical" resource. That cannot mean the same object, because the importer
is another device and often another process. Like the Khronos validation layer, this module compares the create infos.
The order of the pNext chain is ignored, and so are queue families with exclusive sharing.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum, IntFlag
from functools import cache
from typing import Any

from extmem import vk
from extmem.arguments import a_type
from extmem.rules._creation import chain_of

__all__ = ["difference"]

_CONCURRENT = int(vk.SharingMode.CONCURRENT)


@cache
def _names(struct: type[Any]) -> tuple[str, ...]:
    return tuple(name for name in struct.__match_args__ if name != "p_next")


def _chain(info: Any) -> dict[str, Any]:
    return {type(node).__name__: node for node in reversed(chain_of(info))}


def _as_tuple(value: Any) -> Any:
    """Return sequences as tuples, so that lists and tuples compare equal."""
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else value


def _shown(value: Any) -> str:
    return value.name or hex(value) if isinstance(value, (IntEnum, IntFlag)) else repr(value)


def _differing(a: Any, b: Any, prefix: str) -> list[str]:
    differences = []
    for name in _names(a.__class__):
        x, y = _as_tuple(getattr(a, name)), _as_tuple(getattr(b, name))
        if name == "queue_family_indices" or x == y:
            continue
        if isinstance(x, vk.Extent3D) and isinstance(y, vk.Extent3D):
            differences += _differing(x, y, f"{prefix}{name}.")
        elif name == "plane_layouts" and len(x) == len(y):
            for number, (one, other) in enumerate(zip(x, y, strict=True)):
                differences += _differing(one, other, f"{prefix}{name}[{number}].")
        else:
            differences.append(f"{prefix}{name} is {_shown(x)} in the importer and {_shown(y)} in the exporter")
    return differences


def difference(importer: Any, exporter: Any) -> str:
    """Return the differences between two create infos as text; empty if they would create identical resources."""
    if type(importer) is not type(exporter):
        return f"one is {a_type(importer)}, the other {a_type(exporter)}"
    differences = _differing(importer, exporter, "")
    if _CONCURRENT in (importer.sharing_mode, exporter.sharing_mode):
        families = sorted(set(importer.queue_family_indices or ())), sorted(set(exporter.queue_family_indices or ()))
        if families[0] != families[1]:
            differences.append(
                f"queue_family_indices are {families[0]} in the importer and {families[1]} in the exporter"
            )
    chains = _chain(importer), _chain(exporter)
    for name in sorted(set(chains[0]) | set(chains[1])):
        a, b = chains[0].get(name), chains[1].get(name)
        if a is None or b is None:
            differences.append(f"{name} is chained only in the {'exporter' if a is None else 'importer'}")
        else:
            differences += _differing(a, b, f"{name}.")
    return "; ".join(differences)
