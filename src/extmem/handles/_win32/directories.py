"""Directories of the kernel's objects, and objects that are found relative to a directory's handle.

A directory exists as long as somebody has a handle of it; so does the name of an object in it. Whoever may not open a
directory can neither see nor create what is in it, by whatever path.
"""

from __future__ import annotations

from extmem.handles._win32.calls import attributes
from extmem.handles._win32.tables import OBJECT_ATTRIBUTES

__all__ = ["ALL", "CREATE_OBJECT", "QUERY", "TRAVERSE", "inside"]

QUERY, TRAVERSE, CREATE_OBJECT = 0x1, 0x2, 0x4
"""DIRECTORY_QUERY, DIRECTORY_TRAVERSE, DIRECTORY_CREATE_OBJECT: to list the names, to use them, to create objects."""
ALL = 0x000F_000F
"""DIRECTORY_ALL_ACCESS."""


def inside(directory: int, name: str, security: int = 0, flags: int = 0) -> OBJECT_ATTRIBUTES:
    """Return OBJECT_ATTRIBUTES for an object of this name in a directory. It keeps what it points to alive.

    directory: its handle, which the caller keeps open. security: address of a security descriptor, which the caller
    keeps, too; 0 for the token's default.
    """
    how = attributes(name, security, flags)
    how.RootDirectory = directory
    return how
