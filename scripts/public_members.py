"""Decide which members of a public class are public, and which are for the library only."""

from __future__ import annotations

import inspect

from extmem.owning import Held

__all__ = ["MARK", "is_public", "public_members"]

MARK = "for the library itself"
"""Text in the docstring of a member that other layers of the library use, but programs must not use."""


def is_public(cls: type, name: str, doc: str | None) -> bool:
    """Whether a program may use the member `name` of `cls`. doc: the member's docstring.

    Names with an underscore, members whose docstring contains `MARK`, and members of `Held` that `cls` inherits or
    overrides are not public.
    """
    inherited = issubclass(cls, Held) and hasattr(Held, name)
    return not name.startswith("_") and not inherited and MARK not in (doc or "")


def public_members(cls: type) -> list[str]:
    """Return the sorted names of the public members of `cls`, inherited ones included."""
    return [name for name in dir(cls) if is_public(cls, name, inspect.getdoc(inspect.getattr_static(cls, name)))]
