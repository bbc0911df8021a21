"""Looks at the object manager, in a thread, at a bounded share of the time.

How this works. A look asks for the state of the broker, which starts none, and for a snapshot if something is shared.
The broker sends a snapshot in pages, so that it serves others in between. After each look the thread pauses for the
interval, and at least for `_PAUSES` times as long as the look took: with very many payloads the view is renewed less
often, and neither the broker nor this process is busy with it for more than a fifth of the time.

This process holds nothing. While nothing is shared it keeps no connection either, so that a broker without other
clients can end. The thread is a daemon: a broker that does not answer does not delay the end of the program.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final

from extmem.cli._top.channels import ChannelProvider
from extmem.cli._top.model import Broker, Look, Model, State
from extmem.errors import ExtmemError
from extmem.manager import manager, process_name

__all__ = ["NO_BROKER", "NO_OWN_BROKER", "Reading", "channel_provider", "look", "pause_after"]

NO_BROKER: Final = "No broker runs here, so nothing is shared. One starts when a program shares memory."
NO_OWN_BROKER: Final = "No broker of this version of extmem runs here; one of another version does."
_PAUSES: Final = 4


def channel_provider() -> ChannelProvider:
    """Return the function that tells of channels."""
    from extmem.cli._top.channel_facts import channels_of

    return channels_of


def look(provider: ChannelProvider | None = None) -> Look:
    """Look once at what is shared. Errors that the object manager reports are in the result."""
    started, wall = time.monotonic(), time.time()
    try:
        owner = manager()
        broker = None
        if owner.has_broker:
            status = owner.status()
            if status is None:
                _let_go()
                missing = NO_OWN_BROKER if owner.other_brokers() else NO_BROKER
                return Look(
                    started, wall, (), None if provider is None else (), missing=missing, seconds=_since(started)
                )
            broker = Broker(status.pid, status.uptime, status.clients)
            if not status.payloads:
                _let_go()
                return Look(started, wall, (), None if provider is None else (), broker, seconds=_since(started))
        rows = owner.snapshot()
        channels = None if provider is None else provider(rows)
    except (ExtmemError, OSError) as error:
        return Look(started, wall, error=error, seconds=_since(started))
    return Look(started, wall, rows, channels, broker, seconds=_since(started))


def _since(started: float) -> float:
    return time.monotonic() - started


def _let_go() -> None:
    """Close the connection to the broker, if this process holds nothing."""
    owner = manager()
    if not owner.holds_payloads:
        with contextlib.suppress(ExtmemError):
            owner.disconnect()


def pause_after(seconds: float, interval: float) -> float:
    """Return the pause in seconds after a look that took so long."""
    return max(interval, _PAUSES * seconds)


class Reading:
    """The thread. It gives each state to `show`, which it calls in this thread; also the error that ends it."""

    def __init__(
        self,
        show: Callable[[State | Exception], object],
        interval: float,
        looking: Callable[[], Look],
        processes: Callable[[int], str] = process_name,
    ) -> None:
        """interval: seconds between two looks. looking: looks once, such as `look`."""
        self._show = show
        self._interval = interval
        self._looking = looking
        self._processes = processes
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._stopped = False
        self._paused = False
        self._asked: float | None = None
        self._thread = threading.Thread(target=self._run, name="extmem-top", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Begin no other look. A look that is under way is not waited for."""
        self._stopped = True
        self._wake.put(None)

    def pause(self, paused: bool) -> None:
        """Begin no other look until this is called with False, which makes the thread look at once."""
        self._paused = paused
        self._wake.put(None)

    def again(self) -> None:
        """Look now, without the rest of the pause."""
        self._wake.put(None)

    @property
    def asking_for(self) -> float:
        """The seconds for which the look that is under way has lasted; 0 while none is."""
        asked = self._asked
        return 0.0 if asked is None else time.monotonic() - asked

    def _run(self) -> None:
        try:
            self._look_again_and_again(Model(self._processes))
        except Exception as error:  # noqa: BLE001  # outermost in its thread: the program ends with it
            self._show(error)

    def _look_again_and_again(self, model: Model) -> None:
        while not self._stopped:
            if self._paused:
                self._sleep(None)
                continue
            began = self._asked = time.monotonic()
            state = model.update(self._looking())
            self._asked = None
            if self._stopped:
                return
            self._show(state)
            self._sleep(pause_after(time.monotonic() - began, self._interval))

    def _sleep(self, seconds: float | None) -> None:
        """Wait until another thread wakes this one; at most for these seconds."""
        with contextlib.suppress(Empty):
            self._wake.get(timeout=seconds)
            while True:
                self._wake.get_nowait()
