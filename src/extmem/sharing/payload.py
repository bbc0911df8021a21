"""A payload's descriptor in this process: one open file, however many imports use it.

On Windows a payload's descriptor is the HANDLE of its section.
"""

from __future__ import annotations

from extmem.errors import HandleStateError
from extmem.owning import OwnedFd

__all__ = ["PayloadFd", "Win32Payload"]


class PayloadFd:
    """One import's hold on its payload's descriptor.

    Ownership: `fd` is borrowed, valid until `close` (or the loss of this object); other imports of the payload in this
    process may share it.
    """

    __slots__ = ("_hold", "shared", "writable")

    def __init__(self, shared: OwnedFd, writable: bool) -> None:
        self._hold: memoryview | None = shared.hold()
        self.shared: OwnedFd | None = shared
        """The owner; None once closed. Not for users."""
        self.writable = writable
        """Whether it was opened for writing: the kernel refuses writable mappings otherwise (host payloads)."""

    @property
    def fd(self) -> int:
        """The descriptor, to be used but not closed. HandleStateError once closed."""
        shared = self.shared
        if shared is None:
            raise HandleStateError("this payload's descriptor is closed; import the payload again")
        return shared.fd

    def fileno(self) -> int:
        """`fd`, under the name that `os` functions look for."""
        return self.fd

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self.shared is None

    def close(self) -> None:
        """Let go; with the last user the descriptor is lost, and closed. Safe to call twice."""
        self._hold = self.shared = None

    def __repr__(self) -> str:
        state = "closed" if self.shared is None else f"fd {self.shared.fd}"
        return f"<PayloadFd {state}, {'writable' if self.writable else 'read-only'}>"


class Win32Payload(PayloadFd):
    """One import's hold on a payload that a GPU driver of Windows made; `fd` is an NT handle of it.

    A payload that is shared by KMT number has no handle: `fd` is -1.
    """

    __slots__ = ("handle_type", "name", "number")

    def __init__(
        self, shared: OwnedFd, writable: bool, handle_type: int, number: int = 0, name: str | None = None
    ) -> None:
        super().__init__(shared, writable)
        self.handle_type = handle_type
        """What the driver is told that it is (VkExternalMemoryHandleTypeFlagBits)."""
        self.number = number
        """Its KMT number; 0 for one that NT handles lead to."""
        self.name = name
        """The name that it was opened by, as the program said it; None for an import by handle or number."""
