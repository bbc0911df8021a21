"""Which members of a public class are a program's to use, and which are there for the library itself."""

from __future__ import annotations

import inspect

from extmem.owning import Held

__all__ = ["MARK", "is_public", "public_members"]

MARK = "for the library itself"
"""What the docstring of a member contains that other layers of the library use, and programs do not."""


def is_public(cls: type, name: str, doc: str | None) -> bool:
    """Whether a program may use the member `name` of `cls`. doc: the member's docstring.

    Not public are names with an underscore, members whose docstring has `MARK`, and what `cls` inherits from `Held` or
    overrides of it.
    """
    inherited = issubclass(cls, Held) and hasattr(Held, name)
    return not name.startswith("_") and not inherited and MARK not in (doc or "")


def public_members(cls: type) -> list[str]:
    """The names of the members of `cls`, inherited ones too, that a program may use; sorted."""
    return [name for name in dir(cls) if is_public(cls, name, inspect.getdoc(inspect.getattr_static(cls, name)))]
