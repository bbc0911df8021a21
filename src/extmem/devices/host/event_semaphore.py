"""`HostBinarySemaphore`: a binary semaphore of the host device: an eventfd, or a semaphore of the kernel."""

from __future__ import annotations

from extmem.devices.host.event_object import EventObject
from extmem.devices.host.sync_errors import signaled_already
from extmem.devices.host.sync_system import Event
from extmem.devices.sync import SemaphoreSpec
from extmem.errors import UnsupportedError

__all__ = ["HostBinarySemaphore"]


class HostBinarySemaphore(EventObject):
    """See `NativeSemaphore`. A submission waits for it (`submit_wait`) and signals it."""

    __slots__ = ()

    timeline = False

    @classmethod
    def create(cls, spec: SemaphoreSpec) -> HostBinarySemaphore:
        """Create one with a payload of its own, unsignaled. Errors: OutOfMemoryError."""
        return cls(Event.create(False, "vkCreateSemaphore", spec.terms))

    def counter(self) -> int:
        """Raise UnsupportedError: a binary semaphore has no counter."""
        raise _binary("vkGetSemaphoreCounterValue")

    def signal(self, value: int) -> None:
        """Raise UnsupportedError: the host signals timelines only; a submission signals binary semaphores."""
        raise _binary("vkSignalSemaphore")

    def submit_signal(self) -> None:
        """Signal it, at the end of a batch. Errors: DriverError if it is signaled already; AccessDeniedError."""
        if not self.payload.signal():
            raise signaled_already("vkQueueSubmit")

    def submit_wait(self, deadline: int | None = None) -> bool:
        """Wait until it is signaled and consume the signal; a temporary payload ends then (S7).

        Return False after the deadline.
        """
        if not self.payload.take(deadline):
            return False
        self.restore()
        return True


def _binary(command: str) -> UnsupportedError:
    return UnsupportedError(
        f"{command}: this is a binary semaphore, which has no value; submit a batch that signals it or waits for it, "
        "or create a timeline semaphore",
        requires_one_of=["a timeline semaphore"],
    )
