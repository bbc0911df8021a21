"""The system's part of the signals of streams: the function that CUDA calls on the host. This module selects it.

Linux has machine code that raises a value and wakes a futex; on Windows an event is set, for which a thread waits.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from extmem.devices.cuda.handle_types import TimelinePage

__all__ = ["IS_MACHINE_CODE", "HostCall", "host_function_address", "prepared_call", "release_call"]

IS_MACHINE_CODE = sys.platform != "win32"
"""Whether all of a signal is done in machine code. A thread takes part otherwise; no graph can have such a signal."""

if sys.platform == "win32":
    from extmem.devices.cuda.windows_host_function import Call as HostCall
    from extmem.devices.cuda.windows_host_function import function_address as host_function_address
    from extmem.devices.cuda.windows_host_function import prepare as prepared_call
    from extmem.devices.cuda.windows_host_function import release as release_call
else:
    from extmem.devices.cuda.host_function import Call as HostCall
    from extmem.devices.cuda.host_function import function_address as host_function_address
    from extmem.devices.cuda.host_function import prepare
    from extmem.devices.cuda.host_function import release as release_call

    def prepared_call(page: TimelinePage, value: int) -> HostCall:
        """Return a call that raises the value of the page to `value`, and wakes who waits for it."""
        return prepare(page.address, value, page.sequence)
