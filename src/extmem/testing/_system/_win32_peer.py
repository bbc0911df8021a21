"""How a peer on Windows gets its pipe, and the event by which it is made to write its stacks.

How this works. Neither is inherited, because tests check what a child inherits. Both are duplicated into the running
peer, and their values are written to its standard input. Windows has no SIGUSR1: instead, a thread of the peer waits
for the event, and then faulthandler writes the stack of every thread.
"""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("this is Windows's; extmem.testing._system picks what the system has")

import contextlib
import ctypes
import faulthandler
import subprocess
import threading
from ctypes import c_void_p
from ctypes.wintypes import BOOL, DWORD, HANDLE
from multiprocessing import connection, reduction
from typing import Any

__all__ = ["PYTHON", "Connection", "PeerChannel", "python_variables", "receive_pipe"]

Connection = connection.PipeConnection
PYTHON: str = getattr(sys, "_base_executable", sys.executable)
"""The Python executable to start: python.exe of a virtual environment would start another process and wait for it."""

_FOREVER = 0xFFFF_FFFF
_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_kernel32.CreateEventW.argtypes = [c_void_p, BOOL, BOOL, c_void_p]
_kernel32.CreateEventW.restype = HANDLE
_kernel32.SetEvent.argtypes = [HANDLE]
_kernel32.CloseHandle.argtypes = [HANDLE]
_kernel32.WaitForSingleObject.argtypes = [HANDLE, DWORD]


def python_variables() -> dict[str, str]:
    """Return the environment variables that PYTHON needs to find the virtual environment."""
    return {} if PYTHON == sys.executable else {"__PYVENV_LAUNCHER__": sys.executable}


class PeerChannel:
    """What the starting process passes to a peer.

    pipe: the handle of the peer's end of the pipe; the caller owns it. `arguments`, `passed` and `options` are for the
    Popen that starts the peer.
    """

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self.arguments: list[str] = []
        self.passed: list[int] = []
        self.options: dict[str, Any] = {"stdin": subprocess.PIPE}
        self._event: int = _kernel32.CreateEventW(None, False, False, None) or 0
        if not self._event:
            raise ctypes.WinError(ctypes.get_last_error())

    def send_handles(self, process: subprocess.Popen[Any]) -> None:
        """Duplicate the pipe and the event into the started peer, and write their values to its standard input."""
        popen: Any = process
        target: int = popen._handle  # This is not public; multiprocessing has no other way either.
        # That the peer has ended by now is reported when it is first used.
        with contextlib.suppress(OSError):
            values = [reduction.duplicate(value, target) for value in (self._pipe, self._event)]
            if process.stdin is not None:
                with process.stdin as stdin:
                    stdin.write(b"%d %d\n" % tuple(values))

    def request_stacks(self, process: subprocess.Popen[Any]) -> None:
        """Make the peer write the stacks of its threads."""
        if self._event:
            _kernel32.SetEvent(self._event)

    def close(self) -> None:
        """Close the event. Safe to call twice."""
        if self._event:
            _kernel32.CloseHandle(self._event)
            self._event = 0


def receive_pipe() -> int:
    """Return the peer's end of the pipe; called in the peer. From now on a thread writes its stacks on request."""
    pipe, event = (int(word) for word in sys.stdin.readline().split())

    def write_stacks() -> None:
        while _kernel32.WaitForSingleObject(event, _FOREVER) == 0:
            faulthandler.dump_traceback(all_threads=True)

    threading.Thread(target=write_stacks, name="writes stacks", daemon=True).start()
    return pipe
