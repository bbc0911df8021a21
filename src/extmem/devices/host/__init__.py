"""The host device: memory that any machine has. This module picks what the platform offers.

Linux has sealed memory files, which is all that the device needs. Elsewhere there is none yet, and `offers` says so by
returning nothing.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from extmem.errors import UnsupportedError

if TYPE_CHECKING:
    from extmem.devices.base import Mapping, Offer

__all__ = ["RANK", "map_file", "offers", "range_is_mapped"]

RANK = 50
"""After every GPU, before a processor that poses as one."""

if sys.platform == "linux":

    def offers() -> list[Offer]:
        """The host device of this machine."""
        from extmem.devices.base import Offer
        from extmem.devices.host.driver import HostDriver
        from extmem.devices.host.identity import host_identity

        return [Offer("host", host_identity(), RANK, HostDriver, HostDriver)]

    def map_file(fd: int, size: int, writable: bool = True) -> Mapping:
        """A mapping of a host payload's first `size` bytes. Errors: OSError."""
        from extmem.devices.host import _mapping

        return _mapping.map_file(fd, size, writable)

    def range_is_mapped(address: int, size: int) -> bool:
        """Whether every byte of [address, address + size) is mapped here, readable and writable."""
        from extmem.devices.host import _mapping

        return _mapping.range_is_mapped(address, size)

else:

    def offers() -> list[Offer]:
        """The host device of this machine: none on this platform."""
        return []

    def map_file(fd: int, size: int, writable: bool = True) -> Mapping:
        """There is no host payload on this platform yet."""
        raise UnsupportedError("host payloads need Linux's memory files", requires_one_of=["Linux"])

    def range_is_mapped(address: int, size: int) -> bool:
        """Whether [address, address + size) is mapped here: unknown on this platform, so the driver has to say."""
        return address > 0 and size > 0
