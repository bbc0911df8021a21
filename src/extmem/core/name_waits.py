"""Imports by name that wait until the name exists.

How this works. The object manager has the wait (`manager.NameWait`): it is told when the name appears, and on Linux the
payload is held for this process from then on. Only if the broker was replaced meanwhile, or (on Windows) the object has
ended again, does the wait begin anew.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from extmem.arguments import a_type
from extmem.errors import NameNotFoundError, NameTimeoutError
from extmem.manager import Imported, Manager, Reference
from extmem.owning import late_imports

if TYPE_CHECKING:
    from collections.abc import Generator

    from extmem.manager import NameWait

__all__ = ["checked_timeout", "import_named", "import_named_async"]


def checked_timeout(timeout: float) -> float:
    """Return a timeout in seconds. Errors: TypeError; ValueError for a negative one, and NaN."""
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout is {timeout!r}, {a_type(timeout)}; give seconds, or None")
    if not timeout >= 0:
        raise ValueError(f"timeout is {timeout}; give 0 or more seconds (math.inf for no limit), or None")
    return float(timeout)


def import_named(owner: Manager, name: str, desired: int, timeout: float) -> Imported:
    """Import by name, waiting for it for `timeout` seconds; math.inf waits without limit.

    Errors: as `Manager.import_by_name`; NameTimeoutError.
    """
    steps = _steps(owner, name, desired, timeout)
    try:
        wait, left = next(steps)
        while True:
            wait.sleep(left)
            wait, left = next(steps)
    except StopIteration as end:
        return _imported(end)
    finally:
        steps.close()


async def import_named_async(owner: Manager, name: str, desired: int, timeout: float) -> Imported:
    """As `import_named`, while other coroutines run. Cancelling leaves nothing."""
    with late_imports():
        import asyncio

    steps = _steps(owner, name, desired, timeout)
    try:
        wait, left = next(steps)
        while True:
            try:
                async with asyncio.timeout(left) as scope:
                    await wait.sleep_async()
            except TimeoutError:
                if not scope.expired():
                    raise
            wait, left = next(steps)
    except StopIteration as end:
        return _imported(end)
    finally:
        steps.close()


def _steps(
    owner: Manager, name: str, desired: int, timeout: float
) -> Generator[tuple[NameWait, float | None], None, Imported]:
    """Yield the waits to sleep on, and for how many seconds. Return the import."""
    deadline = time.monotonic() + timeout
    while True:
        reference = Reference(owner, owner.names_counter[0])
        found = owner.await_name(name, desired, reference)
        if isinstance(found, Imported):
            return found
        with found as wait:
            left = deadline - time.monotonic()
            if left > 0:
                yield wait, None if left == float("inf") else left
            reference.names_count = owner.names_counter[0]
            imported = wait.take(reference)
        if imported is not None:
            return imported
        if time.monotonic() >= deadline:
            break
    try:
        return owner.import_by_name(name, desired, Reference(owner, owner.names_counter[0]))
    except NameNotFoundError as error:
        raise NameTimeoutError(
            f"{error} It was waited for {timeout:g} s: start the process that shares it, or give a longer timeout.",
            ntstatus=error.ntstatus,
            winerror=error.winerror,
        ) from None


def _imported(end: StopIteration) -> Imported:
    imported: Imported = end.value
    return imported
