"""The standard streams of a command: none that is missing, and none that fails once its reader has gone.

How this works. `extmem devices | head -1` closes the pipe after one line, and every later write to it is refused
(EPIPE). That is not an error of the command: it does what it was asked to do, and its exit code tells how that went.
So what is written to a pipe without a reader is dropped, at the lowest level of the stream, below everything that
writes to it: the commands, Click, Rich, and the flush at the end of the process. A full disk is an error as before.
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

__all__ = ["end_output", "open_streams", "without_broken_pipes"]

_READER_GONE = (errno.EPIPE, errno.EINVAL)
"""How a write to a pipe without a reader fails: EPIPE; in the C runtime of Windows also EINVAL."""


class _Pipe(io.FileIO):
    """A pipe or socket whose reader may go. It does not close the descriptor."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, "wb", closefd=False)

    def write(self, data: ReadableBuffer, /) -> int:
        """As `FileIO.write`; all of `data` counts as written where there is no reader."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in _READER_GONE:
                raise
            return memoryview(data).nbytes


def without_broken_pipes(stream: IO[str]) -> IO[str]:
    """The stream, or where it is a pipe or socket, another one on the same descriptor that outlives its reader."""
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
        pipe if raw is buffer else io.BufferedWriter(pipe),  # unbuffered, as Python makes it
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def open_streams() -> None:
    """Python has no stream where the program was started with one closed. Words may get lost; data may not."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")
    if sys.stdout is None:
        sys.stderr.write("error: the standard output is closed; give the command one, such as >/dev/null\n")
        sys.exit(1)
    sys.stdout, sys.stderr = without_broken_pipes(sys.stdout), without_broken_pipes(sys.stderr)


def end_output(code: int) -> int:
    """Write what is still buffered. Returns the exit code: `code`, or 1 where the data cannot be written."""
    try:
        sys.stdout.flush()
    except OSError as error:
        if code == 0:
            sys.stderr.write(f"error: {type(error).__name__}: {error}; the output is not complete\n")
        # What is still buffered must not fail once more when the process ends.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        return code or 1
    return code
