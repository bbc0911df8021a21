"""Every error that extmem raises. A class says whose doing it is; fields carry facts; the message ends with what to do.

::

    ExtmemError
    ├── RuleViolation (ValueError)         the call would break the specification; it never reached the device
    ├── UnsupportedError                   the device or the OS lacks it; `requires_one_of` says what would do
    ├── DriverError                        a VkResult came back: `result`, `command`, `devices`
    │   └── OutOfMemoryError (MemoryError) the OS or device has no more memory, descriptors or objects
    ├── HandleStateError (ValueError)      you closed it, gave it away, or it belongs to another process
    │   └── LiveViewError (BufferError)    you close memory while an array or memoryview still looks at it
    ├── ObjectManagerError                 the object manager refused: `ntstatus`, `winerror`, `result`
    │   ├── NameTakenError (FileExistsError)      the name belongs to a live object
    │   ├── NameNotFoundError (FileNotFoundError) no live object has that name
    │   ├── NameInvalidError (ValueError)         no object could have that name
    │   ├── AccessDeniedError (PermissionError)   the object's security or the handle's rights say no
    │   ├── ObjectTypeError (TypeError)           the name or handle leads to an object of another type
    │   ├── InvalidHandleError (ValueError)       no such entry in the handle table, or no such KMT number
    │   ├── SecurityDescriptorError (ValueError)  the security descriptor is not one; the position is named
    │   └── QuotaError                            this client holds as much as one client may
    ├── DescriptorError (ValueError)       the payload's self-description is malformed or lies
    ├── PeerError                          the other process's doing
    │   ├── PeerGoneError (ConnectionError)       it died or hung up
    │   └── PeerProtocolError                     it broke the wire format
    └── InternalError                      a bug in extmem: please report it

What comes from the operating system alone (a full disk, no permission for a directory) stays an OSError.
"""

from __future__ import annotations

import errno as _errno
from collections.abc import Iterable, Sequence
from typing import Protocol, cast

__all__ = [
    "AccessDeniedError",
    "DescriptorError",
    "DriverError",
    "ExtmemError",
    "HandleStateError",
    "InternalError",
    "InvalidHandleError",
    "LiveViewError",
    "NameInvalidError",
    "NameNotFoundError",
    "NameTakenError",
    "ObjectManagerError",
    "ObjectTypeError",
    "OutOfMemoryError",
    "PeerError",
    "PeerGoneError",
    "PeerProtocolError",
    "QuotaError",
    "RuleViolation",
    "RuleWarning",
    "SecurityDescriptorError",
    "UnsupportedError",
]

# VkResult values that the classes below carry (registry: VkResult). Plain ints: `errors` imports nothing.
VK_ERROR_OUT_OF_HOST_MEMORY = -1
VK_ERROR_OUT_OF_DEVICE_MEMORY = -2
VK_ERROR_TOO_MANY_OBJECTS = -10
VK_ERROR_INVALID_EXTERNAL_HANDLE = -1000072003


class ViolationLike(Protocol):
    """What RuleViolation needs of a violation; `extmem.rules.Violation` is the real one."""

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
    """Root of everything that extmem raises by itself. Can be copied and pickled, with all that it carries."""

    violations: Sequence[ViolationLike] = ()
    """The specification's rules that the refused call broke, where that is known."""

    def __reduce__(self) -> tuple[object, ...]:
        # An exception's own way calls the class with the message alone. That fails where a field has to be given, and
        # an error that cannot be unpickled ends the thread of a Pool that reads results: its caller waits for ever.
        return _remade, (type(self), self.args), self.__dict__


def _remade(kind: type[ExtmemError], args: tuple[object, ...]) -> ExtmemError:
    """An error without its fields, which `__setstate__` sets."""
    # Python makes a class of several built-in ones with the `__new__` of the one that its layout is of, no other.
    base: type[BaseException] = kind
    while base.__module__ != "builtins":
        base = cast("type[BaseException]", base.__base__)
    error: ExtmemError = base.__new__(kind)
    error.args = args
    return error


class RuleWarning(UserWarning):
    """A call broke the specification and went on because the device was opened with check="warn"."""


class RuleViolation(ExtmemError, ValueError):
    """The call would break the specification. It never reached the device. `violations` has all of them."""

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
    """The device, the driver or the operating system lacks it. `requires_one_of` names what would provide it.

    `violations` has the rule that this decides, where there is one, as for `ObjectManagerError`.
    """

    def __init__(self, message: str, *, requires_one_of: Sequence[str] = ()) -> None:
        self.requires_one_of = tuple(requires_one_of)
        self.violations: tuple[ViolationLike, ...] = ()
        super().__init__(message)


class DriverError(ExtmemError):
    """A device command failed: `result` (VkResult as int), `command`, and the devices concerned, described in words."""

    def __init__(self, message: str, *, result: int, command: str, devices: Sequence[str] = ()) -> None:
        self.result = result
        self.command = command
        self.devices = tuple(devices)
        super().__init__(message)


class OutOfMemoryError(DriverError, MemoryError):
    """No more memory, descriptors or objects: VK_ERROR_OUT_OF_HOST_MEMORY, _OUT_OF_DEVICE_MEMORY, _TOO_MANY_OBJECTS."""


class HandleStateError(ExtmemError, ValueError):
    """You closed the handle or memory, gave it away with `take()`, or brought it over a fork."""


class LiveViewError(HandleStateError, BufferError):
    """You close memory that an array or memoryview still looks at. Drop the view first; the memory is unchanged."""


class ObjectManagerError(ExtmemError):
    """The object manager refused. Carries the NTSTATUS, the Win32 error and the VkResult that a driver would give."""

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


class NameNotFoundError(ObjectManagerError, FileNotFoundError):
    """STATUS_OBJECT_NAME_NOT_FOUND or STATUS_OBJECT_PATH_NOT_FOUND: no live object has that name now."""

    errno = _errno.ENOENT


class NameInvalidError(ObjectManagerError, ValueError):
    """STATUS_OBJECT_NAME_INVALID or STATUS_OBJECT_PATH_SYNTAX_BAD: no object could ever have that name."""


class AccessDeniedError(ObjectManagerError, PermissionError):
    """STATUS_ACCESS_DENIED: the object's security descriptor or the handle's granted access does not allow it."""

    errno = _errno.EACCES


class ObjectTypeError(ObjectManagerError, TypeError):
    """STATUS_OBJECT_TYPE_MISMATCH: the name or handle leads to an object of another type."""


class InvalidHandleError(ObjectManagerError, ValueError):
    """STATUS_INVALID_HANDLE, STATUS_HANDLE_NOT_CLOSABLE or STATUS_INVALID_PARAMETER: no such handle or KMT number."""


class SecurityDescriptorError(ObjectManagerError, ValueError):
    """STATUS_INVALID_SECURITY_DESCR, _UNKNOWN_REVISION or _INVALID_OWNER: not a security descriptor of yours."""


class QuotaError(ObjectManagerError):
    """STATUS_QUOTA_EXCEEDED: this client holds as many objects, handles or tickets as one client may."""

    result = VK_ERROR_TOO_MANY_OBJECTS


class DescriptorError(ExtmemError, ValueError):
    """A payload's self-description is malformed, of an unknown version, or contradicts the payload itself."""


class PeerError(ExtmemError):
    """The other process's doing."""


class PeerGoneError(PeerError, ConnectionError):
    """The other process died or hung up before it answered."""


class PeerProtocolError(PeerError):
    """The other process broke the wire format."""


class InternalError(ExtmemError):
    """A bug in extmem: please report it with the message."""
