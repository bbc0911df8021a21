"""`OwnedFd`: a file descriptor that is closed when nobody uses it any more."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from functools import partial
from itertools import starmap
from operator import itemgetter
from typing import Any, ClassVar, Self

from extmem.errors import VK_ERROR_TOO_MANY_OBJECTS, HandleStateError, OutOfMemoryError
from extmem.owning._system import FIRST, FIRST_NATIVE, close_native, duplicating
from extmem.owning.owner import Making, Owner

__all__ = ["OwnedDescriptor", "OwnedFd", "copy_fd", "out_of_descriptors"]


class OwnedFd(Owner):
    """A descriptor. Ownership: this object's, until `take`. Who uses `fd` holds the object (`Owner.hold`)."""

    __slots__ = ("fd", "mapping", "passed_on")

    first: ClassVar[int] = FIRST
    """The least number."""
    closing_call = staticmethod(os.close)
    """C code that closes one."""

    def __init__(self, fd: int = -1) -> None:
        """fd: owned from now on; -1 for none yet."""
        Owner.__init__(self)
        self.fd = fd
        self.mapping: Callable[[], Any] | None = None
        """A weak reference to what a device has mapped of the file: all who share the descriptor share that too."""
        self.passed_on = False
        """Whether the program knows the number, and may have passed it on."""
        if fd >= 0:
            self.owe(((self.closing_call, fd),))

    def own(self, fd: int) -> None:
        """Own this descriptor, from this call on."""
        self._owed.append((self.closing_call, fd))
        self.fd = fd

    @classmethod
    def of(cls, call: Callable[..., int], *arguments: Any) -> OwnedFd:
        """What `call`, which is C code, returns: a new descriptor, 3 or greater. Errors: what `call` raises."""
        made = cls()
        made.fd = made.acquire(cls.closing_call, call, *arguments)
        return made.raised()

    @classmethod
    def open(cls, path: str | os.PathLike[str], flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> OwnedFd:
        """os.open, 3 or greater. Errors: OSError."""
        return cls.of(partial(os.open, path, flags, mode, dir_fd=dir_fd))

    @classmethod
    def made_by(cls, call: Callable[..., int], arguments: tuple[Any, ...], made: Any) -> tuple[Self, int]:
        """What `call` puts into `made[0]`, and its result code; where that is not 0, or for -1, nothing is owned."""
        owned = cls()
        making = Making(call, arguments, made, cls.closing_call)
        owned.owe(making.steps)
        owned.fd = -1 if making.result else int(made[0])
        if owned.fd < 0:
            owned.disown()
        return owned, making.result

    def answered_by(self, call: Callable[..., tuple[Any, Any]], *arguments: Any) -> tuple[Any, Any]:
        """Own what the second part of a call's answer is, unless the first part is an error code. The answer."""
        answers: list[tuple[Any, Any]] = []
        calls = map(answers.append, starmap(call, (arguments,)))
        numbers = map(
            int, map(itemgetter(1), map(itemgetter(0), map(itemgetter(1), zip(calls, (answers,), strict=False))))
        )
        try:
            self.owe(zip((self.closing_call,), numbers, strict=False))
        except (TypeError, ValueError):  # an error's answer has no number
            return answers[0]
        if answers[0][0]:
            self.disown()
        else:
            self.fd = self.owed_number
        return answers[0]

    def raised(self) -> OwnedFd:
        """This descriptor if it is 3 or greater, else a copy that is; this one is closed then."""
        if self.fd >= self.first:
            return self
        copy = copy_fd(self.fd)
        self.settle()
        return copy

    def in_forked_child(self) -> None:
        """See `Owner`. The copy is closed: the child may use the number for a file of its own."""
        if not self.passed_on:
            self.give_back()
        self.forget()

    def gone(self) -> Exception:
        """See `Owner`."""
        return HandleStateError("this descriptor is closed; its number may be another file's by now")

    def take(self) -> int:
        """The descriptor, which the caller closes from now on; -1 where it was closed or taken. Nobody else uses it."""
        steps = self.disown()
        return steps[0][1] if steps else -1

    def close(self) -> None:
        """Close it, when nobody uses it any more. Safe to call twice."""
        self.settle()

    def __repr__(self) -> str:
        return f"<OwnedFd {self.fd}{', closed' * (not self.owes)}>"


class OwnedDescriptor(OwnedFd):
    """What payloads have here: a file descriptor, or on Windows a HANDLE."""

    __slots__ = ()

    first: ClassVar[int] = FIRST_NATIVE
    closing_call = staticmethod(close_native)


def copy_fd(fd: int) -> OwnedFd:
    """Another descriptor of the same open file: close-on-exec, and 3 or greater. The caller holds what owns `fd`.

    Errors: OSError (EBADF, EMFILE).
    """
    made = OwnedFd()
    call, arguments = duplicating()
    made.fd = made.acquire(made.closing_call, call, fd, *arguments)
    return made


@contextlib.contextmanager
def late_imports() -> Iterator[None]:
    """A block that imports modules, or opens files of the system. OutOfMemoryError where no descriptor is left."""
    try:
        yield
    except OSError as error:
        raise out_of_descriptors(error, "open") from None


def out_of_descriptors(error: OSError, command: str) -> Exception:
    """What an OSError is to the caller: OutOfMemoryError for a lack of descriptors (EMFILE, ENFILE), else itself."""
    if error.errno not in (errno.EMFILE, errno.ENFILE):
        return error
    return OutOfMemoryError(
        f"{command}: no file descriptor is left ({error.strerror}); close handles or files, or raise `ulimit -n`",
        result=VK_ERROR_TOO_MANY_OBJECTS,
        command=command,
    )
