"""Waits of the host in slices, between which signal handlers run, and waits for timelines of several devices."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from extmem.errors import PeerGoneError

if TYPE_CHECKING:
    from extmem.devices.sync import SyncBackend

__all__ = ["SLICE_NS", "deadline_after", "in_slices", "wait_for_devices"]

SLICE_NS = 100_000_000
"""Nanoseconds of one slice."""
_SHORT_NS = 1_000_000
"""Nanoseconds of one slice of a wait for any of several devices, which take turns."""
_TURN_NS = 20_000_000
"""Nanoseconds of one slice of a wait for all of several devices: the others are looked at as often."""
_SleepFor = Callable[[Any, int], bool]


def deadline_after(timeout_ns: int | None) -> int | None:
    """Return the deadline on the clock of `time.monotonic_ns`; None for none."""
    return None if timeout_ns is None else time.monotonic_ns() + timeout_ns


def in_slices(sleep: Any, limit: int | None) -> bool:
    """Call `sleep` with a slice of the time until it returns true or the time is over. Return its last result."""
    deadline = deadline_after(limit)
    while True:
        left = SLICE_NS if deadline is None else min(SLICE_NS, max(0, deadline - time.monotonic_ns()))
        if sleep(left):
            return True
        if deadline is not None and time.monotonic_ns() >= deadline:
            return False


def wait_for_devices(by_device: dict[Any, list[tuple[Any, int]]], limit: int | None, *, any_of: bool) -> bool:
    """Wait for timelines of several devices. No call of the system waits for several drivers: they take turns."""

    def sleep_for(device: Any, slice_ns: int) -> bool:
        backend: SyncBackend = device.backend
        return backend.wait_semaphores(by_device[device], any_of=any_of, timeout_ns=slice_ns)

    left = list(by_device)
    if len(left) == 1:
        return in_slices(lambda slice_ns: sleep_for(left[0], slice_ns), limit)
    if any_of:
        return in_slices(lambda slice_ns: _any_device(left, sleep_for, min(slice_ns, _SHORT_NS)), limit)
    return in_slices(lambda slice_ns: _all_devices(left, sleep_for, min(slice_ns, _TURN_NS)), limit)


def _any_device(devices: Sequence[Any], sleep_for: _SleepFor, slice_ns: int) -> bool:
    """Give each device a slice, until one has reached a value. Errors: PeerGoneError if nobody signals any of them."""
    gone: list[PeerGoneError] = []
    for device in devices:
        try:
            if sleep_for(device, slice_ns):
                return True
        except PeerGoneError as error:
            gone.append(error)
    if len(gone) == len(devices):
        raise gone[0]
    return False


def _all_devices(left: list[Any], sleep_for: _SleepFor, slice_ns: int) -> bool:
    """Sleep for the first device that is left, and look at the others; drop those that are done.

    Errors: PeerGoneError if nobody signals a value of one of them.
    """
    for device in list(left):
        if sleep_for(device, slice_ns):
            left.remove(device)
        else:
            slice_ns = 0
    return not left
