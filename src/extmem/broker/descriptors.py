"""A payload's descriptor in this process: one open file, however many imports use it."""

from __future__ import annotations

import os

from extmem.errors import HandleStateError

__all__ = ["PayloadFd", "SharedFd"]


class SharedFd:
    """Owner of a descriptor: closes it when the last reference goes."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


class PayloadFd:
    """One import's hold on its payload's descriptor.

    Ownership: `fd` is borrowed, valid until `close` (or the loss of this object); other imports of the payload in this
    process may share it.
    """

    __slots__ = ("_shared", "writable")

    def __init__(self, shared: SharedFd, writable: bool) -> None:
        self._shared: SharedFd | None = shared
        self.writable = writable
        """Whether it was opened for writing: the kernel refuses writable mappings otherwise (host payloads)."""

    @property
    def fd(self) -> int:
        """The descriptor, to be used but not closed. HandleStateError once closed."""
        if self._shared is None:
            raise HandleStateError("this payload's descriptor is closed; import the payload again")
        return self._shared.fd

    def fileno(self) -> int:
        """`fd`, under the name that `os` functions look for."""
        return self.fd

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._shared is None

    def close(self) -> None:
        """Let go. Safe to call twice."""
        self._shared = None

    def __repr__(self) -> str:
        state = "closed" if self._shared is None else f"fd {self._shared.fd}"
        return f"<PayloadFd {state}, {'writable' if self.writable else 'read-only'}>"
