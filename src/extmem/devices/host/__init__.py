"""The host device: memory that any machine has. This module picks what the platform offers.

Linux has sealed memory files, Windows has section objects. Elsewhere there is nothing yet, and `offers` says so by
returning nothing.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from extmem.errors import UnsupportedError
from extmem.owning import late_imports

if TYPE_CHECKING:
    from extmem.devices.backend import FdFacts, Offer
    from extmem.devices.host import images as images
    from extmem.devices.host import recording as recording
    from extmem.devices.host.system import FileMapping

__all__ = ["HAS_FDS", "RANK", "identity_of", "inspect", "map_file", "offers", "range_is_mapped"]

RANK = 50
"""After every GPU, before a processor that poses as one."""

HAS_FDS = sys.platform != "win32"
"""Whether payloads can be shared by file descriptor."""

_LATER = ("images", "recording")
"""Modules that are imported when they are first used, not when the device is opened: buffers and images."""

if not TYPE_CHECKING:  # a type checker would take this to mean that every name exists

    def __getattr__(name: str) -> object:
        if name not in _LATER:
            raise AttributeError(f"module 'extmem.devices.host' has no attribute {name!r}")
        import importlib

        return importlib.import_module(f"extmem.devices.host.{name}")


if sys.platform in ("linux", "win32"):

    def offers() -> list[Offer]:
        """The host device of this machine."""
        with late_imports():
            from extmem.devices.backend import Offer
            from extmem.devices.host.backend import HostBackend
            from extmem.devices.host.identity import host_identity

        return [Offer("host", host_identity(), RANK, HostBackend, HostBackend)]

    def map_file(fd: int, size: int, writable: bool = True) -> FileMapping:
        """A mapping of a host payload's first `size` bytes. Errors: OSError."""
        with late_imports():
            from extmem.devices.host import system

        return system.map_file(fd, size, writable)

    def identity_of(fd: int) -> tuple[int, int] | None:
        """What tells a host payload's file from others; None on Windows, where handles are compared."""
        with late_imports():
            from extmem.devices.host import system

        return system.identity_of(fd)

    def inspect(fd: int) -> FdFacts:
        """What an fd is, and whether it is a host payload's. It is left as it is."""
        with late_imports():
            from extmem.devices.host import system

        return system.inspect(fd)

    def range_is_mapped(address: int, size: int) -> bool:
        """Whether every byte of [address, address + size) is mapped here, readable and writable, and there.

        Errors: OutOfMemoryError without a descriptor to look.
        """
        with late_imports():
            from extmem.devices.host import system

        return system.range_is_mapped(address, size)

else:

    def offers() -> list[Offer]:
        """The host device of this machine: none on this platform."""
        return []

    def map_file(fd: int, size: int, writable: bool = True) -> FileMapping:
        """There is no host payload on this platform yet."""
        raise UnsupportedError(
            "host payloads need Linux's memory files or Windows's sections", requires_one_of=["Linux", "Windows"]
        )

    def identity_of(fd: int) -> tuple[int, int] | None:
        """None: there are no host payloads."""
        return None

    def inspect(fd: int) -> FdFacts:
        """No fd is a host payload's on this platform."""
        from extmem.devices.backend import FdFacts

        return FdFacts("other", f"fd {fd} leads to no host payload: there are none on this platform")

    def range_is_mapped(address: int, size: int) -> bool:
        """Whether [address, address + size) is mapped here: unknown on this platform, so the driver has to say."""
        return address > 0 and size > 0
