"""The system's part of the signals of streams: the function that CUDA calls on the host. This module selects it.

Linux has machine code that raises a value and wakes a futex; on Windows an event is set, for which a thread waits.
"""

from __future__ import annotations

import sys

__all__ = ["IN_GRAPHS", "Call", "function_address", "prepare", "release"]

IN_GRAPHS = sys.platform != "win32"
"""Whether the function can be part of a graph, which may be launched at any time, or never. A thread would wait."""

if sys.platform == "win32":
    from extmem.devices.cuda.windows_host_function import Call, function_address, prepare, release
else:
    from extmem.devices.cuda.host_function import Call, function_address, prepare, release
