"""`NewFile`: a file that appears at its path when it is complete."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat

__all__ = ["NewFile"]


class NewFile:
    """A file that is being written beside its path, and gets the path at its end. A context manager.

    Ownership: owns the open file, and the temporary file until `finish`. A block that is left without `finish`, by an
    exception, removes the temporary file, and the path is as before.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """path: a file there is replaced, and its permissions are kept; a symbolic link is followed.

        Errors: OSError; ValueError for a path of something else than a file.
        """
        self._path = os.path.realpath(os.fsdecode(path))
        folder, name = os.path.split(self._path)
        mode = None
        with contextlib.suppress(FileNotFoundError):
            mode = os.stat(self._path).st_mode
        if mode is not None and not stat.S_ISREG(mode):
            raise ValueError(f"{os.fspath(path)!r} exists and is not a regular file; give the path of a file")
        if not os.path.isdir(folder):
            raise FileNotFoundError(errno.ENOENT, "no such folder to make the file in", folder)
        # The limit of a name is 255 bytes.
        self._temporary = os.path.join(folder, f".{name[:60]}.{secrets.token_hex(4)}")
        # The contents of a private file are private from the first byte on.
        self._file = open(self._temporary, "xb", buffering=0, opener=None if mode is None else _private)
        try:
            if mode is not None and hasattr(os, "fchmod"):
                os.fchmod(self._file.fileno(), stat.S_IMODE(mode))
        except BaseException:
            self._remove()
            raise

    def write(self, octets: bytes | memoryview) -> None:
        """Write bytes at the end. Errors: OSError."""
        left = memoryview(octets)
        while left.nbytes:
            left = left[self._file.write(left) :]

    def finish(self) -> None:
        """Give the file its path, once its contents are on the disk. Errors: OSError."""
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._temporary, self._path)
        self._temporary = ""

    def _remove(self) -> None:
        self._file.close()
        if self._temporary:
            with contextlib.suppress(FileNotFoundError):  # it has its path already
                os.unlink(self._temporary)

    def __enter__(self) -> NewFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self._remove()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
