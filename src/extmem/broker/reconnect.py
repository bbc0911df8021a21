"""The watcher: a daemon thread that notices the broker's death although this process makes no call.

How this works. The thread sleeps in poll(2) for a hang-up of the connection (never for input: replies are read by
whoever asked) and for the wake pipe. On a hang-up it has the client connect again and announce what it holds; if that
fails (no broker can be started just now), it tries again, ever more seldom, while there is something to be announced.
The wake pipe also says that finalizers have left something to be freed, or that a child is being started which tickets
are for.
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is the broker's, which is Linux's; extmem.manager picks what the system has")

import os
import select
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final

from extmem.errors import ExtmemError
from extmem.handles import fds

if TYPE_CHECKING:
    from extmem.broker.client import Client

__all__ = ["Watcher"]

_FIRST_RETRY: Final = 0.02
_LAST_RETRY: Final = 1.0
_BIRTH: Final = 2
"""Milliseconds between two looks at a child that is being started, until it has a pid."""
_EMPTY_HANDED: Final = 2.0
"""Seconds for which a process that holds nothing looks for the new broker, which may wait for it."""


class Watcher:
    """The thread and its wake pipe. It does not keep the client alive."""

    def __init__(self, client: Client) -> None:
        self._client = weakref.ref(client)
        self._stop = False
        self._receiving, self._sending = fds.pipe(os.O_CLOEXEC | os.O_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="extmem-broker-watcher", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Look again. Never blocks: a full pipe says the same already."""
        try:
            os.write(self._sending, b"!")
        except (BlockingIOError, OSError):
            return

    def stop(self) -> None:
        """End the thread."""
        self._stop = True
        self.wake()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def after_fork(self) -> None:
        """In the child, where the thread does not exist."""
        os.close(self._receiving)
        os.close(self._sending)

    def _run(self) -> None:
        try:
            while not self._stop:
                client = self._client()
                if client is None:
                    return
                client.free_later()
                client.bind_births()
                patience = _BIRTH if client.births else None
                sock = client.connected
                if sock is None and not client.state.empty:
                    self._again(client)
                    continue
                fd = -1 if sock is None else sock.fileno()
                del client
                if self._hung_up(fd, patience):
                    client = self._client()
                    if client is not None and client.connected is sock:
                        self._again(client)
        finally:
            if not self._stop:
                self._stop = True
            os.close(self._receiving)
            os.close(self._sending)

    def _hung_up(self, fd: int, patience: int | None) -> bool:
        waiting = select.poll()
        waiting.register(self._receiving, select.POLLIN)
        if fd >= 0:
            waiting.register(fd, 0)
        for ready, event in waiting.poll(patience):
            if ready == self._receiving:
                self._drain()
            elif event & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
                return True
        return False

    def _drain(self) -> None:
        try:
            while os.read(self._receiving, 4_096):
                pass
        except BlockingIOError:
            return

    def _again(self, client: Client) -> None:
        seen = client.connected
        pause = _FIRST_RETRY
        started = time.monotonic()
        while not self._stop:
            try:
                if client.reconnect(seen):
                    return
            except (ExtmemError, OSError):
                pass  # whoever calls next is told; here we only try again
            if client.state.empty and time.monotonic() > started + _EMPTY_HANDED:
                return
            time.sleep(pause)
            pause = min(2 * pause, _LAST_RETRY)
