"""Memory that a framework lends: what keeps its contents is kept until no other process has the payload any more.

How this works. The handles of the driver keep the pages of memory, not their contents: a framework that frees a tensor
gives its memory to the next one, which writes there. So this process keeps the tensor as long as anybody can read it.

Who that is, the kernel knows. The payload has the write end of a pipe as a companion page (`PageRole.LIFELINE`), and so
everybody who has the payload or can get it has that end: importers, the broker for names, handles and tickets, and this
process while its own memory object is open. A process that is killed loses it with all its files. When the last one is
closed, the pipe ends, and a thread here lets the tensor go. So nobody is asked, the broker may be replaced meanwhile,
and nobody can get the payload at the moment at which it ends.

In a forked child the tensors are kept without a thread: they belong to the parent.
"""

from __future__ import annotations

import os
import sys

if sys.platform != "linux":
    raise ImportError("memory of frameworks is lent on Linux, where a payload can have several handles")

import contextlib
import selectors
import threading
from typing import Any, Final

from extmem.errors import VK_ERROR_TOO_MANY_OBJECTS, OutOfMemoryError
from extmem.owning import Lock, OwnedFd
from extmem.owning.fd import out_of_descriptors
from extmem.owning.pipes_and_sockets import pipe

__all__ = ["lend", "lent"]

_ONE_READ: Final = 4_096


class _Loan:
    """What is lent, and the read end of its pipe."""

    __slots__ = ("end", "values")

    def __init__(self, values: object, end: OwnedFd) -> None:
        self.values = values
        self.end = end


class _Lender:
    """The loans of this process, and the thread that ends them, which runs while there are any."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.loans: dict[int, _Loan] = {}
        """By the number of the read end."""
        self.selector: selectors.BaseSelector | None = None
        """What the thread waits for; None while there is no thread."""

    def add(self, loan: _Loan) -> None:
        with self.lock:
            selector = self.selector
            if selector is None:
                selector = selectors.EpollSelector()  # which takes new files while the thread waits
            self.loans[loan.end.fd] = loan
            selector.register(loan.end.fd, selectors.EVENT_READ)
            if self.selector is None:
                try:
                    threading.Thread(target=self.run, args=(selector,), name="extmem-loans", daemon=True).start()
                except RuntimeError as error:
                    del self.loans[loan.end.fd]
                    selector.close()
                    raise OutOfMemoryError(
                        f"memory is lent while a thread waits for its end, and none can be started ({error}); raise "
                        "the limit of threads (ulimit -u, or pids.max of the control group)",
                        result=VK_ERROR_TOO_MANY_OBJECTS,
                        command="pthread_create",
                    ) from error
                self.selector = selector

    def run(self, selector: selectors.BaseSelector) -> None:
        """End each loan whose pipe has ended, until there are none."""
        while True:
            for key, _ in selector.select():
                # A holder may write to the pipe, though it has no reason to: the bytes mean nothing.
                with contextlib.suppress(BlockingIOError):
                    if not os.read(key.fd, _ONE_READ):
                        self.end(selector, key.fd)
            with self.lock:
                if not self.loans:
                    self.selector = None
                    selector.close()
                    return

    def end(self, selector: selectors.BaseSelector, fd: int) -> None:
        with self.lock:
            selector.unregister(fd)
            loan = self.loans.pop(fd, None)
            if loan is not None:
                loan.end.settle()
        del loan  # outside the lock: a framework may do anything when it frees a tensor


_lender = _Lender()
_of_parents: Final[list[_Lender]] = []


def lend(values: object) -> OwnedFd:
    """Keep `values` until every copy of the write end that is returned is closed. The caller owns it.

    Errors: OutOfMemoryError without file descriptors.
    """
    try:
        ours, theirs = pipe(os.O_CLOEXEC | os.O_NONBLOCK)
        _lender.add(_Loan(values, ours))
    except OSError as error:
        raise out_of_descriptors(error, "pipe") from None
    return theirs


def lent() -> list[Any]:
    """Return what is lent now."""
    with _lender.lock:
        return [loan.values for loan in _lender.loans.values()]


def _after_fork() -> None:
    global _lender
    _of_parents.append(_lender)
    _lender = _Lender()


os.register_at_fork(after_in_child=_after_fork)
