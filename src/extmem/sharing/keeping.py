"""How long the object manager itself keeps a named payload (`keep=`), beside the processes that hold it."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import msgspec

__all__ = ["MAX_MILLISECONDS", "NOT_KEPT", "Keep", "KeepMode"]

MAX_MILLISECONDS: Final = 0xFFFF_FFFF
"""The longest time for which a payload can be kept: 49 days."""


class KeepMode(IntEnum):
    """What ends the keeping. `extmem.forget` ends each of them."""

    NONE = 0
    """The payload is not kept."""
    FORGOTTEN = 1
    """Nothing but `extmem.forget`."""
    TAKEN = 2
    """A process other than the publisher has opened the payload, and no process holds it any more."""
    TIME = 3
    """No process has held the payload for some time."""


class Keep(msgspec.Struct, frozen=True):
    """`keep=` of an export. `milliseconds` belongs to `TIME` and is 0 for the others."""

    mode: KeepMode = KeepMode.NONE
    milliseconds: int = 0

    def __bool__(self) -> bool:
        return self.mode is not KeepMode.NONE

    @property
    def text(self) -> str:
        """What ends it, in words; empty if the payload is not kept."""
        if self.mode is KeepMode.TIME:
            return f"{self.milliseconds / 1000:g} s without a holder"
        return ("", "until forgotten", "until taken")[self.mode]


NOT_KEPT: Final = Keep()
