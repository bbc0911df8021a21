"""Failing the n-th call, for every n: of a driver, of the system, of the connection to the object manager.

How this works. A `Countdown` counts calls and says when it is the n-th one's turn. Three arms use it: `failing_driver`
wraps a device's driver, `failing_system_calls` the functions of `os` and `fcntl`, `breaking_connection` the connection
to the broker. `fail_each` runs an operation again and again, with n = 1, 2, … until nothing fails any more, and sees
that each failure is an error that callers may expect, that nothing is left behind, and that what the caller had works.
Only calls of the thread that armed it count: what other threads do is not the operation's.
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("the faults that can be planted here are Linux's: its system calls and its broker")

import contextlib
import errno
import fcntl
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from itertools import count
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from extmem.errors import DriverError, ExtmemError, OutOfMemoryError
from extmem.testing import leaks

if TYPE_CHECKING:
    from extmem.devices.base import Driver

__all__ = [
    "Arm",
    "Countdown",
    "breaking_connection",
    "driver_error",
    "fail_each",
    "failing_driver",
    "failing_system_calls",
]

_GIVES_BACK = frozenset({"free", "close"})
"""vkFreeMemory and its kin cannot fail."""
_SYSTEM_CALLS = (
    (os, "dup"),
    (os, "open"),
    (os, "fstat"),
    (os, "fchmod"),
    (os, "pwrite"),
    (os, "pread"),
    (os, "ftruncate"),
    (os, "memfd_create"),
    (os, "set_inheritable"),
    (fcntl, "fcntl"),
)
_PATIENCE_MS = 10_000


class Countdown:
    """Whose turn it is to fail: `at` counts from 1. `calls` are the names of all calls so far, `failed` the one's."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.calls: list[str] = []
        self.failed: str | None = None
        self._thread = threading.get_ident()

    def due(self, name: str) -> bool:
        """Count a call; whether it is to fail."""
        if threading.get_ident() != self._thread:
            return False
        self.calls.append(name)
        if len(self.calls) != self.at:
            return False
        self.failed = name
        return True


Arm: TypeAlias = Callable[[Countdown], contextlib.AbstractContextManager[object]]


def driver_error(name: str) -> DriverError:
    """What a driver without memory says."""
    return OutOfMemoryError(
        f"{name} was told to fail; this is a test", result=-2, command=name, devices=["a device under test"]
    )


def failing_driver(
    driver: Driver, countdown: Countdown, error: Callable[[str], BaseException] = driver_error
) -> Driver:
    """The driver, but for the call whose turn it is, which raises `error(name)` instead of doing anything."""
    return cast("Driver", _FailingDriver(driver, countdown, error))


class _FailingDriver:
    def __init__(self, driver: Driver, countdown: Countdown, error: Callable[[str], BaseException]) -> None:
        self.driver = driver
        self.countdown = countdown
        self.error = error

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.driver, name)
        if not callable(real) or name in _GIVES_BACK:
            return real

        def call(*arguments: Any, **named: Any) -> Any:
            if self.countdown.due(name):
                raise self.error(name)
            return real(*arguments, **named)

        return call


@contextlib.contextmanager
def failing_system_calls(countdown: Countdown, code: int = errno.EMFILE) -> Iterator[Countdown]:
    """The system call whose turn it is raises OSError with this errno. Closing never fails."""
    with contextlib.ExitStack() as stack:
        for module, name in _SYSTEM_CALLS:
            stack.enter_context(_patched(module, name, _failing(getattr(module, name), name, countdown, code)))
        yield countdown


def _failing(real: Callable[..., Any], name: str, countdown: Countdown, code: int) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        if countdown.due(name):
            raise OSError(code, f"{os.strerror(code)} ({name} was told to fail; this is a test)")
        return real(*arguments, **named)

    return call


@contextlib.contextmanager
def breaking_connection(countdown: Countdown, moment: Literal["before", "after"] = "before") -> Iterator[Countdown]:
    """The connection to the broker breaks at the request whose turn it is.

    moment: "before" the broker gets the request, or "after" it has carried it out and its reply is on the way.
    """
    from extmem.broker import transport

    real = transport.send

    def send(sock: socket.socket, *arguments: Any, **named: Any) -> None:
        if not countdown.due("request"):
            real(sock, *arguments, **named)
            return
        if moment == "after":
            real(sock, *arguments, **named)
            poll = select.poll()
            poll.register(sock, select.POLLIN)
            poll.poll(_PATIENCE_MS)
            lost = transport.receive(sock)
            if lost is not None and lost[1] is not None:
                lost[1].close()
            sock.shutdown(socket.SHUT_RDWR)
            return
        sock.shutdown(socket.SHUT_RDWR)
        real(sock, *arguments, **named)

    def ask(sock: socket.socket, data: bytes) -> transport.Packet | None:
        send(sock, data)
        return transport.receive(sock)

    with _patched(transport, "send", send), _patched(transport, "ask", ask):
        yield countdown


@contextlib.contextmanager
def _patched(module: object, name: str, replacement: object) -> Iterator[None]:
    real = getattr(module, name)
    setattr(module, name, replacement)
    try:
        yield
    finally:
        setattr(module, name, real)


def fail_each(
    operation: Callable[[], object],
    arm: Arm,
    *,
    check: Callable[[], object] = lambda: None,
    allowed: tuple[type[BaseException], ...] = (ExtmemError, OSError),
    limit: int = 400,
) -> list[str]:
    """Run the operation with its 1st, 2nd, … call failing, until it runs without any; the names of those that failed.

    operation: does its work and gives everything back. arm: makes the n-th call fail while it is entered. check: what
        must still work after each failure, the caller's handles above all. allowed: what the operation may raise.
    Errors: whatever else the operation or the check raises; LeakError; AssertionError for more than `limit` calls.
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
