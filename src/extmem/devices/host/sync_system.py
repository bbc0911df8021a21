"""The system's part of the host's semaphores and fences. This module selects it.

Linux has sealed memory files with futexes, and eventfds; Windows has sections with events, and kernel objects.
"""

from __future__ import annotations

import sys
from typing import Any

__all__ = [
    "SLICE_NS",
    "Alarm",
    "Event",
    "PageSleep",
    "TimelinePage",
    "copy_of_page",
    "create_companion_page",
    "create_page",
    "examine",
    "examine_timeline",
    "lease_of",
    "open_page",
    "sleep_on_pages",
    "wait_events",
    "waits_of_loop",
]

if sys.platform == "win32":
    from extmem.devices.host.windows_event import Event, wait_events
    from extmem.devices.host.windows_lease import lease_of
    from extmem.devices.host.windows_page_sleep import SLICE_NS, Alarm, PageSleep
    from extmem.devices.host.windows_sync_check import examine, examine_timeline
    from extmem.devices.host.windows_timeline_page import (
        TimelinePage,
        copy_of_page,
        create_companion_page,
        create_page,
        open_page,
        sleep_on_pages,
    )

    def waits_of_loop(loop: object) -> Any:
        """Return None: an event loop of Windows polls nothing that a signal of a page completes."""
        return None

else:
    from extmem.devices.fd_copies import copy_of as copy_of_page
    from extmem.devices.host.event import Event, wait_events
    from extmem.devices.host.page_sleep import SLICE_NS, Alarm, PageSleep
    from extmem.devices.host.ring_waits import waits_of_loop
    from extmem.devices.host.sync_check import examine, examine_timeline
    from extmem.devices.host.timeline_page import (
        TimelinePage,
        create_companion_page,
        create_page,
        open_page,
        sleep_on_pages,
    )

    def lease_of(page: object) -> Any:
        """Return None: the broker gives the leases."""
        return None
