"""Ownership of buffers that commands read, as far as commands of this library transferred it.

How this works: this device owns a buffer until a barrier releases it. It owns the buffer again once a barrier acquires
it, or once a command writes to it, because the previous contents are then not needed. As with `Layouts`, uses are
applied to a copy when a command is recorded, and to another one when it is submitted. A release of a part of a buffer
is not tracked.
"""

from __future__ import annotations

import msgspec

from extmem.rules._engine import Demand, Suite, demand
from extmem.rules.violation import Violation

__all__ = ["Ownership", "Use", "apply_use"]


class Ownership:
    """State of a buffer: whether it was released, and neither acquired nor written to since."""

    __slots__ = ("released",)

    def __init__(self) -> None:
        self.released = False

    def copy(self) -> Ownership:
        """Return an independent copy."""
        copy = Ownership()
        copy.released = self.released
        return copy

    def forget(self) -> None:
        """Treat the buffer as not released until the next barrier."""
        self.released = False


class Use(msgspec.Struct, frozen=True):
    """One command's use of a buffer."""

    command: str
    """Name of the command, such as `vkCmdCopyBuffer`."""
    where: str
    reads: bool = False
    releases: bool = False
    """Whether another owner has the buffer afterwards. If it neither reads nor releases, this device owns it."""


class AppliedUse(msgspec.Struct):
    """A use, and the state of the buffer when it is applied."""

    use: Use
    ownership: Ownership


SUBMIT: Suite[AppliedUse] = Suite("vkQueueSubmit")


def _reads_what_was_released(call: AppliedUse) -> bool:
    """The contents of a released buffer are undefined for this device."""
    return call.use.reads and call.ownership.released


demand(
    SUBMIT,
    Demand(
        "vkQueueSubmit-pSubmits-02808",
        _reads_what_was_released,
        "{call.use.where}",
        "the buffer was released and not acquired since",
        "Acquire it with `acquire` before, or release it after the last use.",
    ),
)


def apply_use(use: Use, ownership: Ownership) -> list[Violation]:
    """Return the rules that a use breaks with this ownership, and change the ownership to that after the use."""
    violations = SUBMIT.run(AppliedUse(use, ownership), 0)
    if not use.reads:
        ownership.released = use.releases
    return violations
