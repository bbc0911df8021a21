"""The host device: memory that any machine has. This module picks what the platform offers.

Linux has sealed memory files, Windows has section objects. Other platforms have no host device, and `offers` returns
none there.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from extmem.devices.host import late
from extmem.devices.host.handle_types import HAS_FDS
from extmem.errors import UnsupportedError
from extmem.owning import late_imports

if TYPE_CHECKING:
    from extmem.devices.backend import Offer
    from extmem.devices.host.system import FileMapping
    from extmem.devices.types import ExaminedFd

__all__ = ["HAS_FDS", "RANK", "examine_fd", "identity_of", "map_file", "offers", "range_is_mapped"]

RANK = 50
"""After every GPU, before a processor that poses as one."""

if sys.platform in ("linux", "win32"):

    def offers() -> list[Offer]:
        """The host device of this machine."""
        with late_imports():
            from extmem.devices.backend import Offer
            from extmem.devices.host.backend import HostBackend
            from extmem.devices.host.physical import host_identity

        return [Offer("host", host_identity(), RANK, HostBackend, HostBackend)]

    def map_file(fd: int, size: int, writable: bool = True) -> FileMapping:
        """Map a host payload's first `size` bytes. Errors: OSError."""
        return late.system.map_file(fd, size, writable)

    def identity_of(fd: int) -> tuple[int, int] | None:
        """(st_dev, st_ino) of a host payload's file; None on Windows, where handles are compared."""
        return late.system.identity_of(fd)

    def examine_fd(fd: int) -> ExaminedFd:
        """Return what an fd is, and whether it is a host payload's. It is not changed."""
        return late.system.examine(fd)

    def range_is_mapped(address: int, size: int) -> bool:
        """Whether every byte of [address, address + size) is mapped in this process, readable and writable.

        Errors: OutOfMemoryError if there is no descriptor left to find out.
        """
        return late.system.range_is_mapped(address, size)

else:

    def offers() -> list[Offer]:
        """No devices: this platform has no host device."""
        return []

    def map_file(fd: int, size: int, writable: bool = True) -> FileMapping:
        """Raise UnsupportedError: this platform has no host payloads."""
        raise UnsupportedError(
            "host payloads need Linux's memory files or Windows's sections", requires_one_of=["Linux", "Windows"]
        )

    def identity_of(fd: int) -> tuple[int, int] | None:
        """None: this platform has no host payloads."""
        return None

    def examine_fd(fd: int) -> ExaminedFd:
        """Return that no fd is a host payload's on this platform."""
        with late_imports():
            from extmem.devices.types import ExaminedFd
            from extmem.vk.handle_types import OPAQUE_FD

        return ExaminedFd(fd, OPAQUE_FD, "other", f"fd {fd} leads to no host payload: there are none on this platform")

    def range_is_mapped(address: int, size: int) -> bool:
        """True for every range: this platform has no way to find out, so the driver has to refuse."""
        return address > 0 and size > 0
