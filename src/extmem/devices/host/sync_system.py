"""The system's part of the host's semaphores and fences. This module selects it.

Linux has sealed memory files with futexes, and eventfds; Windows has sections with events, and kernel objects.
"""

from __future__ import annotations

import sys

__all__ = [
    "HostBinarySemaphore",
    "HostFence",
    "HostTimeline",
    "deadline_after",
    "examine",
    "wait_fences",
    "wait_timelines",
]

if sys.platform == "win32":
    from extmem.devices.host.windows_sync import (
        HostBinarySemaphore,
        HostFence,
        HostTimeline,
        deadline_after,
        examine,
        wait_fences,
        wait_timelines,
    )
else:
    from extmem.devices.host.event_fence import HostFence, wait_fences
    from extmem.devices.host.event_semaphore import HostBinarySemaphore
    from extmem.devices.host.sync_check import examine
    from extmem.devices.host.timeline_page import deadline_after
    from extmem.devices.host.timeline_semaphore import HostTimeline, wait_timelines
