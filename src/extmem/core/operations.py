"""The operations on memory, imported at the first use of any of them.

How this works. The import of the operations takes longer than opening a device, and a program may only open one.
Therefore `api` accesses the rest of this layer as attributes of this module: `operations.allocating`,
`operations.exporting`. The first access imports `_operations`, which imports all the others. One thread imports; other
threads wait at the import lock of `_operations`. Afterwards the names are ordinary attributes of this module.
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
        globals().update((module, getattr(_operations, module)) for module in _operations.__all__)
        return globals()[name]
