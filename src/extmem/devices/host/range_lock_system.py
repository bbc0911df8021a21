"""The system's locks of ranges, which end with their process. This module selects them.

Of a file's bytes on Linux, by names of kernel objects on Windows.
"""

from __future__ import annotations

import sys

__all__ = ["Range", "RangeLocks"]

if sys.platform == "win32":
    from extmem.devices.host.windows_range_locks import Range, RangeLocks
else:
    from extmem.devices.host.range_locks import Range, RangeLocks
