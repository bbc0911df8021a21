"""Pages of host timelines on the GPU: registered once for each page, and counted.

How this works. A stream waits for a 64-bit word of host memory to reach a value (cuStreamWaitValue64), and writes one
(cuStreamWriteValue64), once the page that has the word is registered (cuMemHostRegister). A page that is mapped for
reading is registered for reading: a stream can then wait, and the GPU cannot write. The page's mapping is held as long
as it is registered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from extmem.errors import UnsupportedError
from extmem.owning import Lock
from extmem.sharing import timeline_page

if TYPE_CHECKING:
    from extmem.devices.cuda.handle_types import TimelinePage
    from extmem.devices.cuda.physical import Gpu

__all__ = ["RegisteredPage", "RegisteredPages"]

_CAN_64_BIT = "CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS"


class RegisteredPage(msgspec.Struct):
    """A page on the GPU. Counted: one `RegisteredPages.give_back` for each `take`."""

    page: TimelinePage
    hold: memoryview
    """Keeps the page's mapping."""
    pointer: int
    """CUdeviceptr of the page, and of its value."""
    users: int = 1


class RegisteredPages:
    """The registered pages of one GPU in this process."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._by_address: dict[int, RegisteredPage] = {}
        self._lock = Lock()
        self._checked = False

    def take(self, page: TimelinePage) -> RegisteredPage:
        """Register a page, unless it is registered. The primary context is current.

        Errors: UnsupportedError; DriverError.
        """
        self._check()
        with self._lock:
            known = self._by_address.get(page.address)
            if known is not None:
                known.users += 1
                return known
            hold = page.keeper.hold()
            pointer = self._gpu.registrations.register(
                page.address, timeline_page.PAGE_SIZE, writable=page.keeper.writable
            )
            known = RegisteredPage(page, hold, pointer)
            self._by_address[page.address] = known
            return known

    def give_back(self, registered: RegisteredPage) -> None:
        """Release one use. The last one unregisters the page. The primary context is current."""
        with self._lock:
            registered.users -= 1
            if registered.users:
                return
            del self._by_address[registered.page.address]
            self._gpu.registrations.unregister(registered.page.address)
            registered.hold.release()

    def _check(self) -> None:
        if not self._checked and not self._gpu.attribute(_CAN_64_BIT):
            raise UnsupportedError(
                f"streams of {self._gpu.name} do not wait for 64-bit words of memory, and timelines of the host are "
                "such words; wait on the host, or use a timeline of the Vulkan device",
                requires_one_of=[_CAN_64_BIT, "a timeline of a Vulkan driver"],
            )
        self._checked = True
