"""Memory that another allocator of this process made for a GPU, such as a tensor of PyTorch, shared where it is.

How this works. The device returns the allocations of the driver behind a range of addresses (`WrapsPointers`); each has
a handle, and the payload is the list of them, with the offset of the range. No byte is copied. The memory is lent:
`host.loans` keeps the tensor until nobody has the payload any more. A reader can see each allocation from its beginning
on, and so what else the allocator has in the first and in the last one.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import msgspec

from extmem.core import companion_pages, describing, exporting
from extmem.core.companion_pages import CompanionPages
from extmem.core.device_state import DeviceState
from extmem.core.memory_record import HeldMemory, MemoryRecord
from extmem.core.sharing_arrays import How
from extmem.devices.host import HAS_FDS
from extmem.devices.optional_protocols import WrapsPointers
from extmem.errors import UnsupportedError
from extmem.handles import Access
from extmem.manager import ShareTerms
from extmem.objects import Share
from extmem.owning import late_imports, require_fds
from extmem.sharing.descriptor import ArrayInfo
from extmem.sharing.kinds import PageRole
from extmem.vk.handle_types import OPAQUE_WIN32

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["share_range"]

_SPARE_FDS = 8


def share_range(
    device: DeviceState,
    address: int,
    size: int,
    array: ArrayInfo,
    values: object,
    how: How,
    moved: Callable[[], str],
) -> HeldMemory:
    """Share `size` bytes of this device from `address` on, where they are. Return memory of them.

    array: the array in them. values: what keeps the mapping and the contents; kept until nobody has the payload any
    more. The caller has waited for the work that writes them. moved: see `MemoryRecord.moved`.
    Errors: UnsupportedError, with the reason and what helps, for memory that the driver cannot export, and on Windows;
    those of the name; OutOfMemoryError, also for too few file descriptors.
    """
    if not HAS_FDS:
        raise UnsupportedError(
            "memory of other allocators is shared where it is on Linux, where a payload can have several handles; copy "
            "it into memory of extmem's",
            requires_one_of=["Linux", "memory allocated by extmem"],
        )
    backend = device.backend
    if not isinstance(backend, WrapsPointers):
        raise UnsupportedError(f"{device.name} is not a CUDA device", requires_one_of=["a CUDA device"])
    with late_imports():
        from extmem.devices.host import loans

    with device.use():
        allocation: Any = backend.wrap_range(address, size)
        pages = None
        try:
            count = len(allocation.parts) or 1
            # Each is exported, and copied for a broker that replaces the present one; some are for what runs meanwhile.
            require_fds(2 * count + _SPARE_FDS, f"memory of {count} allocations")
            rights, attributes = exporting.high_level_access(how.access, how.name)
            counted = companion_pages.counting()
            pages = CompanionPages.of([*counted.owners(), (PageRole.LIFELINE, loans.lend(values), True)])
            # Not by bare fd: that has no companion pages, so nobody would know when its holder has ended.
            types = OPAQUE_WIN32
            described = describing.describe(
                device,
                allocation.size,
                0,
                types,
                None,
                payload_size=size,
                array=array,
                read_only=not rights & (Access.WRITE | Access.ALL),
                pages=pages.roles,
            )
            descriptor = msgspec.structs.replace(
                described,
                payload_offset=address - allocation.pointer,
                parts=tuple((len(list(run)), size) for size, run in groupby(allocation.parts)),
            )
            record = MemoryRecord(
                device, allocation, descriptor, allocation.size, 0, export_handle_types=types, pages=pages
            )
        except BaseException:
            allocation.close()
            if pages is not None:
                pages.close()  # else what is lent would be kept as long as the traceback
            raise
        try:
            sddl = attributes.security_descriptor if attributes is not None else None
            exporting.publish(
                record,
                ShareTerms(
                    Share.NT,
                    how.name,
                    sddl,  # type: ignore[arg-type]
                    rights,
                    stated=True,
                    replace=how.replace,
                    keep=how.keep,
                ),
            )
        except BaseException:
            record.end()
            raise
        record.moved = moved
        return HeldMemory(record, record.hold())
