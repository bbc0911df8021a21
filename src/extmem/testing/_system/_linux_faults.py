"""Making the n-th system call fail on Linux, and killing the broker at the n-th request."""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("these are Linux's system calls and its broker; Windows has _win32_faults")

import contextlib
import errno
import fcntl
import os
import select
import signal
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from extmem.testing._patching import patched

if TYPE_CHECKING:
    from extmem.testing.faults import Countdown

__all__ = ["failing_system_calls", "killing_broker"]

_SYSTEM_CALLS = (
    (os, "dup"),
    (os, "open"),
    (os, "fstat"),
    (os, "fchmod"),
    (os, "pwrite"),
    (os, "pread"),
    (os, "ftruncate"),
    (os, "memfd_create"),
    (os, "eventfd"),
    (os, "set_inheritable"),
    (fcntl, "fcntl"),
)
_TIMEOUT_MS = 10_000


@contextlib.contextmanager
def failing_system_calls(countdown: Countdown, code: int = errno.EMFILE) -> Iterator[Countdown]:
    """Within the block the countdown's n-th system call raises OSError with this errno. Closing never fails."""
    with contextlib.ExitStack() as stack:
        for module, name in _SYSTEM_CALLS:
            stack.enter_context(patched(module, name, _failing(getattr(module, name), name, countdown, code)))
        yield countdown


def _failing(real: Callable[..., Any], name: str, countdown: Countdown, code: int) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        if countdown.due(name):
            raise OSError(code, f"{os.strerror(code)} (a test makes this call of {name} fail)")
        return real(*arguments, **named)

    return call


@contextlib.contextmanager
def killing_broker(countdown: Countdown, moment: Literal["before", "after"] = "before") -> Iterator[Countdown]:
    """Within the block the broker is killed (SIGKILL) at the countdown's n-th request.

    moment: "before" the broker gets the request, or "after" it has carried it out and its reply is lost.
    """
    from extmem.wire import transport

    real = transport.send_many

    def send_many(sock: socket.socket, *arguments: Any, **named: Any) -> None:
        if not countdown.due("request"):
            real(sock, *arguments, **named)
            return
        if moment == "after":
            real(sock, *arguments, **named)
            _wait(sock, select.POLLIN)
            os.kill(transport.credentials_of(sock).pid, signal.SIGKILL)
            lost = transport.receive_many(sock)
            for fd in lost[1] if lost is not None else ():
                fd.close()
            _wait(sock, select.POLLHUP)
            return
        os.kill(transport.credentials_of(sock).pid, signal.SIGKILL)
        _wait(sock, select.POLLHUP)
        real(sock, *arguments, **named)

    with patched(transport, "send_many", send_many):
        yield countdown


def _wait(sock: socket.socket, event: int) -> None:
    poll = select.poll()
    poll.register(sock, event & ~select.POLLHUP)
    if not any(found & event for _, found in poll.poll(_TIMEOUT_MS)):
        raise AssertionError(f"the broker neither answered nor ended within {_TIMEOUT_MS / 1000:g} s")
