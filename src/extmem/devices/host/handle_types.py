"""The handle types of the host device's payloads on this platform."""

from __future__ import annotations

import sys

__all__ = ["HAS_FDS"]

HAS_FDS = sys.platform != "win32"
"""Whether payloads can be shared by file descriptor."""
