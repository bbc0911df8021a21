"""The system's part of companion pages: sealed memory files on Linux, sections on Windows. This module selects it."""

from __future__ import annotations

import sys

__all__ = ["create_page_file", "page_file_size", "read_page_file"]

if sys.platform == "win32":
    from extmem.devices.host.windows_page_files import create_page_file, page_file_size, read_page_file
else:
    from extmem.devices.host.page_files import create_page_file, page_file_size, read_page_file
