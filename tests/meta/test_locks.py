"""The library's locks are `owning.Lock`: a lock of `threading` may stay held after an exception at the wrong moment."""

from __future__ import annotations

import re
from pathlib import Path

from tests.meta.tools import ROOT, python_files

MAKES = re.compile(r"\bthreading\.(R?Lock|Condition|Semaphore|BoundedSemaphore|Event|Barrier)\(")
THEIR_OWN = {
    "owning/lock.py": "makes them what they are",
    "manager/linux/turns.py": "notes who took it, as `owning.Lock` does",
    "broker/fd_closer.py": "runs in the broker, whose signal handlers raise nothing",
}
"""Modules that may make a lock of `threading`, and why."""


def plain_locks(package: Path) -> list[str]:
    """Return the modules below `package`, except `testing`, that make a lock of `threading` or what contains one."""
    return [
        name
        for path in python_files(package)
        if not (name := path.relative_to(package).as_posix()).startswith("testing/")
        and name not in THEIR_OWN
        and MAKES.search(path.read_text(encoding="utf-8"))
    ]


def test_no_module_makes_a_lock_of_threading() -> None:
    assert not plain_locks(ROOT / "src" / "extmem"), "use `extmem.owning.Lock`"


def test_planted_locks_are_found(tmp_path: Path) -> None:
    planted = {"a.py": "threading.Lock()", "b.py": "threading.RLock()", "manager/linux/turns.py": "threading.RLock()"}
    planted |= {"c.py": "Lock()", "testing/d.py": "threading.Lock()", "e.py": "threading.Event()"}
    for name, source in planted.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    assert sorted(plain_locks(tmp_path)) == ["a.py", "b.py", "e.py"]
