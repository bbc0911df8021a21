"""Descriptors that close themselves, and a payload's in this process: one open file, however many imports use it.

On Windows a payload's descriptor is the HANDLE of its section.
"""

# Annotations are evaluated when a class is made (msgspec reads them), so they are not postponed here.

import sys
from collections.abc import Callable
from typing import Any

import msgspec

from extmem.errors import HandleStateError

if sys.platform == "win32":
    from extmem.handles._win32.calls import close_handle as close_descriptor
else:
    from os import close as close_descriptor

__all__ = ["Imported", "OwnedFd", "PayloadFd", "Win32Payload", "close_descriptor", "raised"]

_STANDARD = 2
"""The last of stdin, stdout and stderr."""


def raised(fd: int) -> int:
    """A descriptor that was just opened or received, under a number of 3 or more: see `extmem.handles.fds`."""
    if fd > _STANDARD:
        return fd
    # Only a process that has stdin, stdout or stderr closed comes here. The broker has them open, and does not load the
    # library's handles.
    from extmem.handles import fds

    return fds.raised(fd)


class OwnedFd(msgspec.Struct, gc=False, eq=False):
    """A received or duplicated descriptor, owned by this object until taken: closed when the last reference goes.

    (A Struct because it is made in C: every first import of a payload makes one.)
    """

    fd: int
    mapping: Callable[[], Any] | None = None
    """A weak reference to what a device has mapped of the file: all who share the descriptor share that too."""

    def take(self) -> int:
        """The descriptor: closing it is the caller's duty now."""
        fd, self.fd = self.fd, -1
        return fd

    def close(self) -> None:
        """Close it, unless it was taken. Safe to call twice."""
        if self.fd >= 0:
            close_descriptor(self.take())

    def __del__(self) -> None:
        if self.fd >= 0:
            close_descriptor(self.fd)


class PayloadFd(msgspec.Struct, gc=False, eq=False):
    """One import's hold on its payload's descriptor.

    Ownership: `fd` is borrowed, valid until `close` (or the loss of this object); other imports of the payload in this
    process may share it. (A Struct because it is made in C: every import makes one.)
    """

    shared: OwnedFd | None
    """The owner; None once closed. Not for users."""
    writable: bool
    """Whether it was opened for writing: the kernel refuses writable mappings otherwise (host payloads)."""

    @property
    def fd(self) -> int:
        """The descriptor, to be used but not closed. HandleStateError once closed."""
        if self.shared is None:
            raise HandleStateError("this payload's descriptor is closed; import the payload again")
        return self.shared.fd

    def fileno(self) -> int:
        """`fd`, under the name that `os` functions look for."""
        return self.fd

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self.shared is None

    def close(self) -> None:
        """Let go. Safe to call twice."""
        self.shared = None

    def __repr__(self) -> str:
        state = "closed" if self.shared is None else f"fd {self.shared.fd}"
        return f"<PayloadFd {state}, {'writable' if self.writable else 'read-only'}>"


class Win32Payload(PayloadFd, gc=False, eq=False):
    """One import's hold on a payload that a GPU driver of Windows made; `fd` is an NT handle of it.

    A payload that is shared by KMT number has no handle: `fd` is -1.
    """

    handle_type: int
    """What the driver is told that it is (VkExternalMemoryHandleTypeFlagBits)."""
    number: int = 0
    """Its KMT number; 0 for one that NT handles lead to."""
    name: str | None = None
    """The name that it was opened by, as the program said it; None for an import by handle or number."""
    export_types: int = 0
    """What it is exported as again, where the import says that, too."""
    terms: Any = None
    """On which terms (`ShareTerms`)."""


class Imported(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A new memory object on a shared payload.

    Ownership: `memory` until `Manager.free`, `payload` until its `close`. `descriptor` is the exporter's word, to be
    parsed as a stranger's. `name` is the full path, None if there is none; `object` or `kmt` is 0 where there is none.
    `kind` is what the payload's descriptor is (`broker.limits.Kind`); `capacity` the bytes of a host payload's sealed
    file, as the broker found them, and 0 for others. `identity` is what the
    exporter told it apart by.
    """

    memory: int
    payload: PayloadFd
    object: int
    granted: int
    descriptor: bytes
    kmt: int
    name: str | None
    kind: int = 1
    capacity: int = 0
    identity: int = 0
