"""`OwnedFd`: a file descriptor that is closed once it is not in use."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import starmap
from operator import itemgetter
from typing import Any, ClassVar, Self

from extmem.errors import VK_ERROR_TOO_MANY_OBJECTS, HandleStateError, OutOfMemoryError
from extmem.forks import no_fork
from extmem.owning._system import FIRST, FIRST_NATIVE, close_native, duplicating, fds_in_use
from extmem.owning.owner import Making, Owner

__all__ = ["OwnedDescriptor", "OwnedFd", "copy_fd", "out_of_descriptors", "require_fds"]

_NONE_LEFT = frozenset({errno.EMFILE, errno.ENFILE, errno.ETOOMANYREFS})


class OwnedFd(Owner):
    """A file descriptor. Ownership: this object's, until `take`. Code that uses `fd` holds it (`Owner.hold`)."""

    __slots__ = ("fd", "mapping", "passed_on")

    first: ClassVar[int] = FIRST
    """Lowest number that this class owns."""
    closing_call = staticmethod(os.close)
    """C function that closes one."""

    def __init__(self, fd: int = -1, numbers: Iterable[int] | None = None) -> None:
        """fd: owned from now on; -1 for none yet.

        numbers: instead of `fd`, an iterator whose first number is owned from the call on that takes it. The iterator
            is C code; it may make the call that opens the fd.
        """
        if numbers is None:
            numbers = (fd,) if fd >= 0 else ()
        self.mapping: Callable[[], Any] | None = None
        """Weak reference to a device's mapping of the file, which all users of the fd share."""
        self.passed_on = False
        """Whether the number was returned to the program, which may have passed it on."""
        Owner.__init__(self, zip((self.closing_call,), numbers, strict=False))  # may call the system
        self.fd: int = self._owed[-1][1] if self._owed else -1

    @classmethod
    def of(cls, call: Callable[..., int], *arguments: Any) -> OwnedFd:
        """Own the new fd that `call` returns, which is C code; it is 3 or greater. Errors: those of `call`."""
        owned = cls(numbers=starmap(call, (arguments,)))
        return owned if owned.fd >= cls.first else owned.above_standard_streams()

    @classmethod
    def open(cls, path: str | os.PathLike[str], flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> OwnedFd:
        """Open a file: os.open. The fd is 3 or greater. Errors: OSError."""
        return cls.of(partial(os.open, path, flags, mode, dir_fd=dir_fd))

    @classmethod
    def from_output(cls, call: Callable[..., int], arguments: tuple[Any, ...], made: Any) -> tuple[Self, int]:
        """Own the fd that `call` writes to `made[0]`. Return the owner and the call's result code.

        If the code is not 0, or the fd is -1, nothing is owned.
        """
        owned = cls()
        making = Making(call, arguments, made, cls.closing_call)
        owned.owe(making.steps)
        owned.fd = -1 if making.result else int(made[0])
        if owned.fd < 0:
            owned.disown()
        return owned, making.result

    def own_result_of(self, call: Callable[..., tuple[Any, Any]], *arguments: Any) -> tuple[Any, Any]:
        """Own the second part of a call's result, unless the first part is an error code. Return the result."""
        answers: list[tuple[Any, Any]] = []
        calls = map(answers.append, starmap(call, (arguments,)))
        numbers = map(
            int, map(itemgetter(1), map(itemgetter(0), map(itemgetter(1), zip(calls, (answers,), strict=False))))
        )
        try:
            self.owe(zip((self.closing_call,), numbers, strict=False))
        except (TypeError, ValueError):  # the result of a failed call has no number
            return answers[0]
        if answers[0][0]:
            self.disown()
        else:
            self.fd = self.owed_number
        return answers[0]

    def above_standard_streams(self) -> OwnedFd:
        """Return this fd if it is 3 or greater. Else close it, and return a copy that is."""
        if self.fd >= self.first:
            return self
        copy = type(self)(numbers=duplicating(self.fd))
        self.settle()
        return copy

    def in_forked_child(self) -> None:
        """See `Owner`. The child's copy is closed, unless the number was passed on."""
        if not self.passed_on:
            self.give_back()
        self.forget()

    def gone(self) -> Exception:
        """See `Owner`."""
        return HandleStateError("this file descriptor is closed; its number may already be that of another file")

    def take(self) -> int:
        """Stop owning, and return the fd, which the caller must close; -1 if it was closed or taken.

        No other code may hold it.
        """
        steps = self.disown()
        return steps[0][1] if steps else -1

    def close(self) -> None:
        """Close it, unless it is held. Safe to call twice."""
        self.settle()

    def __repr__(self) -> str:
        return f"<OwnedFd {self.fd}{', closed' * (not self.owes)}>"


class OwnedDescriptor(OwnedFd):
    """The system's descriptor of a payload: a file descriptor on Linux, a HANDLE on Windows."""

    __slots__ = ()

    first: ClassVar[int] = FIRST_NATIVE
    closing_call = staticmethod(close_native)


def copy_fd(fd: int) -> OwnedFd:
    """Return another fd of the same open file: close-on-exec, and 3 or greater. The caller holds the owner of `fd`.

    Errors: OSError (EBADF, EMFILE).
    """
    return OwnedFd(numbers=duplicating(fd))


@contextlib.contextmanager
def late_imports() -> Iterator[None]:
    """Run a block that imports modules, while no other thread forks. Errors: OutOfMemoryError if no fd is left."""
    try:
        with no_fork():
            yield
    except OSError as error:
        raise out_of_descriptors(error, "open") from None


def out_of_descriptors(error: OSError, command: str, needed: int = 0) -> Exception:
    """Return the error to raise for an OSError: OutOfMemoryError if no fd is left, else `error`.

    That is EMFILE and ENFILE, and ETOOMANYREFS for fds on their way between processes. needed: how many the call needs
    at once; 0 if that is not known.
    """
    if error.errno not in _NONE_LEFT:
        return error
    used, limit = fds_in_use()
    if error.errno == errno.ETOOMANYREFS:
        text = (
            f"{command}: too many file descriptors of this user are on their way to processes ({error.strerror}): "
            f"at most {limit} may be, as many as this process may open{f', and {needed} are sent' * bool(needed)}; "
            f"try again, or raise `ulimit -n` to {2 * max(limit, needed)}"
        )
    elif needed:
        text = (
            f"{command}: no file descriptor is left ({error.strerror}): {needed} are needed at once, this process has "
            f"{used} open, and its limit is {limit}; close handles or files, or raise `ulimit -n` to {used + needed}"
        )
    else:
        text = f"{command}: no file descriptor is left ({error.strerror}); close handles or files, or raise `ulimit -n`"
    return OutOfMemoryError(text, result=VK_ERROR_TOO_MANY_OBJECTS, command=command)


def require_fds(count: int, what: str) -> None:
    """Raise OutOfMemoryError, with the limit and the need, if the process may not open `count` files more.

    what: words for what needs them. It is asked before the first is opened, so that none are in flight in vain.
    """
    used, limit = fds_in_use()
    if 0 <= limit < used + count:
        raise OutOfMemoryError(
            f"{what} needs {count} file descriptors at once, this process has {used} open, and its limit is {limit}; "
            f"raise the limit to {used + count} or more (ulimit -n, or resource.setrlimit)",
            result=VK_ERROR_TOO_MANY_OBJECTS,
            command="open",
        )
