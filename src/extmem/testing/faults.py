"""Failing the n-th call, for every n: of a backend, of the system, of the broker.

How this works. A `Countdown` counts calls and determines the n-th. Three functions use it: `failing_backend` wraps a
device's backend, `failing_system_calls` replaces functions of `os` and `fcntl` (of ntdll on Windows), and
`killing_broker` kills the broker at a request, where there is one. `fail_each` runs an operation again and again, with
n = 1, 2, … until no call fails any more. It checks that each failure is an error that callers may expect, that nothing
is left behind, and that what the caller holds still works. Only calls of the thread that made the countdown count:
those of other threads are not part of the operation.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from extmem.errors import DriverError, ExtmemError, OutOfMemoryError
from extmem.testing import leaks
from extmem.testing._system import failing_system_calls, killing_broker

if TYPE_CHECKING:
    from extmem.devices.backend import Backend

__all__ = [
    "Arm",
    "Countdown",
    "driver_error",
    "fail_each",
    "failing_backend",
    "failing_system_calls",
    "killing_broker",
]

_CANNOT_FAIL = frozenset({"free", "close"})
"""Methods that release things, like vkFreeMemory, cannot fail."""


class Countdown:
    """Counts calls and determines the one that fails.

    at: the number of the call that fails, from 1. `calls` are the names of all calls so far, `failed` is the name of
    the call that failed or None.
    """

    def __init__(self, at: int) -> None:
        self.at = at
        self.calls: list[str] = []
        self.failed: str | None = None
        self._thread = threading.get_ident()

    def due(self, name: str) -> bool:
        """Count a call and return whether it is the one that fails."""
        if threading.get_ident() != self._thread:
            return False
        self.calls.append(name)
        if len(self.calls) != self.at:
            return False
        self.failed = name
        return True


Arm: TypeAlias = Callable[[Countdown], contextlib.AbstractContextManager[object]]


def driver_error(name: str) -> DriverError:
    """Return the error of a driver that has no memory left."""
    return OutOfMemoryError(
        f"a test makes this call of {name} fail", result=-2, command=name, devices=["a device under test"]
    )


def failing_backend(
    backend: Backend, countdown: Countdown, error: Callable[[str], BaseException] = driver_error
) -> Backend:
    """Return the backend with the countdown's n-th call replaced: it raises `error(name)` and does nothing else."""
    return cast("Backend", _FailingBackend(backend, countdown, error))


class _FailingBackend:
    def __init__(self, backend: Backend, countdown: Countdown, error: Callable[[str], BaseException]) -> None:
        self.backend = backend
        self.countdown = countdown
        self.error = error

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.backend, name)
        if not callable(real) or name in _CANNOT_FAIL:
            return real

        def call(*arguments: Any, **named: Any) -> Any:
            if self.countdown.due(name):
                raise self.error(name)
            return real(*arguments, **named)

        return call


def fail_each(
    operation: Callable[[], object],
    arm: Arm,
    *,
    check: Callable[[], object] = lambda: None,
    allowed: tuple[type[BaseException], ...] = (ExtmemError, OSError),
    limit: int = 400,
) -> list[str]:
    """Run the operation with its 1st, 2nd, … call failing, until none fails. Return the names of the failed calls.

    operation: does its work and releases everything.
    arm: a context manager in which the countdown's n-th call fails.
    check: raises unless what must still work after each failure works, the caller's handles above all.
    allowed: the errors that the operation may raise.
    Errors: any other exception of the operation or the check; LeakError; AssertionError for more than `limit` calls.
    """
    failed: list[str] = []
    for at in count(1):
        if at > limit:
            raise AssertionError(f"after {limit} failures the operation still makes calls: {failed[-10:]}")
        countdown = Countdown(at)
        with leaks.no_leaks():
            try:
                with arm(countdown):
                    operation()
            except allowed as error:
                if countdown.failed is None:
                    raise AssertionError("the operation fails by itself") from error
                error.__traceback__ = None  # its frames hold what the operation was working on
            check()
        if countdown.failed is None:
            return failed
        failed.append(countdown.failed)
    return failed
