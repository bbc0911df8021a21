"""The system's waits for timeline pages in asyncio; None where there are none. This module selects it."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["wait_pages_async"]

wait_pages_async: Any = None
"""A coroutine function that waits for (page, value) pairs; None where a thread has to wait."""

if sys.platform == "linux":
    from extmem.devices.host import sync_async

    wait_pages_async = sync_async.wait_pages_async
