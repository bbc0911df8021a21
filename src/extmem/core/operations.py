"""The operations on memory, imported when the first of them is asked for.

How this works. Opening a device is quick, and a program may open one and do no more. So the classes and functions of
`api` reach the rest of this layer through this module: `operations.allocating`, `operations.exporting`. The first
access imports `_operations`, which imports all the others: one thread does that, and other threads wait for it at the
import lock of `_operations`. From then on the names are attributes of this module, as of any other.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from extmem.core._operations import *  # noqa: F403  # it has an __all__
else:
    from extmem.owning import late_imports

    def __getattr__(name: str) -> object:
        with late_imports():
            from extmem.core import _operations

        if name not in _operations.__all__:
            raise AttributeError(f"module 'extmem.core.operations' has no attribute {name!r}")
        globals().update((each, getattr(_operations, each)) for each in _operations.__all__)
        return globals()[name]
