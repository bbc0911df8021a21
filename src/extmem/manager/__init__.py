"""The interface to the object manager: the Windows kernel, or on Linux the broker, which is started on demand.

`manager()` returns this process's manager. It connects, and starts a broker, at its first request.
"""

from __future__ import annotations

import sys

from extmem.errors import UnsupportedError
from extmem.manager.api import BrokerStatus, Lease, Manager, NameWait, Reference, held_number
from extmem.sharing.kinds import Backing
from extmem.sharing.payload import PayloadFd
from extmem.sharing.terms import Exported, Imported, ShareTerms

__all__ = [
    "INHERIT_VARIABLE",
    "BrokerStatus",
    "Exported",
    "Imported",
    "Backing",
    "Manager",
    "Lease",
    "NameWait",
    "PayloadFd",
    "Reference",
    "ShareTerms",
    "held_number",
    "manager",
    "process_name",
    "start_time",
]

if sys.platform == "linux":
    from extmem.manager.linux.client import INHERIT_VARIABLE
    from extmem.manager.linux.manager import manager, process_name
    from extmem.wire.process_start import start_time
elif sys.platform == "win32":
    from extmem.manager.windows.manager import manager
    from extmem.manager.windows.processes import process_name, start_time

    INHERIT_VARIABLE = ""
else:
    from extmem.wire.process_start import start_time

    INHERIT_VARIABLE = "EXTMEM_INHERIT_FD"

    def process_name(pid: int) -> str:
        """Return the name of a process: empty, as it is not known on this system."""
        return ""

    def manager() -> Manager:
        """Raise UnsupportedError: this version of extmem has no object manager for this system."""
        raise UnsupportedError(
            f"this version of extmem has no object manager for {sys.platform}, so there are no names, NT handles or "
            "KMT handles; file descriptors and memory of one process work",
            requires_one_of=["Linux", "Windows"],
        )
