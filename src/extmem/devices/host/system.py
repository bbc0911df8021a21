"""The system's part of the host device: memory files on Linux, section objects on Windows. This module selects it."""

from __future__ import annotations

import sys

__all__ = [
    "PAGE",
    "FileMapping",
    "boot",
    "control_page_at",
    "create",
    "duplicate",
    "examine",
    "identity_of",
    "is_sealed",
    "map_file",
    "range_is_mapped",
    "seal",
    "total_memory",
]

if sys.platform == "win32":
    from extmem.devices.host.boot import boot
    from extmem.devices.host.section import (
        PAGE,
        control_page_at,
        create,
        duplicate,
        examine,
        identity_of,
        is_sealed,
        seal,
        total_memory,
    )
    from extmem.devices.host.windows_mapping import FileMapping, map_file, range_is_mapped
else:
    from extmem.devices.host.fd_check import examine, identity_of
    from extmem.devices.host.mapping import FileMapping, map_file, range_is_mapped
    from extmem.devices.host.memfd import PAGE, control_page_at, create, duplicate, is_sealed, seal
    from extmem.devices.host.reserve import boot, total_memory
