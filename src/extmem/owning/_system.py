"""The calls of the system that owners of descriptors need. Imports the module of this system."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    from extmem.owning._win32 import FIRST, FIRST_NATIVE, close_native, duplicating, fds_in_use
else:
    from extmem.owning._linux import FIRST, FIRST_NATIVE, close_native, duplicating, fds_in_use

__all__ = ["FIRST", "FIRST_NATIVE", "close_native", "duplicating", "fds_in_use"]
