"""The standard streams of a command: each exists, and a pipe does not fail after its reader has closed it.

How this works. `extmem devices | head -1` closes the pipe after one line, and every later write to it fails (EPIPE).
That is not an error of the command: it completes its work, and its exit code is the result of that work. So writes to a
pipe without a reader are ignored at the lowest level of the stream, below everything that writes to it: the commands,
Click, Rich, and the flush at the end of the process. A full disk is still an error.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["end_output", "open_streams", "reader_has_gone", "without_broken_pipes"]

_READER_GONE = (errno.EPIPE, errno.EINVAL)
"""Errors of a write to a pipe without a reader: EPIPE; in the C runtime of Windows also EINVAL."""


class _Pipe(io.FileIO):
    """A pipe or socket whose reader may close it. It does not close the fd."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, "wb", closefd=False)
        self.reader_gone = False
        """Whether a write has found no reader."""

    def write(self, data: ReadableBuffer, /) -> int:
        """Write as `FileIO.write`. If there is no reader, return the length of `data`."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in _READER_GONE:
                raise
            self.reader_gone = True
            return memoryview(data).nbytes


def without_broken_pipes(stream: IO[str]) -> IO[str]:
    """Return the stream; for a pipe or socket another one on the same fd that works without a reader."""
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)
    if not isinstance(stream, io.TextIOWrapper) or not isinstance(raw, io.FileIO):
        return stream
    mode = os.fstat(raw.fileno()).st_mode
    if not stat.S_ISFIFO(mode) and not stat.S_ISSOCK(mode):
        return stream
    stream.flush()
    pipe = _Pipe(raw.fileno())
    return io.TextIOWrapper(
        pipe if raw is buffer else io.BufferedWriter(pipe),  # unbuffered, as in Python
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def reader_has_gone() -> bool:
    """Return whether stdout is a pipe whose reader has closed it, as a write has found out: an endless command ends."""
    buffer = getattr(sys.stdout, "buffer", None)
    raw = getattr(buffer, "raw", buffer)
    return isinstance(raw, _Pipe) and raw.reader_gone


def open_streams() -> None:
    """Prepare the standard streams. A closed stderr is replaced by the null device; a closed stdout is an error."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")
    if sys.stdout is None:
        sys.stderr.write("error: the standard output is closed; give the command one, such as >/dev/null\n")
        sys.exit(1)
    sys.stdout, sys.stderr = without_broken_pipes(sys.stdout), without_broken_pipes(sys.stderr)


def end_output(code: int) -> int:
    """Write the buffered data. Return the exit code: `code`, or 1 if the data cannot be written."""
    try:
        sys.stdout.flush()
    except OSError as error:
        if code == 0:
            sys.stderr.write(f"error: {type(error).__name__}: {error}; the output is not complete\n")
        # The buffered data must not fail again when the process ends.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        return code or 1
    return code
