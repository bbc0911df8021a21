"""`SharedSync`: how a driver's semaphores and fences are shared on this system. This module selects it."""

from __future__ import annotations

import sys

__all__ = ["SharedSync"]

if sys.platform == "win32":
    from extmem.devices.vulkan.sync_win32 import Win32Sync as SharedSync
else:
    from extmem.devices.vulkan.sync_objects import VulkanSync as SharedSync
