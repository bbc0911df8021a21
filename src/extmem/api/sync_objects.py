"""The classes of semaphores, timelines and fences, imported together at the first use of any of them."""

from __future__ import annotations

from extmem import vk
from extmem.api.fence import Fence
from extmem.api.semaphore import Semaphore
from extmem.api.timeline import Timeline
from extmem.arguments import check_flag
from extmem.core.sync_record import HeldSync

__all__ = ["Fence", "Semaphore", "Timeline", "fence_info", "semaphore_of", "sync_object_of"]


def semaphore_of(held: HeldSync) -> Semaphore:
    """Return the object of a semaphore: a `Timeline` if it is one."""
    return Timeline(*held) if held.record.timeline else Semaphore(*held)


def sync_object_of(held: HeldSync) -> Semaphore | Fence:
    """Return the object of a semaphore or fence."""
    return semaphore_of(held) if hasattr(held.record, "timeline") else Fence(*held)


def fence_info(signaled: bool) -> vk.FenceCreateInfo:
    """Return the create info of a fence that is not shared."""
    check_flag(signaled, "signaled")
    return vk.FenceCreateInfo(vk.FenceCreateFlagBits.SIGNALED if signaled else vk.FenceCreateFlagBits(0))
