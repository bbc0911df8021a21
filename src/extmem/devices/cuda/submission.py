"""Submission of work to CUDA's streams, and waits for it during which signal handlers run.

How this works. A stream is polled (cuStreamQuery), with short pauses: an exception of a signal handler ends the wait,
and not the work. So does a minute without an end. What the work uses is held then, until a later wait sees its end.

The program uses the default stream too, and its kernels may take any time. So the library first waits for the work that
was given to the stream before, without a limit, as it does for a stream that the program names. Only then it calls
CUDA's copies, which return when they are done: they would wait for all of that while no signal handler runs.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from extmem import vk
from extmem.errors import DriverError
from extmem.owning import Held, Uses

if TYPE_CHECKING:
    from extmem.devices.cuda.logical import LogicalDevice

__all__ = ["Submissions"]

_NOT_READY = 600
"""CUDA_ERROR_NOT_READY."""
_QUICK_LOOKS = 200
_PAUSE_S = 0.0005
"""Seconds between two queries of a stream, after the quick ones."""
_PATIENCE_S = 60.0
"""Seconds that the library's work, copies and fills, may take."""


class Submissions:
    """The work of one device on CUDA's default stream. The primary context is current unless stated otherwise."""

    def __init__(self, device: LogicalDevice) -> None:
        self._device = device
        self._unfinished: list[Uses] = []
        """What work on the default stream uses, if no wait has seen its end."""
        self._patience = _PATIENCE_S
        """Seconds that a wait may take; 0 once one took too long, so that calls only check whether it is done."""

    @property
    def unfinished(self) -> bool:
        """Whether an exception ended a wait, and no later one has seen the end of the work."""
        return bool(self._unfinished)

    def finish(self, stream: int = 0) -> None:
        """Wait until the work of a stream (CUstream; 0 is the default one) is done.

        Errors: DriverError, also if the library's work on the default stream does not end in a minute.
        """
        self._until_done(stream, limited=not stream and self.unfinished)
        device = self._device
        device.check(device.module.cuStreamSynchronize(stream)[0], "cuStreamSynchronize")

    def until(self, event: Any) -> None:
        """Wait until an event of the library's work on the default stream is complete. Errors: as `finish`."""
        self._wait(self._device.module.cuEventQuery, event, "cuEventQuery", limited=True)

    def _wait(self, query: Any, what: Any, command: str, *, limited: bool) -> None:
        looks, until = 0, time.monotonic() + self._patience
        while int(query(what)[0]) == _NOT_READY:
            if limited and time.monotonic() >= until:
                self._patience = 0.0
                raise DriverError(
                    f"{command} on {self._device.name}: work that was given to the default stream does not end "
                    f"(the wait was {_PATIENCE_S:.0f} seconds at first); what it uses is held until it does. Try again "
                    "later; if the GPU hangs, end this process",
                    result=int(vk.Result.TIMEOUT),
                    command=command,
                    devices=[self._device.name],
                )
            looks += 1
            time.sleep(0 if looks < _QUICK_LOOKS else _PAUSE_S)

    def _until_done(self, stream: int, *, limited: bool) -> None:
        """Wait. Errors: those of signal handlers; DriverError if `limited`. A failed stream runs nothing any more."""
        before = [] if stream else list(self._unfinished)
        self._wait(self._device.module.cuStreamQuery, stream, "cuStreamQuery", limited=limited)
        if not stream:
            self._patience = _PATIENCE_S
        for uses in before:
            uses.end()
            with contextlib.suppress(ValueError):  # another thread waited too
                self._unfinished.remove(uses)

    @contextlib.contextmanager
    def work(self, *used: Held, uses: Uses | None = None) -> Iterator[None]:
        """A block that gives work to the default stream, which is done at its end. The context is current within it.

        used, uses: what the work uses. It is held until the work is done.
        """
        held, done = Uses(), True
        try:
            for one in used:
                held.add(one)
            if uses is not None:
                held.add_all(uses)
            with self._device.gpu.current:
                self._until_done(0, limited=self.unfinished)
                try:
                    yield
                finally:
                    done = False
                    self._until_done(0, limited=True)
                    done = True
                    self.finish()
        finally:
            if done:
                held.end()
            else:
                self._unfinished.append(held)
