"""The one door to the object manager: the Windows kernel, or on Linux the broker, started on demand.

`manager()` gives this process's manager; nothing connects or starts before its first call. `Manager` is the same class of
calls on every system.
"""

from __future__ import annotations

import sys

from extmem.errors import UnsupportedError

if sys.platform == "linux":
    from extmem.manager._linux import BrokerStatus, Exported, Imported, Manager, PayloadFd, PayloadRow, manager
else:
    raise UnsupportedError(
        f"no object manager for {sys.platform} is in this version of extmem: names, NT handles and KMT handles work on Linux",
        requires_one_of=["Linux"],
    )

__all__ = ["BrokerStatus", "Exported", "Imported", "Manager", "PayloadFd", "PayloadRow", "manager"]
