"""`LateModule`: a module that is imported at the first use of an attribute. `late_names`: the same for a package.

::

    if TYPE_CHECKING:
        from extmem.core import creating
    else:
        creating = LateModule(globals(), "extmem.core.creating")

How this works. The object stands for the module among the globals of the module that needs it, and the first use puts
the module itself in its place. `late_names` returns the `__getattr__` of a package, which is called once for each name.
Type checkers, and the tests of layers and circles, see ordinary imports. Threads wait at the import system's locks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from extmem.owning.fd import late_imports

__all__ = ["LateModule", "late_names"]


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


def late_names(
    namespace: dict[str, Any], homes: Mapping[str, Iterable[str]], modules: Iterable[str] = ()
) -> Callable[[str], object]:
    """Return a function `__getattr__` for the module with these globals.

    homes: module → its names that are names here, too; modules: those that are themselves names here. Errors of the
    function: AttributeError for other names, and as `LateModule`.
    """
    home = {name: module for module, names in homes.items() for name in names}
    whole = {module.rpartition(".")[2]: module for module in modules}

    def __getattr__(name: str) -> object:
        if name not in home and name not in whole:
            raise AttributeError(f"module {namespace['__name__']!r} has no attribute {name!r}")
        with late_imports():
            import importlib

            module = importlib.import_module(whole.get(name) or home[name])
        found: object = module if name in whole else getattr(module, name)
        namespace[name] = found
        return found

    return __getattr__
