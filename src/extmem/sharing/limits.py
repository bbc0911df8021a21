"""Limits of what travels with a payload."""

from __future__ import annotations

from typing import Final

__all__ = [
    "AXES_LIMIT",
    "DESCRIPTOR_LIMIT",
    "FRAME_AFTER_CONTROL_PAGE",
    "HANDLES_LIMIT",
    "PAGES_LIMIT",
    "PARTS_LIMIT",
    "SIZE_LIMIT",
]

AXES_LIMIT = 64
"""The largest number of axes of an array, which is that of NumPy."""
HANDLES_LIMIT: Final = 4_096
"""The largest number of handles of a payload, its companion pages included."""
PARTS_LIMIT = 64
"""The largest number of runs of equal allocations that a payload consists of."""
PAGES_LIMIT: Final = 8
"""The largest number of companion pages of a payload."""
SIZE_LIMIT = (1 << 63) - (1 << 21)
"""The largest number of bytes of an array: its allocation, rounded up to pages, has a signed 64-bit size."""

DESCRIPTOR_LIMIT = 4080
"""The longest descriptor in bytes: with its 16-byte frame it fits the 4 KiB that a payload keeps for it."""

FRAME_AFTER_CONTROL_PAGE = b"EXTMEM\x00\x02"
"""The first bytes of the frame around a descriptor in a file, where the page before it is a control page."""
