"""Names of the high-level API, which excludes some names that the structures of the specification may have."""

from __future__ import annotations

from extmem.core import arguments
from extmem.objects import Status, error_for

__all__ = ["everyday_name"]


def everyday_name(name: str | None) -> str | None:
    """Return a name of the high-level API as a plain str. Errors: TypeError; NameInvalidError for one with `@`.

    `@` is to separate a name from the machine on which it is. The structures of the specification may have such names.
    """
    name = arguments.name_of(name)
    if name is not None and "@" in name:
        raise error_for(
            Status.OBJECT_NAME_INVALID,
            f"The name {name!r} contains '@', which is reserved: what follows it will be the name of another machine. "
            "Choose a name without it, or name the memory by vk.ExportMemoryWin32HandleInfoKHR.",
        )
    return name
