"""The runtime directory of a broker, and the files in it.

The directory gives access to everything that a user shares, so it must be the user's alone: mode 0700, owned by the
user, not a symbolic link, and not in a directory where other users may replace it. In order: `$EXTMEM_RUNTIME_DIR`,
`$XDG_RUNTIME_DIR/extmem`, `/run/user/<uid>/extmem`, `/tmp/extmem-<uid>`; the second and third only where the parent is
a directory of this user's own.

How this works. A path can be changed by other users between two uses of it: a directory in `/tmp` can be another user's
by the time that its socket is connected to. So a directory is opened once (`RuntimeDir.open`), what was opened is
checked, and all that is in it is reached through that descriptor: by `dir_fd=`, and sockets through `/proc/self/fd`.

The name of each file carries the version of the wire format, such as `broker.4.sock`. So brokers of several versions of
extmem run in one directory, each for its own clients. `brokers_in` finds all of them.
"""

from __future__ import annotations

import sys

import msgspec

if sys.platform != "linux":
    raise ImportError("the broker's directory exists on Linux only; extmem.manager selects what the system has")

import contextlib
import errno
import fcntl
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from extmem.errors import UnsupportedError
from extmem.owning import OwnedFd
from extmem.wire.limits import PROTOCOL_VERSION

__all__ = [
    "SYSTEM_DIRECTORY",
    "RunningBroker",
    "RuntimeDir",
    "address_in",
    "brokers_in",
    "lock_holder",
    "runtime_directory",
]

SYSTEM_DIRECTORY = Path("/run/extmem")
# sun_path holds 108 bytes with the final NUL.
_MAX_SOCKET_PATH = 107
_UNNAMED_VERSION: Final = 2
"""The last version whose files do not carry it in their names."""
_LOCK = re.compile(r"broker(?:\.([1-9][0-9]{0,8}))?\.lock")
_FILE = re.compile(r"\.?(?:broker|start|clients)(?:\.[1-9][0-9]{0,8})?\.[a-z]+(?:\.new)?")
"""The names of the files of all versions of extmem in a runtime directory."""
_SYSTEM_ROOTS: Final = frozenset(
    ("bin", "boot", "dev", "etc", "lib", "lib64", "media", "mnt", "opt", "proc", "sbin", "srv", "sys", "usr", "var")
)
"""Directories of the root directory whose contents belong to the system."""
_OPEN = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class RuntimeDir(msgspec.Struct, frozen=True):
    """A runtime directory by path. `system`: that of the machine-wide broker, which every user may enter."""

    path: Path
    system: bool = False

    @property
    def socket(self) -> Path:
        """The socket at which the broker listens."""
        return self.path / f"broker.{PROTOCOL_VERSION}.sock"

    @property
    def broker_lock(self) -> Path:
        """The file that the broker locks (flock) as long as it lives. It contains its pid."""
        return self.path / f"broker.{PROTOCOL_VERSION}.lock"

    @property
    def start_lock(self) -> Path:
        """The file that a client locks while it starts a broker."""
        return self.path / f"start.{PROTOCOL_VERSION}.lock"

    @property
    def journal(self) -> Path:
        """The list of live clients, for the broker that follows a killed one."""
        return self.path / f"clients.{PROTOCOL_VERSION}.json"

    @property
    def notes(self) -> Path:
        """What happened to objects after their clients got them, for the broker that follows a killed one."""
        return self.path / f"objects.{PROTOCOL_VERSION}.txt"

    @property
    def key(self) -> Path:
        """The key with which brokers sign records."""
        return self.path / f"broker.{PROTOCOL_VERSION}.key"

    @property
    def log(self) -> Path:
        """The standard output and error of brokers that clients have started."""
        return self.path / f"broker.{PROTOCOL_VERSION}.log"

    def see_log(self) -> str:
        """Return `; see PATH` for a message if the log exists, else an empty text: only clients create it."""
        return f"; see {self.log}" if self.log.is_file() else ""

    def open(self) -> OwnedFd | None:
        """Open the directory (O_PATH) and check that it is private. Return None if there is no such directory.

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
        self._check_found(opened.fd)
        return opened

    def prepare(self) -> OwnedFd:
        """Create the directory if it is missing, and `open` it. Errors: as `open`, and where it cannot be created."""
        opened = self.open()
        if opened is None:
            self._make()
            opened = self.open()
        if opened is None:
            raise _refuse(self.path, "was removed while it was created")
        return opened

    def _make(self) -> None:
        mode = 0o755 if self.system else 0o700
        parent = self.path.parent
        try:
            owner = os.stat(parent).st_uid
            if owner not in _trusted():
                # A directory of this user in one of theirs would lock them out of it (`sudo` keeps variables).
                raise _refuse(self.path, f"does not exist, and {parent} belongs to user {owner}, not to this one")
            os.mkdir(self.path, mode)
        except FileExistsError:
            return
        except OSError as error:
            raise _refuse(self.path, f"cannot be created ({error.strerror})") from error
        os.chmod(self.path, mode)  # independent of the umask

    def _check_path(self) -> None:
        if len(os.fsencode(self.socket)) > _MAX_SOCKET_PATH:
            raise _refuse(self.path, f"is too long: a socket's path has at most {_MAX_SOCKET_PATH} bytes")
        if not os.path.isdir("/proc/self/fd"):
            raise UnsupportedError("extmem requires /proc, which is not mounted: mount it", requires_one_of=["procfs"])
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
            return  # it does not exist yet, and cannot be created
        except OSError as error:
            raise self._unusable(error) from error

    def _check_found(self, opened: int) -> None:
        found = os.fstat(opened)
        owner = 0 if self.system else os.geteuid()
        if found.st_uid != owner:
            raise _refuse(self.path, f"belongs to user {found.st_uid}, not to user {owner}")
        forbidden, mode = (0o022, "755") if self.system else (0o077, "700")
        if not found.st_mode & forbidden:
            return
        problem = f"has mode {stat.S_IMODE(found.st_mode):04o}, so other users can enter it"
        if not self._is_for_others(opened, found):
            raise _refuse(self.path, f"{problem}; run: chmod {mode} {self.path}")
        # A change of its mode would make it useless for what it is meant for.
        problem += " and is used for other files, too"
        if not _replaceable(found):
            problem += f"; EXTMEM_RUNTIME_DIR={self.path / f'extmem-{owner}'} is possible: extmem creates it"
        raise _refuse(self.path, problem)

    def _is_for_others(self, opened: int, found: os.stat_result) -> bool:
        """Whether the opened directory may be used by others: a sticky one, the system's, or one with other files."""
        resolved = os.path.realpath(self.path).split("/")
        if not self.system and (found.st_mode & stat.S_ISVTX or len(resolved) <= 2 or resolved[1] in _SYSTEM_ROOTS):
            return True
        try:
            return not all(map(_FILE.fullmatch, os.listdir(f"/proc/self/fd/{opened}")))
        except OSError:
            return True

    def _unusable(self, error: OSError) -> UnsupportedError:
        if error.errno in (errno.ENOTDIR, errno.ELOOP) and self.path.is_symlink():
            return _refuse(self.path, "is a symbolic link, whose target another user may choose")
        if error.errno == errno.ENOTDIR and self.path.exists():
            return _refuse(self.path, "is not a directory")
        return _refuse(self.path, f"cannot be reached ({error.strerror})")


def address_in(directory: int, name: str) -> str:
    """Return the address of a socket in an opened directory, for `bind` and `connect`."""
    return f"/proc/self/fd/{directory}/{name}"


def _replaceable(found: os.stat_result) -> bool:
    """Whether users other than this one and root may rename what is in the directory.

    False for a group-writable directory of root's group or of this user's own: many systems create directories so.
    """
    if found.st_mode & stat.S_ISVTX:
        return False
    by_group = found.st_mode & stat.S_IWGRP and found.st_gid not in (0, os.getegid())
    return bool(by_group or found.st_mode & stat.S_IWOTH)


def _trusted() -> set[int]:
    """The owners in whose directories a new one may be created: this user and root, also where root is unmapped."""
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
    """Return the runtime directory of this process. Nothing is created, and it is not checked.

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
    # XDG_RUNTIME_DIR may be another user's, where that one started the program as this user (`sudo -E`).
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


class RunningBroker(msgspec.Struct, frozen=True):
    """A broker that runs in a runtime directory, found by its lock."""

    version: int
    """The version of the wire format; 2 also stands for older ones."""
    pid: int
    """0 if it is not known."""
    socket: Path


def brokers_in(directory: RuntimeDir) -> list[RunningBroker]:
    """Return the brokers of this user, of all versions of extmem, that run in a directory now, by version.

    A directory that cannot be read has none.
    """
    found = []
    try:
        names = os.listdir(directory.path)
    except OSError:
        return []
    for name in names:
        match = _LOCK.fullmatch(name)
        pid = lock_holder(directory.path / name) if match is not None else None
        if match is None or pid is None:
            continue
        version = int(match[1]) if match[1] else _UNNAMED_VERSION
        found.append(RunningBroker(version, pid, (directory.path / name).with_suffix(".sock")))
    return sorted(found, key=lambda one: (one.version, one.pid))


def lock_holder(lock: str | Path, directory: int | None = None) -> int | None:
    """Return the pid of the process of this user that holds a broker's lock; 0 where it is unknown, None where no
    process holds it.

    lock: the path of the file, or its name in an opened directory.
    """
    try:
        opened = OwnedFd.open(lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    except OSError:
        return None  # there is no lock, or it belongs to another user (the system-wide broker)
    with contextlib.closing(opened):
        try:
            try:
                fcntl.flock(opened.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            finally:
                # Closing the file does not end the lock if a child that another thread forked has a copy of the fd.
                fcntl.flock(opened.fd, fcntl.LOCK_UN)
        except BlockingIOError:
            if os.fstat(opened.fd).st_uid == os.geteuid():
                text = os.pread(opened.fd, 32, 0).decode("ascii", "replace").strip()
                return int(text) if text.isdecimal() else 0
        except OSError:
            return None
    return None
