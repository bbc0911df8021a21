"""Whether the process may open as many files as a payload of many handles needs."""

from __future__ import annotations

import os
import sys

if sys.platform != "linux":
    raise ImportError("payloads have several file descriptors on Linux alone")

import resource

from extmem.errors import VK_ERROR_TOO_MANY_OBJECTS, OutOfMemoryError

__all__ = ["require"]


def require(count: int, what: str) -> None:
    """Raise OutOfMemoryError if the process may not open `count` files more, with the limit and the need.

    what: words for what needs them. It is known before the first is opened, so that none are in flight in vain.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    opened = len(os.listdir("/proc/self/fd")) - 1  # that of the list itself
    if limit != resource.RLIM_INFINITY and opened + count > limit:
        raise OutOfMemoryError(
            f"{what} needs {count} file descriptors at once, this process has {opened} open, and its limit is {limit}; "
            f"raise the limit to {opened + count} or more (ulimit -n, or resource.setrlimit)",
            result=VK_ERROR_TOO_MANY_OBJECTS,
            command="open",
        )
