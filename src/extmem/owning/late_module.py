"""`LateModule`: a module that is imported when one of its attributes is first used.

::

    if TYPE_CHECKING:
        from extmem.core import creating
    else:
        creating = LateModule(globals(), "extmem.core.creating")

How this works. The object stands for the module among the globals of the module that needs it, and the first use puts
the module itself in its place. Type checkers, and the tests of layers and circles, see an ordinary import.
"""

from __future__ import annotations

from typing import Any

from extmem.owning.fd import late_imports

__all__ = ["LateModule"]


class LateModule:
    """A module that has not been imported yet, under its last name in `namespace`."""

    def __init__(self, namespace: dict[str, Any], module: str) -> None:
        self._namespace = namespace
        self._module = module

    def __getattr__(self, name: str) -> Any:
        # Errors: as of an import; OutOfMemoryError if no file descriptor is left for it.
        with late_imports():
            import importlib

            module = importlib.import_module(self._module)
        self._namespace[self._module.rpartition(".")[2]] = module
        return getattr(module, name)
