"""Who owns a buffer that commands read, as far as the commands of this library passed it on.

How this works: a buffer is this device's until a barrier releases it. It is again once a barrier acquires it, or once a
command writes to it, for then its former contents are not asked for. As with `Layouts`, uses are applied to a copy when
a command is recorded, and to another one when it is submitted. A release of a part of a buffer is not followed.
"""

from __future__ import annotations

from dataclasses import dataclass

from extmem.rules._engine import Finding, Suite, rule
from extmem.rules.violation import Violation

__all__ = ["Ownership", "Use", "apply_use"]


class Ownership:
    """Whether a buffer was released, and neither acquired nor written to since."""

    __slots__ = ("released",)

    def __init__(self) -> None:
        self.released = False

    def copy(self) -> Ownership:
        """An independent copy."""
        made = Ownership()
        made.released = self.released
        return made

    def forget(self) -> None:
        """Nothing is known from now on, until a barrier says so."""
        self.released = False


@dataclass(frozen=True, slots=True)
class Use:
    """What one command does with a buffer."""

    command: str
    """`vkCmdCopyBuffer` and others."""
    where: str
    reads: bool = False
    releases: bool = False
    """Whether another owner has it afterwards; where it neither reads nor releases, this device has."""


@dataclass(slots=True)
class Owned:
    """A use, and what is known when it is applied."""

    use: Use
    ownership: Ownership


SUBMIT: Suite[Owned] = Suite("vkQueueSubmit")


@rule("vkQueueSubmit-pSubmits-02808", on=SUBMIT)
def reads_what_it_owns(call: Owned) -> Finding | None:
    """Others may write to it at the same time, and what they wrote is not visible here."""
    if not call.use.reads or not call.ownership.released:
        return None
    return (
        call.use.where,
        "the buffer was released and not acquired since",
        "Acquire it with `acquire` before, or leave the release to the end.",
    )


def apply_use(use: Use, ownership: Ownership) -> list[Violation]:
    """What a use breaks where a buffer is owned so; it is owned as after the use from then on."""
    found = SUBMIT.run(Owned(use, ownership), 0)
    if not use.reads:
        ownership.released = use.releases
    return found
