"""The table of the named arrays of a payload in this process: read from its page, checked, and kept with the record."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from extmem.core.companion_pages import CompanionPages
from extmem.core.memory_record import MemoryRecord
from extmem.errors import HandleStateError
from extmem.sharing import table
from extmem.sharing.descriptor import Descriptor
from extmem.sharing.kinds import PageRole
from extmem.sharing.table import Table

__all__ = ["Known", "describes_table", "table_of"]


class Known:
    """A checked table, and its entries by their names."""

    def __init__(self, found: Table) -> None:
        self.table = found
        self.entries = table.by_name(found.entries)

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        """The number of each entry, by its name."""
        return {name: number for number, name in enumerate(self.entries)}


def describes_table(descriptor: Descriptor) -> bool:
    """Return whether a payload with this descriptor holds named arrays."""
    return descriptor.array is None and PageRole.TABLE in descriptor.pages


def table_of(record: MemoryRecord) -> Known:
    """Return the table of a payload, which is read and checked at the first call.

    Errors: DescriptorError for a table that cannot be true; HandleStateError for a payload that came without it.
    """
    pages = record.pages
    if pages is None:
        raise HandleStateError(
            "this memory has no table of arrays: it came by file descriptor, which does not carry the table; open it "
            "by name, NT handle or pickle"
        )
    known: Known | None = pages.table
    if known is None:
        known = pages.table = _read(pages, record.descriptor.payload_size)
    return known


def _read(pages: CompanionPages, payload_size: int) -> Known:
    data = pages.read(PageRole.TABLE, table.TABLE_LIMIT + (1 << 16))
    return Known(table.decode(data, payload_size))
