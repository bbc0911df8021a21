"""`HostFence`: a fence of the host device: an eventfd, or an event of the kernel."""

from __future__ import annotations

from collections.abc import Sequence

from extmem.devices.host.event_object import EventObject
from extmem.devices.host.sync_system import Event, wait_events
from extmem.devices.sync import FenceSpec

__all__ = ["HostFence", "wait_fences"]


class HostFence(EventObject):
    """See `NativeFence`."""

    __slots__ = ()

    noun = "fence"
    sync_fd = 0x8

    @classmethod
    def create(cls, spec: FenceSpec) -> HostFence:
        """Create one with a payload of its own. Errors: OutOfMemoryError."""
        return cls(Event.create(spec.signaled, "vkCreateFence", spec.terms, fence=True))

    def status(self) -> bool:
        """See `NativeFence`."""
        return self.payload.is_signaled()

    def reset(self) -> None:
        """See `NativeFence`. The imported payload stays as it is (S10).

        Errors: AccessDeniedError without the right to signal: a reset acts on all fences of the payload.
        """
        permanent = self.permanent
        self.restore()
        permanent.check_right()
        permanent.consume()

    def submit_signal(self) -> None:
        """Signal it, at the end of a submission. Errors: AccessDeniedError."""
        self.payload.signal()


def wait_fences(fences: Sequence[HostFence], *, any_of: bool, deadline: int | None) -> bool:
    """See `wait_events`."""
    return wait_events([fence.payload for fence in fences], any_of=any_of, deadline=deadline, what="the fence")
