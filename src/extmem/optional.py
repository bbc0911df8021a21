"""Packages that need not be installed, imported when they are first needed.

How this works. Two threads that import parts of one package at the same time, each another part, can be handed modules
that are half made: Python prefers that to a deadlock. So all of the library's late imports go through one lock. And a
package that is there and fails to import (a broken library, another interpreter, an import that was interrupted) is a
different thing from one that is not installed: the error has the reason, not the advice to install it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from extmem.errors import UnsupportedError
from extmem.owning import Lock, out_of_descriptors

__all__ = ["importing", "load"]

T = TypeVar("T")

_lock = Lock(reentrant=True)


def load(module: str, *, what: str, advice: str, package: str = "") -> Any:
    """A module of a package that need not be there.

    what: the package as people call it, and what needs it; advice: how to get it, or do without; package: its name in
    `requires_one_of`. Errors: UnsupportedError, whose message has the reason: it is not installed, or its import fails;
    OutOfMemoryError where there is no descriptor left to import it.
    """
    found = sys.modules.get(module)
    if found is not None and not _half_made(found):
        return found
    return importing(lambda: importlib.import_module(module), module, what=what, advice=advice, package=package)


def importing(how: Callable[[], T], *modules: str, what: str, advice: str, package: str = "") -> T:
    """What `how` returns, which imports those modules. No two threads import at once. As `load`."""
    with _lock:
        try:
            return how()
        except ModuleNotFoundError as error:
            absent = error.name is not None and any(f"{module}.".startswith(f"{error.name}.") for module in modules)
            raise _unavailable(what, advice, package, error, absent=absent) from error
        except (ImportError, OSError) as error:
            if isinstance(error, OSError) and (lacking := out_of_descriptors(error, "open")) is not error:
                raise lacking from None  # nothing is wrong with the installation
            raise _unavailable(what, advice, package, error, absent=False) from error


def _unavailable(what: str, advice: str, package: str, error: Exception, *, absent: bool) -> UnsupportedError:
    needed = [package or what.split(",")[0]]
    if absent:
        return UnsupportedError(f"{what} is not installed ({error}); {advice}", requires_one_of=needed)
    reason = f"{type(error).__name__}: {error}"
    return UnsupportedError(
        f"{what} is installed and cannot be imported ({reason}): mend that installation; {advice}",
        requires_one_of=needed,
    )


def _half_made(module: object) -> bool:
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))
