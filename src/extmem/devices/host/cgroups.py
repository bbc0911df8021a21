"""The memory limits of this process's control groups, of both versions.

How this works. `/proc/self/cgroup` has the group of each hierarchy, `/proc/self/mountinfo` the place where the
hierarchy is mounted: a container often sees only a part of it. A limit of any group above applies too. Version 2 (one
hierarchy) has `memory.max`, and a separate limit of swap; version 1 has `memory.limit_in_bytes` and, if swap is
counted, a limit of both together. A hybrid machine has both hierarchies, and the memory controller in one of them. If
the upper groups cannot be seen, `memory.stat` of the lowest one has the tightest of their limits.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from extmem.owning import OwnedFd

if sys.platform != "linux":
    raise ImportError("memory files are Linux's; extmem.devices.host picks what the platform has")

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Group", "groups", "text_of"]

_NO_LIMIT = 1 << 60
"""Bytes. Version 1 has the largest whole number of pages in place of no limit."""


class Group(msgspec.Struct, frozen=True):
    """What one control group leaves, in bytes."""

    name: str
    limit: int
    """Of memory."""
    left: int
    """Of memory; what the kernel drops before it refuses is counted as left."""
    swap: int | None
    """Of swap, besides; None: as much as the machine has."""
    total: int | None
    """Of memory and swap together; None: no limit."""

    def room(self, swap_of_the_machine: int) -> int:
        """Bytes that may still be taken."""
        swap = swap_of_the_machine if self.swap is None else min(self.swap, swap_of_the_machine)
        room = self.left + swap
        return room if self.total is None else min(room, self.total)


def groups(root: Path | str) -> Iterator[Group]:
    """This process's groups that limit memory, and those above them, as far as they are visible below `root`."""
    for line in text_of(f"{root}/proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, own = rest.partition(":")
        if number == "0" and not controllers:
            read, version = _version_2, 2
        elif "memory" in controllers.split(","):
            read, version = _version_1, 1
        else:
            continue
        for seen, mount in _mounts(root)[version]:
            for path in _upwards(own, seen, mount):
                found = read(path, seen == "/")
                if found is not None:
                    yield found


@functools.lru_cache(maxsize=4)
def _mounts(root: Path | str) -> dict[int, list[tuple[str, str]]]:
    """Where the hierarchies with memory limits are mounted, by version: the group that is seen there, and the path."""
    found: dict[int, list[tuple[str, str]]] = {1: [], 2: []}
    for line in text_of(f"{root}/proc/self/mountinfo").splitlines():
        front, _, back = line.partition(" - ")
        fields, kind = front.split(" "), back.split(" ")
        if len(fields) < 5 or len(kind) < 3:
            continue
        place = (_unescaped(fields[3]), os.path.join(root, _unescaped(fields[4]).lstrip("/")))
        if kind[0] == "cgroup2":
            found[2].append(place)
        elif kind[0] == "cgroup" and "memory" in kind[2].split(","):
            found[1].append(place)
    if not found[1] and not found[2]:
        return {1: [("/", f"{root}/sys/fs/cgroup/memory")], 2: [("/", f"{root}/sys/fs/cgroup")]}
    return found


def _unescaped(field: str) -> str:
    return field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")


def _upwards(own: str, seen: str, mount: str) -> Iterator[str]:
    """The group's directory and those above it. Nothing for a group that the mount does not show."""
    if ".." in own.split("/") or (own != seen and not own.startswith(seen.rstrip("/") + "/")):
        return
    inner = [part for part in own.removeprefix(seen).split("/") if part]
    for count in range(len(inner), -1, -1):
        yield "/".join([mount, *inner[:count]])


def _version_2(group: str, all_seen: bool) -> Group | None:
    limit = _number(f"{group}/memory.max")
    used = None if limit is None else _number(f"{group}/memory.current")
    if limit is None or used is None:
        return None
    left = max(0, limit - used + _statistics(group).get("inactive_file", 0))
    most, swapped = _number(f"{group}/memory.swap.max"), _number(f"{group}/memory.swap.current")
    return Group(_name(group), limit, left, None if most is None else max(0, most - (swapped or 0)), None)


def _version_1(group: str, all_seen: bool) -> Group | None:
    limit, both = _number(f"{group}/memory.limit_in_bytes"), _number(f"{group}/memory.memsw.limit_in_bytes")
    if limit is None or (all_seen and min(limit, limit if both is None else both) >= _NO_LIMIT):
        return None
    statistics = _statistics(group)
    limit = min(limit, statistics.get("hierarchical_memory_limit", limit))
    if both is not None:
        both = min(both, statistics.get("hierarchical_memsw_limit", both))
    if min(limit, limit if both is None else both) >= _NO_LIMIT:
        return None
    droppable = statistics.get("total_inactive_file", statistics.get("inactive_file", 0))
    left = max(0, limit - (_number(f"{group}/memory.usage_in_bytes") or 0) + droppable)
    total = None
    if both is not None and both < _NO_LIMIT:
        total = max(0, both - (_number(f"{group}/memory.memsw.usage_in_bytes") or 0) + droppable)
    return Group(_name(group), limit, left, None, total)


def _name(group: str) -> str:
    return os.path.basename(group) or "/"


def _statistics(group: str) -> dict[str, int]:
    pairs = (line.split(" ", 1) for line in text_of(f"{group}/memory.stat").splitlines() if " " in line)
    return {key: int(value) for key, value in pairs if value.isdigit()}


def _number(path: str) -> int | None:
    text = text_of(path)
    return int(text) if text.isdigit() else None


def text_of(path: str) -> str:
    """Return the text of a file of the kernel, stripped; empty if there is no such file."""
    octets = b""
    try:
        opened = OwnedFd.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while piece := os.read(opened.fd, 65_536):
                octets += piece
        finally:
            opened.close()
    except OSError:
        return ""
    return octets.decode("utf-8", "replace").strip()
