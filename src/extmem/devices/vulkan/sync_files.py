"""The kernel's sync_files (SYNC_FD), known by their links in /proc."""

from __future__ import annotations

from typing import Final

__all__ = ["is_sync_file", "replacements"]

_LINKS = frozenset(("anon_inode:sync_file", "anon_inode:[sync_file]", "anon_inode:[sync_fence]"))
replacements: Final[set[str]] = set()
"""Links of files that represent sync_files, which only drivers can make (for tests)."""


def is_sync_file(link: str) -> bool:
    """Return whether a link of /proc/self/fd leads to a sync_file."""
    return link in _LINKS or link in replacements
