"""The names of the parts of a channel: its slots, its timeline, the pages of its readers, the lock of its writer."""

from __future__ import annotations

from typing import Final, cast

from extmem.core.everyday_names import everyday_name
from extmem.core.naming import CHANNEL_PARTS
from extmem.objects import Status, error_for

__all__ = ["PREFIX", "alive", "checked", "frames", "parts", "reader", "slot", "written", "writer"]

PREFIX: Final = CHANNEL_PARTS
"""With this begin the names of the parts. Programs open channels by the name that they gave."""


def checked(name: object) -> str:
    """Return the name of a channel as a plain str. Errors: TypeError; NameInvalidError, also for names of parts."""
    found = everyday_name(cast("str | None", name))
    if found is None:
        raise TypeError("name is None; give the name of the channel as a str")
    if found.casefold().startswith(PREFIX):
        raise error_for(
            Status.OBJECT_NAME_INVALID,
            f"The name {found!r} begins with {PREFIX!r}, as the names of the parts of channels do, which lists of "
            "names omit. Choose another name.",
        )
    return found


def parts(identity: bytes) -> str:
    """With this begin the names of the parts of this channel."""
    return f"{PREFIX}{identity.hex()}."


def _of(identity: bytes, part: str) -> str:
    return parts(identity) + part


def frames(identity: bytes) -> str:
    """The timeline whose value is the number of the last frame."""
    return _of(identity, "frames")


def slot(identity: bytes, epoch: int, slot: int) -> str:
    """The memory of a slot."""
    return _of(identity, f"{epoch}.slot.{slot}")


def reader(identity: bytes, place: int) -> str:
    """The timeline of a reader, whose page has the reader's state."""
    return _of(identity, f"reader.{place}")


def writer(identity: bytes) -> str:
    """The memory whose lock the writer has."""
    return _of(identity, "writer")


def written(identity: bytes, epoch: int) -> str:
    """The timeline of a GPU whose value is the number of the last frame that is complete there."""
    return _of(identity, f"{epoch}.written")


def alive(identity: bytes, epoch: int) -> str:
    """The timeline that is marked when the writer of slots on a GPU ends. Nobody signals it."""
    return _of(identity, f"{epoch}.alive")
