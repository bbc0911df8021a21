"""What differs between the two object managers, by the number of the behaviour that it concerns.

On Linux the object manager is the broker, on Windows the kernel, and some tests run on a kernel that imitates Windows's
(Wine) and differs from it. Such a test is marked here with the reason; no test is weakened for Windows itself.
"""

from __future__ import annotations

import os
import sys

import pytest

from extmem.manager.windows.names import session_directory
from extmem.vk import ExternalMemoryHandleTypeFlagBits

WINDOWS = sys.platform == "win32"


def _session() -> int:
    if sys.platform != "win32":
        return 1
    from extmem.handles._win32 import calls

    return calls.session(os.getpid())


SESSION = _session()
"""The session that names belong to; for a user's broker it is 1."""
DIRECTORY = session_directory(SESSION)
"""The directory of names, with the last backslash."""


TYPE_NAME = "Section" if WINDOWS else "DxgkSharedResource"
"""The type that NtQueryObject returns for the object of a host payload."""

_W32 = ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32
_FD = ExternalMemoryHandleTypeFlagBits.OPAQUE_FD
W32_AND_FD = _W32 if WINDOWS else _W32 | _FD
"""NT handles, and fds where the system has them."""
FD_TYPES = [] if WINDOWS else [_FD]

by_fd = pytest.mark.linux_only("file descriptors carry memory on Linux alone")
one_name_for_life = pytest.mark.linux_only(
    "a section has one name for life: what was imported on Windows is not exported again"
)
