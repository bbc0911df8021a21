"""The host device: memory that any machine has. This module picks what the platform offers.

Linux has sealed memory files, which is all that the device needs. Elsewhere there is none yet, and `drivers` says so by
returning nothing.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from extmem.devices.base import Driver

__all__ = ["drivers"]

if sys.platform == "linux":

    def drivers() -> list[Driver]:
        """The host devices of this machine."""
        from extmem.devices.host.driver import HostDriver

        return [HostDriver()]

else:

    def drivers() -> list[Driver]:
        """The host devices of this machine: none on this platform."""
        return []
