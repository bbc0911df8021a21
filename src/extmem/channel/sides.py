"""What frames need of the side of the channel that they are of: the type of what releases or publishes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from extmem.channel.slots import Slot
    from extmem.errors import HandleStateError

__all__ = ["Keeper", "Publisher"]


class _Side(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def inherited(self) -> bool: ...

    def refusal(self, text: str) -> HandleStateError: ...


class Keeper(_Side, Protocol):
    """What a frame needs of its reader."""

    def keep(self, frame: Any) -> None:
        """Note that a frame is kept beyond the next read."""

    def release(self, frame: Any) -> None:
        """Release a frame."""


class Publisher(_Side, Protocol):
    """What a frame needs of its writer."""

    def publish(self, slot: Slot, meta: bytes) -> int:
        """Publish a slot. Return the number of the frame."""

    def give_up(self, slot: Slot) -> None:
        """Give up a slot that was being filled."""
