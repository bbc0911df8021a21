"""Where a name was looked for, and where else it could be: what a name that was not found is reported with.

How this works. Programs of one user that were started differently (a login, a service, cron) may find different runtime
directories by their environments. Each has its broker, and they share nothing. So the error says in which directory was
looked, and in which of the usual ones a broker of this user runs, too: one holds `broker.lock` there.
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is the broker's, which is Linux's; extmem.manager picks what the system has")

import fcntl
import os
from pathlib import Path

from extmem.owning import OwnedFd
from extmem.wire.runtime_dir import RuntimeDir

__all__ = ["other_brokers", "usual_places", "where_looked"]


def usual_places() -> list[RuntimeDir]:
    """The runtime directories that processes of this user have by themselves, whatever their environment."""
    uid = os.geteuid()
    session = os.environ.get("XDG_RUNTIME_DIR")
    parents = ([session] if session else []) + [f"/run/user/{uid}"]
    paths = [Path(os.path.normpath(parent)) / "extmem" for parent in parents]
    return [RuntimeDir(path) for path in (*paths, Path(f"/tmp/extmem-{uid}"))]


def other_brokers(directory: RuntimeDir) -> list[Path]:
    """The usual places, but this one, in which a broker of this user runs now."""
    return list(dict.fromkeys(place.path for place in usual_places() if place.path != directory.path and _runs(place)))


def where_looked(directory: RuntimeDir) -> str:
    """Sentences to be added to the reason."""
    text = f"The broker in {directory.path} was asked."
    others = other_brokers(directory)
    if others:
        text += (
            f" Another broker of this user runs in {' and in '.join(map(str, others))}, and shares nothing with it: "
            "have the processes use one directory (EXTMEM_RUNTIME_DIR)."
        )
    return text


def _runs(place: RuntimeDir) -> bool:
    try:
        lock = OwnedFd.open(place.broker_lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(lock.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.fstat(lock.fd).st_uid == os.geteuid()
    except OSError:
        return False
    finally:
        lock.close()
    return False
