"""Where resources lie, so that commands on memory that overlaps are known: also in two memory objects of one payload.

What is known: memory objects of one payload that extmem exported, by name, handle, number or an `FdHandle`; memory
files of the host; host memory that was imported by its address; and a VkDeviceMemory that was adopted twice. Of a bare
fd, and of what other programs exported, nobody can tell which payload it leads to.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from extmem import rules

if TYPE_CHECKING:
    from extmem.core.memory_record import MemoryRecord

__all__ = ["place_of"]


def place_of(record: MemoryRecord, offset: int) -> rules.Place:
    """The place of byte `offset` of a memory object. Errors: HandleStateError for memory that is closed."""
    allocation = record.allocation
    found: dict[Hashable, int] = {("memory object", id(record)): 0}
    identity = record.identity or allocation.stated_identity
    if identity:
        found["payload", identity] = 0
    if record.object_id:
        found["object", record.object_id] = 0
    if record.kmt:
        found["number", record.kmt] = 0
    file = allocation.identity
    if file is not None:
        found["file", file] = 0
    raw = getattr(allocation, "raw", 0)
    if raw:
        found["device memory", raw] = 0
    address = getattr(allocation, "address", 0)
    if address:
        found["addresses of this process"] = address
    return rules.Place(found, offset)
