"""Where a broker lives: the runtime directory and what is in it.

The directory is the door to everything a user shares, so it must be the user's alone: mode 0700, owned by them, no
symbolic link, and in no directory where others may replace it. In order: `$EXTMEM_RUNTIME_DIR`,
`$XDG_RUNTIME_DIR/extmem`, `/run/user/<uid>/extmem`, `/tmp/extmem-<uid>`; the second and third only where the parent is
a directory of this user's own.

How this works. Paths can be changed by others between two looks at them: a directory in `/tmp` can be another user's by
the time that its socket is connected to. So a directory is opened once (`RuntimeDir.open`), what was opened is checked,
and all that is in it is reached through that descriptor: by `dir_fd=`, and sockets through `/proc/self/fd`.
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is the broker's, which is Linux's; extmem.manager picks what the system has")

import errno
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from extmem.errors import UnsupportedError
from extmem.owning import OwnedFd

__all__ = ["SYSTEM_DIRECTORY", "RuntimeDir", "address_in", "runtime_directory"]

SYSTEM_DIRECTORY = Path("/run/extmem")
# sun_path holds 108 bytes with the final NUL.
_MAX_SOCKET_PATH = 107
_OPEN = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


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
        """Held (flock) by the broker as long as it lives; its pid is in it."""
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

    def open(self) -> OwnedFd | None:
        """A descriptor (O_PATH) of the directory, which is private; None if there is no such directory.

        Errors: UnsupportedError, naming the path and what to do, for a directory that is not
        private, whose path is too long for a socket, or that cannot be opened; OSError (EMFILE, ENFILE) where this
        process or the machine can open no more files.
        """
        self._check_path()
        try:
            opened = OwnedFd.open(self.path, _OPEN)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise
            raise self._unusable(error) from error
        self._check_found(os.fstat(opened.fd))
        return opened

    def prepare(self) -> OwnedFd:
        """`open`, after making the directory if it is missing. Errors: as `open`, and where it cannot be made."""
        opened = self.open()
        if opened is None:
            self._make()
            opened = self.open()
        if opened is None:
            raise _refuse(self.path, "was removed while it was being made")
        return opened

    def _make(self) -> None:
        mode = 0o755 if self.system else 0o700
        parent = self.path.parent
        try:
            owner = os.stat(parent).st_uid
            if owner not in _trusted():
                # Ours in a directory of theirs would lock them out of what is theirs (`sudo` keeps variables).
                raise _refuse(self.path, f"does not exist, and {parent} belongs to user {owner}, not to this one")
            os.mkdir(self.path, mode)
        except FileExistsError:
            return
        except OSError as error:
            raise _refuse(self.path, f"cannot be made ({error.strerror})") from error
        os.chmod(self.path, mode)  # whatever the umask is

    def _check_path(self) -> None:
        if len(os.fsencode(self.socket)) > _MAX_SOCKET_PATH:
            raise _refuse(self.path, f"is too long: a socket's path has at most {_MAX_SOCKET_PATH} bytes")
        if not os.path.isdir("/proc/self/fd"):
            raise UnsupportedError("extmem needs /proc, and it is not there: mount it", requires_one_of=["procfs"])
        try:
            parent = os.path.realpath(self.path.parent, strict=True)
            while True:
                if _replaceable(os.stat(parent)):
                    raise _refuse(
                        self.path,
                        f"is in {parent}, where other users may replace it; run: chmod go-w {parent} (or chmod +t)",
                    )
                if parent == "/":
                    return
                parent = os.path.dirname(parent)
        except FileNotFoundError:
            return  # nothing is there yet; it cannot be made either
        except OSError as error:
            raise self._unusable(error) from error

    def _check_found(self, found: os.stat_result) -> None:
        owner = 0 if self.system else os.geteuid()
        if found.st_uid != owner:
            raise _refuse(self.path, f"belongs to user {found.st_uid}, not to user {owner}")
        forbidden = 0o022 if self.system else 0o077
        if found.st_mode & forbidden:
            raise _refuse(
                self.path,
                f"has mode {stat.S_IMODE(found.st_mode):04o}, so others can get in; run: chmod 700 {self.path}",
            )

    def _unusable(self, error: OSError) -> UnsupportedError:
        if error.errno in (errno.ENOTDIR, errno.ELOOP) and self.path.is_symlink():
            return _refuse(self.path, "is a symbolic link, so somebody else may decide where it leads")
        if error.errno == errno.ENOTDIR and self.path.exists():
            return _refuse(self.path, "is not a directory")
        return _refuse(self.path, f"cannot be reached ({error.strerror})")


def address_in(directory: int, name: str) -> str:
    """The address of a socket in an opened directory, for `bind` and `connect`."""
    return f"/proc/self/fd/{directory}/{name}"


def _replaceable(found: os.stat_result) -> bool:
    """Whether users other than this one and root may rename what is in the directory.

    A group-writable directory of root's group or of this user's own is not: many systems make all new ones so.
    """
    if found.st_mode & stat.S_ISVTX:
        return False
    by_group = found.st_mode & stat.S_IWGRP and found.st_gid not in (0, os.getegid())
    return bool(by_group or found.st_mode & stat.S_IWOTH)


def _trusted() -> set[int]:
    """Whose directories a new one may be made in: this user's and root's, which is unmapped in a user namespace."""
    try:
        unmapped = int(Path("/proc/sys/kernel/overflowuid").read_bytes())
    except (OSError, ValueError):
        unmapped = 0
    return {0, os.geteuid(), unmapped}


def _refuse(path: Path, problem: str) -> UnsupportedError:
    return UnsupportedError(
        f"extmem's runtime directory {path} {problem}. Set EXTMEM_RUNTIME_DIR to a directory of your own that only "
        "you can enter (mode 0700); all processes that share memory need the same one",
        requires_one_of=["EXTMEM_RUNTIME_DIR", "XDG_RUNTIME_DIR"],
    )


def runtime_directory(environment: Mapping[str, str] | None = None) -> RuntimeDir:
    """The runtime directory that this process is to use. Nothing is created, and it is not checked.

    Errors: UnsupportedError where EXTMEM_RUNTIME_DIR is relative and the working directory is gone.
    """
    env = os.environ if environment is None else environment
    chosen = env.get("EXTMEM_RUNTIME_DIR")
    if chosen:
        try:
            return RuntimeDir(Path(os.path.abspath(chosen)))
        except OSError as error:
            raise _refuse(Path(chosen), f"is relative to a directory that is gone ({error.strerror})") from error
    uid = os.geteuid()
    # XDG_RUNTIME_DIR comes along where one user starts a program as another (`sudo -E`): it is that other's then.
    for parent in (env.get("XDG_RUNTIME_DIR"), f"/run/user/{uid}"):
        if parent and _is_own(parent, uid):
            return RuntimeDir(Path(os.path.normpath(parent)) / "extmem")
    return RuntimeDir(Path(f"/tmp/extmem-{uid}"))


def _is_own(directory: str, uid: int) -> bool:
    if not os.path.isabs(directory):
        return False
    try:
        found = os.stat(directory)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid
