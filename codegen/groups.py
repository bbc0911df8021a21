"""The rows of the tables of `scope`."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["FieldRule", "Group", "vk_names"]


class Group(NamedTuple):
    """C names that are in scope for one reason."""

    reason: str
    names: tuple[str, ...]


class FieldRule(NamedTuple):
    """A field whose Python form differs from that of its C type."""

    py_name: str
    py_type: str
    default: str
    reason: str


def vk_names(text: str) -> tuple[str, ...]:
    """Return the words of `text`, each with the prefix `Vk`."""
    return tuple("Vk" + word for word in text.split())
