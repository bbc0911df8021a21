"""The operations on semaphores and fences, imported at the first use of any of them.

Programs that share memory alone import none of them: `api` accesses them as attributes of this module, as those of
memory (`operations`).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from extmem.core._sync_operations import *  # noqa: F403  # it has an __all__
else:
    from extmem.owning import late_imports

    def __getattr__(name: str) -> object:
        with late_imports():
            from extmem.core import _sync_operations

        if name not in _sync_operations.__all__:
            raise AttributeError(f"module 'extmem.core.sync_operations' has no attribute {name!r}")
        globals().update((module, getattr(_sync_operations, module)) for module in _sync_operations.__all__)
        return globals()[name]
