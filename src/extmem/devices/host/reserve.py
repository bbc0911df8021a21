"""Reservation of memory for a payload at its allocation, so that a lack of it is an error, and not a SIGBUS later.

How this works. A memory file is sparse: its pages are allocated at their first access, and if the machine is out of
memory then, the process is killed. posix_fallocate allocates the pages at once, 0.25 s for each GiB. The kernel has no
limit for memory files and would call its OOM killer rather than refuse. So requests from `_CHECKED_FROM` bytes on are
first compared with what the machine and the control groups of this process have left, and again before each step: of
two processes that reserve at the same time, neither takes the memory that the other one needs.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from extmem.devices.host import cgroups

if sys.platform != "linux":
    raise ImportError("memory files are Linux's; extmem.devices.host picks what the platform has")

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["available", "boot", "total_memory", "reserve"]

_CHECKED_FROM = 1 << 20
_STEP = 256 << 20
_ROOT = "/"


def reserve(fd: int, size: int) -> None:
    """Allocate `size` bytes of memory for the file. Errors: MemoryError; OSError of posix_fallocate."""
    done = 0
    while done < size:
        if size >= _CHECKED_FROM:
            left, limited_by = available()
            if size - done > left:
                raise MemoryError(f"{size - done} more bytes are needed and {limited_by} has {left} left")
        step = min(_STEP, size - done)
        os.posix_fallocate(fd, done, step)
        done += step


def boot(root: Path | str = _ROOT) -> tuple[str, ...]:
    """Words that are equal in every process of this boot of this machine, and only there; none without /proc."""
    random = cgroups.text_of(f"{root}/proc/sys/kernel/random/boot_id")
    if random:
        return (random,)
    machine = cgroups.text_of(f"{root}/etc/machine-id")
    started = next(
        (line for line in cgroups.text_of(f"{root}/proc/stat").splitlines() if line.startswith("btime ")), ""
    )
    return ("machine", machine, started) if machine and started else ()


def total_memory(root: Path | str = _ROOT) -> int:
    """Bytes of memory that this process can have at most: the machine's, or its control group's limit."""
    machine = _meminfo(root).get("MemTotal", 0)
    limits = [group.limit for group in cgroups.groups(root)]
    return min([machine, *limits]) if machine else min(limits, default=1 << 62)


def available(root: Path | str = _ROOT) -> tuple[int, str]:
    """Bytes of memory that are left, and what limits them. Swap counts, and so do pages that can be dropped."""
    info = _meminfo(root)
    swap = info.get("SwapFree", 0)
    rooms = [(info["MemAvailable"] + swap, "the machine")] if "MemAvailable" in info else []
    rooms += [(group.room(swap), f"control group {group.name}") for group in cgroups.groups(root)]
    return min(rooms, default=(1 << 62, "the machine"))


def _meminfo(root: Path | str) -> dict[str, int]:
    values = {}
    for line in cgroups.text_of(f"{root}/proc/meminfo").splitlines():
        key, _, rest = line.partition(":")
        if key in ("MemTotal", "MemAvailable", "SwapFree"):
            values[key] = int(rest.split()[0]) << 10
    return values
