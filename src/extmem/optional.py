"""Import of optional packages on first use.

How this works. If two threads import different parts of one package at the same time, they can get partially
initialized modules, because Python prefers that to a deadlock. So all imports of this module hold one lock, and no
other thread forks meanwhile. The error for a package that is installed but fails to import (a broken library, another
interpreter, an interrupted import) has the reason, not the advice to install the package.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from extmem.errors import UnsupportedError
from extmem.forks import no_fork
from extmem.owning import Lock, out_of_descriptors

__all__ = ["importing", "load"]

T = TypeVar("T")

_lock = Lock(reentrant=True)


def load(module: str, *, what: str, advice: str, package: str = "") -> Any:
    """Import and return a module of an optional package.

    what: the usual name of the package, and what needs it; advice: how to install it, or to do without it; package: its
    name in `requires_one_of`. Errors: UnsupportedError, whose message has the reason: it is not installed, or its
    import fails; OutOfMemoryError if no file descriptor is left to import it.
    """
    imported = sys.modules.get(module)
    if imported is not None and not _is_initializing(imported):
        return imported
    return importing(lambda: importlib.import_module(module), module, what=what, advice=advice, package=package)


def importing(how: Callable[[], T], *modules: str, what: str, advice: str, package: str = "") -> T:
    """Call `how`, which imports those modules, while no other thread imports, and return its result. See `load`."""
    with no_fork(), _lock:
        try:
            return how()
        except ModuleNotFoundError as error:
            absent = error.name is not None and any(f"{module}.".startswith(f"{error.name}.") for module in modules)
            raise _unavailable(what, advice, package, error, absent=absent) from error
        except (ImportError, OSError) as error:
            if isinstance(error, OSError) and (lacking := out_of_descriptors(error, "open")) is not error:
                raise lacking from None  # not an error of the installation
            raise _unavailable(what, advice, package, error, absent=False) from error


def _unavailable(what: str, advice: str, package: str, error: Exception, *, absent: bool) -> UnsupportedError:
    needed = [package or what.split(",")[0]]
    if absent:
        return UnsupportedError(f"{what} is not installed ({error}); {advice}", requires_one_of=needed)
    return UnsupportedError(
        f"{what} is installed and cannot be imported ({type(error).__name__}: {error}): repair that installation; "
        f"{advice}",
        requires_one_of=needed,
    )


def _is_initializing(module: object) -> bool:
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))
