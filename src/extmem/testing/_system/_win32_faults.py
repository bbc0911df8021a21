"""Making the n-th call of the Windows kernel fail."""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("these are calls of the Windows kernel; Linux has _linux_faults")

import contextlib
import ctypes
import errno
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from extmem.errors import UnsupportedError
from extmem.handles._win32.tables import ntdll
from extmem.testing._patching import patched

if TYPE_CHECKING:
    from extmem.testing.faults import Countdown

__all__ = ["failing_system_calls", "killing_broker"]

_CALLS = (
    "NtCreateSection",
    "NtOpenSection",
    "NtMapViewOfSection",
    "NtDuplicateObject",
    "NtCreateEvent",
    "NtOpenEvent",
    "NtCreateSemaphore",
    "NtOpenSemaphore",
    "NtCreateMutant",
    "NtOpenProcess",
)
"""The calls that need memory or an entry of a table. Queries of an open handle need neither."""
_STATUSES = {errno.EMFILE: 0xC000009A, errno.ENOMEM: 0xC0000017}
"""STATUS_INSUFFICIENT_RESOURCES, STATUS_NO_MEMORY."""


@contextlib.contextmanager
def failing_system_calls(countdown: Countdown, code: int = errno.EMFILE) -> Iterator[Countdown]:
    """Within the block the countdown's n-th call returns an error status and does nothing. Closing never fails.

    code: EMFILE for STATUS_INSUFFICIENT_RESOURCES, ENOMEM for STATUS_NO_MEMORY. KeyError for others.
    """
    status = ctypes.c_long(_STATUSES[code]).value
    with contextlib.ExitStack() as stack:
        for name in _CALLS:
            stack.enter_context(patched(ntdll, name, _failing(getattr(ntdll, name), name, countdown, status)))
        yield countdown


def _failing(real: Callable[..., int], name: str, countdown: Countdown, status: int) -> Callable[..., int]:
    def call(*arguments: Any) -> int:
        return status if countdown.due(name) else real(*arguments)

    return call


def killing_broker(
    countdown: Countdown, moment: Literal["before", "after"] = "before"
) -> contextlib.AbstractContextManager[Countdown]:
    """Raise UnsupportedError: on Windows the kernel is the object manager, and there is no broker."""
    raise UnsupportedError("Windows's object manager is its kernel: there is no broker that could be killed")
