"""`JoinedCommands`: waits and signals that the library adds to commands of the program. `Commands` has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from extmem.core import sync_operations
from extmem.core.device_state import DeviceState
from extmem.errors import HandleStateError
from extmem.owning import Lock, Uses

__all__ = ["JoinedCommands"]


class JoinedCommands:
    """See the module. `Commands` sets the attributes."""

    _device: DeviceState
    _open: bool
    _returns_early: bool
    _order: Any
    _lock: Lock
    _uses: Uses
    _at_submit: list[Callable[[], tuple[object, int] | None]]
    """What returns signals that are known at the submission."""
    _ended: bool
    """Whether the block has ended, and what is in it was submitted or given up."""

    @property
    def device(self) -> DeviceState:
        """The device whose queue gets them (for the library itself)."""
        return self._device

    @property
    def is_open(self) -> bool:
        """Whether the block is open (for the library itself)."""
        return self._open

    @property
    def has_ended(self) -> bool:
        """Whether the block has ended, and what is in it was submitted or given up (for the library itself)."""
        return self._ended

    def join(self, *, wait: object = None, at_submit: Callable[[], tuple[object, int] | None] | None = None) -> None:
        """Add waits and a signal to those of the block, whose end then does not wait (for the library itself).

        at_submit: returns a pair to signal, or None, at the submission. It is not called if nothing is submitted.

        Errors: as `Device.commands`; HandleStateError outside the block.
        """
        with self._lock:
            if not self._open:
                raise HandleStateError("add waits and signals only inside `with device.commands() as commands:`")
            self._add_order(wait, None)
            self._returns_early = True
            if at_submit is not None:
                self._at_submit.append(at_submit)

    def _add_signals(self) -> None:
        """Add the signals that are known now, at the submission."""
        self._add_order(None, [pair for signal in self._at_submit if (pair := signal()) is not None])

    def _add_order(self, wait: object, signal: object) -> None:
        submitting = sync_operations.submitting
        added = submitting.order_of(self._device, wait, signal, None, self._uses)
        self._order = added if self._order is None else submitting.joined(self._order, added)
