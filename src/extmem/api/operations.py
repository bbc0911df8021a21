"""What a device does with memory. The modules that do it are imported when the first of them is asked for.

How this works. Opening a device is quick, and a program may open one and do no more. So `Device` and the functions of
`doors` reach the rest of this layer through this module: `operations.allocating`, `operations.DeviceMemory`. The first
access imports `_operations`, which imports all the others: one thread does that, and other threads wait for it at the
import lock of `_operations`. From then on the names are attributes of this module, as of any other.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from extmem.api._operations import *  # noqa: F403  # it has an __all__
else:

    def __getattr__(name: str) -> object:
        from extmem.api import _operations

        if name not in _operations.__all__:
            raise AttributeError(f"module 'extmem.api.operations' has no attribute {name!r}")
        globals().update((each, getattr(_operations, each)) for each in _operations.__all__)
        return globals()[name]
