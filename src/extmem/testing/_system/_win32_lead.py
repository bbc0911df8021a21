"""What a peer on Windows gets besides its orders: the pipe they come by, and an event that asks where it hangs.

How this works. Neither is inherited, since what a child inherits is what tests are about. Both are duplicated into the
peer once it runs, and their values follow by its standard input. Windows has no SIGUSR1: a thread of the peer waits for
the event instead, and has faulthandler write every thread's stack.
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

__all__ = ["PYTHON", "Connection", "Lead", "python_variables", "receive"]

Connection = connection.PipeConnection
PYTHON: str = getattr(sys, "_base_executable", sys.executable)
"""The Python to start when the process itself is wanted, not its parent: python.exe of a virtual environment starts the
real one and waits for it."""

_FOREVER = 0xFFFF_FFFF
_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_kernel32.CreateEventW.argtypes = [c_void_p, BOOL, BOOL, c_void_p]
_kernel32.CreateEventW.restype = HANDLE
_kernel32.SetEvent.argtypes = [HANDLE]
_kernel32.CloseHandle.argtypes = [HANDLE]
_kernel32.WaitForSingleObject.argtypes = [HANDLE, DWORD]


def python_variables() -> dict[str, str]:
    """What its environment needs besides, to know which virtual environment it belongs to."""
    return {} if PYTHON == sys.executable else {"__PYVENV_LAUNCHER__": sys.executable}


class Lead:
    """This side's part. pipe: the peer's end, the caller's; `arguments` and `options` go into the peer's start."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self.arguments: list[str] = []
        self.passed: list[int] = []
        self.options: dict[str, Any] = {"stdin": subprocess.PIPE}
        self._event: int = _kernel32.CreateEventW(None, False, False, None) or 0
        if not self._event:
            raise ctypes.WinError(ctypes.get_last_error())

    def hold(self, process: subprocess.Popen[Any]) -> None:
        """The peer was started."""
        known: Any = process
        target: int = known._handle  # Not public; multiprocessing has no other way either.
        # A peer that is gone by now is found when it is first asked something.
        with contextlib.suppress(OSError):
            values = [reduction.duplicate(value, target) for value in (self._pipe, self._event)]
            if process.stdin is not None:
                with process.stdin as way:
                    way.write(b"%d %d\n" % tuple(values))

    def ask_where(self, process: subprocess.Popen[Any]) -> None:
        """Have the peer write its stacks."""
        if self._event:
            _kernel32.SetEvent(self._event)

    def close(self) -> None:
        """Let go of it. Safe to call twice."""
        if self._event:
            _kernel32.CloseHandle(self._event)
            self._event = 0


def receive() -> int:
    """The peer's side: its end of the pipe, and somebody who answers when asked where it hangs."""
    pipe, event = (int(word) for word in sys.stdin.readline().split())

    def answer() -> None:
        while _kernel32.WaitForSingleObject(event, _FOREVER) == 0:
            faulthandler.dump_traceback(all_threads=True)

    threading.Thread(target=answer, name="tells where it hangs", daemon=True).start()
    return pipe
