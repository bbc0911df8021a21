"""Places of resources, by which commands on overlapping memory are found: also in two memory objects of one payload.

Two memory objects are known to have the same payload if extmem exported it by name, handle, KMT number or `FdHandle`;
for memory files of the host; for host memory imported by its address; and for a VkDeviceMemory that was adopted twice.
The payload of a plain fd, and of an export by another program, cannot be identified.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from extmem import rules

if TYPE_CHECKING:
    from extmem.core.memory_record import MemoryRecord

__all__ = ["place_of"]


def place_of(record: MemoryRecord, offset: int) -> rules.Place:
    """Return the place of byte `offset` of a memory object. Errors: HandleStateError for memory that is closed."""
    allocation = record.allocation
    identities = {
        "memory object": id(record),
        "payload": record.identity or allocation.stated_identity,
        "object": record.object_id,
        "number": record.kmt,
        "file": allocation.identity,
        "device memory": getattr(allocation, "raw", 0),
    }
    first_bytes: dict[Hashable, int] = {item: 0 for item in identities.items() if item[1]}
    address = getattr(allocation, "address", 0)
    if address:
        first_bytes["addresses of this process"] = address
    return rules.Place(first_bytes, offset)
