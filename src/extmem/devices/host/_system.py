"""What the host device's payloads are made of: memory files on Linux, section objects on Windows. Picked here, once."""

from __future__ import annotations

import sys

__all__ = [
    "PAGE",
    "FileMapping",
    "boot",
    "create",
    "duplicate",
    "identity_of",
    "inspect",
    "map_file",
    "physical",
    "range_is_mapped",
]

if sys.platform == "win32":
    from extmem.devices.host._boot import boot
    from extmem.devices.host._section import PAGE, create, duplicate, identity_of, inspect, physical
    from extmem.devices.host._view import FileMapping, map_file, range_is_mapped
else:
    from extmem.devices.host._inspect import identity_of, inspect
    from extmem.devices.host._mapping import FileMapping, map_file, range_is_mapped
    from extmem.devices.host._memfd import PAGE, create, duplicate
    from extmem.devices.host._reserve import boot, physical
