"""All errors that extmem raises. The class is the cause, the fields are facts, and the message ends with what to do.

::

    ExtmemError
    ├── RuleViolation (ValueError)         the call would break the specification, and was not passed to the device
    ├── UnsupportedError                   the device or the OS does not support it; see `requires_one_of`
    ├── DriverError                        a device command failed: `result`, `command`, `devices`
    │   └── OutOfMemoryError (MemoryError) the OS or device has no more memory, descriptors or objects
    ├── HandleStateError (ValueError)      it is closed, taken, or belongs to another process
    │   ├── LiveViewError (BufferError)    memory is closed while an array or memoryview of it exists
    │   └── StaleSourceError               the tensor that was shared has other memory since
    ├── ObjectManagerError                 the object manager refused: `ntstatus`, `winerror`, `result`
    │   ├── NameTakenError (FileExistsError)      the name belongs to a live object
    │   │   └── ChannelTakenError                 the channel has a live writer
    │   ├── NameNotFoundError (FileNotFoundError) no live object has that name
    │   │   └── NameTimeoutError (TimeoutError)   no object got that name in time
    │   ├── NameInvalidError (ValueError)         no object can have that name
    │   ├── AccessDeniedError (PermissionError)   the object's security or the handle's access does not allow it
    │   ├── ObjectTypeError (TypeError)           the name or handle refers to an object of another type
    │   ├── InvalidHandleError (ValueError)       no such entry in the handle table, or no such KMT number
    │   ├── SecurityDescriptorError (ValueError)  the security descriptor is not valid; the position is named
    │   └── QuotaError                            this client has reached its quota
    ├── DescriptorError (ValueError)       the payload's descriptor is malformed or contradicts the payload
    │   └── ChannelCorruptError            the control page of a channel contradicts itself or its payloads
    ├── ChannelFullError                   no slot of a channel is free: `holders`
    │   └── ReaderTooSlowError             because reliable readers have not read their frames yet
    ├── FramesLostError                    frames were overwritten before this reader read them (`strict=True`)
    │   └── GpuFrameLostError                 the writer ended before its GPU completed a frame
    ├── PeerError                          the other process caused it
    │   ├── PeerGoneError (ConnectionError)       it ended or closed the connection
    │   │   └── WriterGoneError                   the writer of a channel has ended, and nothing newer will come
    │   └── PeerProtocolError                     it broke the wire format
    ├── WaitTimeoutError (TimeoutError)    a wait ended before its semaphore or fence was signaled
    └── InternalError                      a bug in extmem: please report it

Errors of the operating system alone (a full disk, no permission for a directory) stay an OSError.
"""

from __future__ import annotations

import errno as _errno
from collections.abc import Iterable, Sequence
from typing import Protocol, cast

__all__ = [
    "AccessDeniedError",
    "ChannelCorruptError",
    "ChannelFullError",
    "ChannelTakenError",
    "DescriptorError",
    "DriverError",
    "ExtmemError",
    "FramesLostError",
    "GpuFrameLostError",
    "HandleStateError",
    "InternalError",
    "InvalidHandleError",
    "LiveViewError",
    "NameInvalidError",
    "NameNotFoundError",
    "NameTakenError",
    "NameTimeoutError",
    "ObjectManagerError",
    "ObjectTypeError",
    "OutOfMemoryError",
    "PeerError",
    "PeerGoneError",
    "PeerProtocolError",
    "QuotaError",
    "ReaderTooSlowError",
    "RuleViolation",
    "SecurityDescriptorError",
    "StaleSourceError",
    "UnsupportedError",
    "WaitTimeoutError",
    "WriterGoneError",
]

# VkResult values of the classes below (registry: VkResult). Plain ints, because `errors` imports nothing.
VK_ERROR_OUT_OF_HOST_MEMORY = -1
VK_ERROR_OUT_OF_DEVICE_MEMORY = -2
VK_ERROR_TOO_MANY_OBJECTS = -10
VK_ERROR_INVALID_EXTERNAL_HANDLE = -1000072003


class ViolationLike(Protocol):
    """The attributes of a violation that RuleViolation uses; `extmem.rules.Violation` implements them."""

    @property
    def vuid(self) -> str:
        """The rule's id, `VUID-…`."""

    @property
    def where(self) -> str:
        """Dotted path of the field at fault."""

    @property
    def problem(self) -> str:
        """What is wrong, with the actual values."""

    @property
    def remedy(self) -> str:
        """What to do instead."""


class ExtmemError(Exception):
    """Base class of all errors that extmem raises by itself. Can be copied and pickled, with all attributes."""

    violations: Sequence[ViolationLike] = ()
    """The rules of the specification that the refused call broke, if known."""

    def __reduce__(self) -> tuple[object, ...]:
        # The default calls the class with the message only. That fails if the class requires another argument, and an
        # error that cannot be unpickled ends the thread of a Pool that reads results, whose caller then waits for ever.
        return _remade, (type(self), self.args), self.__dict__


def _remade(error_class: type[ExtmemError], args: tuple[object, ...]) -> ExtmemError:
    """Return an error without its fields, which `__setstate__` sets."""
    # A class with several built-in bases is created only by the `__new__` of the base that determines its layout.
    base: type[BaseException] = error_class
    while base.__module__ != "builtins":
        base = cast("type[BaseException]", base.__base__)
    error: ExtmemError = base.__new__(error_class)
    error.args = args
    return error


class RuleViolation(ExtmemError, ValueError):
    """The call would break the specification, and was not passed to the device. `violations` has all broken rules."""

    def __init__(self, violations: Iterable[ViolationLike], *, command: str = "") -> None:
        self.violations = tuple(violations)
        self.command = command
        super().__init__(self._text())

    @property
    def vuids(self) -> tuple[str, ...]:
        """The ids of the broken rules, in the order found."""
        return tuple(v.vuid for v in self.violations)

    def _text(self) -> str:
        lines = [f"{self.command}: {len(self.violations)} rule(s) broken"] if self.command else []
        for v in self.violations:
            lines.append(f"{v.vuid}\n  at {v.where}: {v.problem}\n  do: {v.remedy}")
        return "\n".join(lines)


class UnsupportedError(ExtmemError):
    """The device, the driver or the operating system does not support it. `requires_one_of` names what would.

    `violations` has the rule that the call would break, if there is one, as for `ObjectManagerError`.
    """

    def __init__(self, message: str, *, requires_one_of: Sequence[str] = ()) -> None:
        self.requires_one_of = tuple(requires_one_of)
        self.violations: tuple[ViolationLike, ...] = ()
        super().__init__(message)


class DriverError(ExtmemError):
    """A device command failed: `result` (VkResult as int), `command`, and descriptions of the devices involved."""

    def __init__(self, message: str, *, result: int, command: str, devices: Sequence[str] = ()) -> None:
        self.result = result
        self.command = command
        self.devices = tuple(devices)
        super().__init__(message)


class OutOfMemoryError(DriverError, MemoryError):
    """Memory, fds or objects are exhausted: VK_ERROR_OUT_OF_HOST_MEMORY, _OUT_OF_DEVICE_MEMORY, _TOO_MANY_OBJECTS."""


class HandleStateError(ExtmemError, ValueError):
    """The handle or memory is closed, was taken with `take()`, or belongs to the parent of a forked process."""


class LiveViewError(HandleStateError, BufferError):
    """Memory is closed while an array or memoryview of it exists. Drop the view first; the memory is unchanged."""


class StaleSourceError(HandleStateError):
    """A tensor that was shared where it is was freed, or has got other memory since (`set_`, `resize_`, `.data = …`).

    Others see the memory that it had when it was shared. Share it again.
    """


class ObjectManagerError(ExtmemError):
    """The object manager refused. Has the NTSTATUS, the Win32 error and the VkResult that a driver would return."""

    result = VK_ERROR_INVALID_EXTERNAL_HANDLE

    def __init__(
        self,
        message: str,
        *,
        ntstatus: int,
        winerror: int,
        violations: Iterable[ViolationLike] = (),
    ) -> None:
        super().__init__(message)
        self.ntstatus = ntstatus
        self.winerror = winerror
        self.violations = tuple(violations)

    def __str__(self) -> str:
        return str(self.args[0])


class NameTakenError(ObjectManagerError, FileExistsError):
    """STATUS_OBJECT_NAME_COLLISION: the name belongs to a live object. Exports never alias an existing one."""

    errno = _errno.EEXIST


class ChannelTakenError(NameTakenError):
    """A channel has one writer at a time, and another process (or this one) is the writer of this one now."""


class NameNotFoundError(ObjectManagerError, FileNotFoundError):
    """STATUS_OBJECT_NAME_NOT_FOUND or STATUS_OBJECT_PATH_NOT_FOUND: no live object has that name now."""

    errno = _errno.ENOENT


class NameTimeoutError(NameNotFoundError, TimeoutError):
    """No object got the name in the time for which an `open` waited."""


class NameInvalidError(ObjectManagerError, ValueError):
    """STATUS_OBJECT_NAME_INVALID or STATUS_OBJECT_PATH_SYNTAX_BAD: no object can have that name."""


class AccessDeniedError(ObjectManagerError, PermissionError):
    """STATUS_ACCESS_DENIED: the object's security descriptor or the handle's granted access does not allow it."""

    errno = _errno.EACCES


class ObjectTypeError(ObjectManagerError, TypeError):
    """STATUS_OBJECT_TYPE_MISMATCH: the name or handle refers to an object of another type."""


class InvalidHandleError(ObjectManagerError, ValueError):
    """STATUS_INVALID_HANDLE, STATUS_HANDLE_NOT_CLOSABLE or STATUS_INVALID_PARAMETER: no such handle or KMT number."""


class SecurityDescriptorError(ObjectManagerError, ValueError):
    """STATUS_INVALID_SECURITY_DESCR, _UNKNOWN_REVISION or _INVALID_OWNER: the security descriptor is not valid."""


class QuotaError(ObjectManagerError):
    """STATUS_QUOTA_EXCEEDED: this client has its maximum number of objects, handles or tickets."""

    result = VK_ERROR_TOO_MANY_OBJECTS


class DescriptorError(ExtmemError, ValueError):
    """A payload's descriptor is malformed, of an unknown version, or contradicts the payload."""


class ChannelCorruptError(DescriptorError):
    """The control page of a channel has numbers that its writer never writes. Other channels are not concerned."""


class ChannelFullError(ExtmemError):
    """Each slot of a channel is held by a reader, or by a frame that is being written. `holders` are the readers."""

    def __init__(self, message: str, *, holders: Sequence[object] = ()) -> None:
        super().__init__(message)
        self.holders = tuple(holders)
        """A `ReaderInfo` for each reader that is in the way."""


class ReaderTooSlowError(ChannelFullError):
    """Each slot that is not held has a frame that a reliable reader has not read yet."""


class FramesLostError(ExtmemError):
    """Frames were overwritten before this reader read them, and it was opened with `strict=True`.

    The reader goes on behind them: the next read returns the frame that is there.
    """

    def __init__(self, message: str, *, first: int = 0, count: int = 0) -> None:
        super().__init__(message)
        self.first = first
        """The number of the first frame that was lost."""
        self.count = count
        """How many were lost."""


class GpuFrameLostError(FramesLostError):
    """The writer of a channel ended, or its device was lost, before the GPU had completed frames that it published.

    What is in their slots is not a frame. What a reader has computed from them on a GPU is worthless: `first` and
    `count` tell which. The reader goes on behind them.
    """


class PeerError(ExtmemError):
    """The other process caused the error."""


class PeerGoneError(PeerError, ConnectionError):
    """The other process ended or closed the connection before it replied."""


class WriterGoneError(PeerGoneError):
    """The writer of a channel has ended or closed the channel, and there is no newer frame. `closed` tells which."""

    def __init__(self, message: str, *, pid: int = 0, closed: bool = False) -> None:
        super().__init__(message)
        self.pid = pid
        """The process that was the writer."""
        self.closed = closed
        """Whether it closed the channel, or its program ended normally."""


class PeerProtocolError(PeerError):
    """The other process broke the wire format."""


class WaitTimeoutError(ExtmemError, TimeoutError):
    """A wait ended before its semaphore or fence was signaled: VK_TIMEOUT. Nothing has changed; wait again.

    `value` is the one that was waited for, and `reached` the one of the timeline at the end of the wait (a wait for
    several: those of the first one that is behind); None for fences and binary semaphores.
    """

    errno = _errno.ETIMEDOUT

    def __init__(self, message: str, *, value: int | None = None, reached: int | None = None) -> None:
        super().__init__(message)
        self.value = value
        self.reached = reached

    def __str__(self) -> str:
        return str(self.args[0])


class InternalError(ExtmemError):
    """A bug in extmem: please report it with the message."""
