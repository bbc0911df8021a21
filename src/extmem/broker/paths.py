"""Where a broker lives: the runtime directory and what is in it.

The directory is the door to everything a user shares, so it must be the user's alone: mode 0700, owned by them, no
symbolic link. In order: `$EXTMEM_RUNTIME_DIR`, `$XDG_RUNTIME_DIR/extmem`, `/run/user/<uid>/extmem` where that parent is
ours, `/tmp/extmem-<uid>`.
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is the broker's, which is Linux's; extmem.manager picks what the system has")

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from extmem.errors import UnsupportedError

__all__ = ["SYSTEM_DIRECTORY", "RuntimeDir", "runtime_directory"]

SYSTEM_DIRECTORY = Path("/run/extmem")
# sun_path holds 108 bytes with the final NUL.
_MAX_SOCKET_PATH = 107


@dataclass(frozen=True, slots=True)
class RuntimeDir:
    """A runtime directory by path. `system`: the machine-wide broker's, open to every user."""

    path: Path
    system: bool = False

    @property
    def socket(self) -> Path:
        """Where the broker listens."""
        return self.path / "broker.sock"

    @property
    def broker_lock(self) -> Path:
        """Held (flock) by the broker as long as it lives."""
        return self.path / "broker.lock"

    @property
    def start_lock(self) -> Path:
        """Held by the client that starts a broker, until that is ready."""
        return self.path / "start.lock"

    @property
    def journal(self) -> Path:
        """The live clients, for a broker that follows a killed one."""
        return self.path / "clients.json"

    @property
    def log(self) -> Path:
        """What a broker has to say when nobody listens."""
        return self.path / "broker.log"

    def prepare(self) -> None:
        """Make the directory if it is missing, and make sure that it is private.

        Raises UnsupportedError, naming the path and what to do, where it cannot be made or is not private.
        """
        mode = 0o755 if self.system else 0o700
        try:
            os.mkdir(self.path, mode)
        except FileExistsError:
            pass
        except OSError as error:
            raise _refuse(self.path, f"cannot be made ({error.strerror})") from error
        else:
            os.chmod(self.path, mode)
        self.check()

    def check(self) -> None:
        """Make sure that the directory exists and is private. Raises as `prepare`."""
        try:
            found = os.lstat(self.path)
        except FileNotFoundError as error:
            raise _refuse(self.path, "does not exist") from error
        except OSError as error:
            raise _refuse(self.path, f"cannot be looked at ({error.strerror})") from error
        if stat.S_ISLNK(found.st_mode):
            raise _refuse(self.path, "is a symbolic link, so somebody else may decide where it leads")
        if not stat.S_ISDIR(found.st_mode):
            raise _refuse(self.path, "is no directory")
        owner = 0 if self.system else os.geteuid()
        if found.st_uid != owner:
            raise _refuse(self.path, f"belongs to user {found.st_uid}, not to user {owner}")
        forbidden = 0o022 if self.system else 0o077
        if found.st_mode & forbidden:
            raise _refuse(
                self.path,
                f"has mode {stat.S_IMODE(found.st_mode):04o}, so others can get in; run: chmod 700 {self.path}",
            )
        if len(os.fsencode(self.socket)) > _MAX_SOCKET_PATH:
            raise _refuse(self.path, f"is too long: a socket's path has at most {_MAX_SOCKET_PATH} bytes")


def _refuse(path: Path, problem: str) -> UnsupportedError:
    return UnsupportedError(
        f"extmem's runtime directory {path} {problem}. Set EXTMEM_RUNTIME_DIR to a directory of your own that only "
        "you can "
        "enter (mode 0700); all processes that share memory need the same one",
        requires_one_of=["EXTMEM_RUNTIME_DIR", "XDG_RUNTIME_DIR"],
    )


def runtime_directory(environment: Mapping[str, str] | None = None) -> RuntimeDir:
    """The runtime directory that this process is to use. Nothing is created or checked."""
    env = os.environ if environment is None else environment
    chosen = env.get("EXTMEM_RUNTIME_DIR")
    if chosen:
        return RuntimeDir(Path(os.path.abspath(chosen)))
    session = env.get("XDG_RUNTIME_DIR")
    if session:
        return RuntimeDir(Path(os.path.abspath(session)) / "extmem")
    uid = os.geteuid()
    parent = Path(f"/run/user/{uid}")
    try:
        if os.stat(parent).st_uid == uid:
            return RuntimeDir(parent / "extmem")
    except OSError:
        pass  # no login session: /tmp it is
    return RuntimeDir(Path(f"/tmp/extmem-{uid}"))
