"""The system's byte-range locks, which end with their process. This module selects them."""

from __future__ import annotations

import sys

__all__ = ["Range", "RangeLocks", "create", "reopen"]

if sys.platform == "win32":
    from extmem.devices.host.windows_range_locks import Range, RangeLocks, create, reopen
else:
    from extmem.devices.host.range_locks import Range, RangeLocks, create, reopen
