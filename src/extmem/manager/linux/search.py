"""The runtime directory in which a name was looked up, and others that may have it, for the error of a name not found.

How this works. Programs of one user that were started differently (a login, a service, cron) may find different runtime
directories by their environments. Each has its broker, and they share nothing. The same is true of programs with
different versions of extmem, whose brokers run in one directory. So the error names the directory, the usual
directories in which a broker of this user runs too, and the versions of other brokers in this one. A running broker
holds its lock.
"""

from __future__ import annotations

import os
from pathlib import Path

from extmem.wire import PROTOCOL_VERSION
from extmem.wire.runtime_dir import RunningBroker, RuntimeDir, brokers_in

__all__ = ["of_other_versions", "other_brokers", "other_versions", "usual_directories", "where_looked"]


def usual_directories() -> list[RuntimeDir]:
    """Return the runtime directories that processes of this user have by default, whatever their environment."""
    uid = os.geteuid()
    session = os.environ.get("XDG_RUNTIME_DIR")
    parents = ([session] if session else []) + [f"/run/user/{uid}"]
    paths = [Path(os.path.normpath(parent)) / "extmem" for parent in parents]
    return [RuntimeDir(path) for path in (*paths, Path(f"/tmp/extmem-{uid}"))]


def other_brokers(directory: RuntimeDir) -> list[Path]:
    """Return the usual directories, except this one, in which a broker of this user runs now."""
    others = [usual for usual in usual_directories() if usual.path != directory.path]
    return list(dict.fromkeys(usual.path for usual in others if brokers_in(usual)))


def other_versions(directory: RuntimeDir) -> list[RunningBroker]:
    """Return the brokers of other versions of extmem that run in this directory now."""
    return [broker for broker in brokers_in(directory) if broker.version != PROTOCOL_VERSION]


def where_looked(directory: RuntimeDir) -> str:
    """Return sentences to be appended to the reason."""
    text = f"The broker in {directory.path} was asked."
    others = other_brokers(directory)
    if others:
        text += (
            f" Another broker of this user runs in {' and in '.join(map(str, others))}, and shares nothing with it: "
            "have the processes use one directory (EXTMEM_RUNTIME_DIR)."
        )
    return text + of_other_versions(directory)


def of_other_versions(directory: RuntimeDir) -> str:
    """Return a sentence about brokers of other versions in this directory, with a space before it; empty for none."""
    versions = [str(broker.version) for broker in other_versions(directory)]
    if not versions:
        return ""
    return (
        f" This process uses version {PROTOCOL_VERSION} of the wire format, and a broker of version "
        f"{' and '.join(versions)} runs there too, for programs with another version of extmem, which share nothing "
        "with this one: use the same version of extmem in all processes."
    )
