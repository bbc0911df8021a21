"""What differs between the two object managers, by the number of the behaviour that it concerns.

Linux's is the broker, Windows's is the kernel, and some tests run on a kernel that poses as Windows's (Wine) and is
not. A test is marked here with the reason; it is never weakened for Windows itself.
"""

from __future__ import annotations

import os
import sys

import pytest

from extmem.manager.windows.names import directory
from extmem.vk import ExternalMemoryHandleTypeFlagBits

WINDOWS = sys.platform == "win32"


def _session() -> int:
    if sys.platform != "win32":
        return 1
    from extmem.handles._win32 import calls

    return calls.session(os.getpid())


SESSION = _session()
"""The session that names are in: a user's broker is one."""
DIRECTORY = directory(SESSION)
"""Its directory of names, with the last backslash."""


TYPE_NAME = "Section" if WINDOWS else "DxgkSharedResource"
"""What NtQueryObject says of a host payload's object."""

_W32 = ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32
_FD = ExternalMemoryHandleTypeFlagBits.OPAQUE_FD
W32_AND_FD = _W32 if WINDOWS else _W32 | _FD
"""NT handles, and fds where there are any."""
FD_TYPES = [] if WINDOWS else [_FD]

by_fd = pytest.mark.linux_only("file descriptors carry memory on Linux alone")
one_name_for_life = pytest.mark.linux_only(
    "a section has one name for life: what was imported on Windows is not exported again"
)
