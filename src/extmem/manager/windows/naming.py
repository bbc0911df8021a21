r"""Waits for names on Windows: an event beside the names of the payload and its companion.

::

    \Sessions\1\BaseNamedObjects\extmem.CAMERA.wait.extmem      the event of those who wait for "Camera"

How this works. A process that waits opens or creates the event, and then looks for the name. A process that shares
memory signals the event, if it exists, when the name and the description exist. So either the look finds the name, or
the signal comes later. The event is a manual-reset event, because there may be several that wait. One that was woken
and finds no name (the memory has ended again) resets the event, and looks once more: if it finds the name then, the
signal that it has reset may have been for another one, and it signals again.

Windows keeps no reference for one that waits: memory that ends before the waiting process has opened it is gone.
The event has the default security, so users wait for what processes of their own share.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from typing import Final

from extmem.errors import NameNotFoundError, UnsupportedError
from extmem.handles._win32 import calls, waitables
from extmem.manager.api import Manager, NameWait, Reference
from extmem.manager.windows import names, status_errors
from extmem.manager.windows.sync_references import SyncReferences
from extmem.objects import Status
from extmem.owning import OwnedDescriptor, OwnedFd
from extmem.sharing.keeping import Keep
from extmem.sharing.kinds import ObjectKind
from extmem.sharing.terms import Exported, Imported

__all__ = ["Naming", "WindowsNameWait", "refuse_terms"]

_MODIFY: Final = 0x0002
_LONGEST: Final = 86_400.0
"""Seconds of one call of the kernel; it is repeated for longer waits."""


class WindowsNameWait(NameWait):
    """The event of a name."""

    def __init__(self, manager: Manager, name: str, desired: int, object_kind: ObjectKind, event: OwnedFd) -> None:
        self._manager = manager
        self._name = name
        self._desired = desired
        self._object_kind = object_kind
        self._event = event

    def sleep(self, seconds: float | None) -> None:
        """See `NameWait`."""
        deadline = math.inf if seconds is None else time.monotonic() + seconds
        with self._event.hold():
            while (left := deadline - time.monotonic()) > 0:
                milliseconds = math.ceil(min(left, _LONGEST) * 1000)
                if waitables.wait_any([self._event.fd], milliseconds) == 0:
                    return

    async def sleep_async(self) -> None:
        """See `NameWait`. A thread waits; it ends with the wait, also with a cancelled one."""
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        try:
            stop = OwnedDescriptor(waitables.create_event(None, signaled=False))
        except calls.StatusError as error:
            raise _cannot_wait(error, self._name) from None
        try:
            with self._event.hold(), stop.hold():
                handles = [self._event.fd, stop.fd]
                thread = threading.Thread(
                    target=_wait, args=(handles, loop, over), name="extmem-name-wait", daemon=True
                )
                thread.start()
                try:
                    await over
                finally:
                    waitables.set_event(stop.fd)
                    thread.join()
        finally:
            stop.close()

    def take(self, reference: Reference) -> Imported | None:
        """See `NameWait`."""
        try:
            with self._event.hold():
                found = self._look(reference)
                if found is None:
                    waitables.reset(self._event.fd)
                    found = self._look(reference)
                    if found is not None:
                        waitables.set_event(self._event.fd)
                return found
        finally:
            self.close()

    def close(self) -> None:
        """See `NameWait`."""
        self._event.close()

    def _look(self, reference: Reference) -> Imported | None:
        try:
            return self._manager.import_by_name(self._name, self._desired, reference, object_kind=self._object_kind)
        except NameNotFoundError:
            return None


def _wait(handles: list[int], loop: asyncio.AbstractEventLoop, over: asyncio.Future[None]) -> None:
    while waitables.wait_any(handles, math.ceil(_LONGEST * 1000)) not in (0, 1):
        pass
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(_finish, over)


def _cannot_wait(error: calls.StatusError, name: str, path: str = "") -> Exception:
    """Return the error for an event of a wait that cannot be made. path: that of the event; empty for none."""
    return status_errors.out_of_memory(
        error, "NtCreateEvent", f"an event to wait for the name {name!r}"
    ) or status_errors.of_opening(error, name, path, waitables.ALL)


def _finish(over: asyncio.Future[None]) -> None:
    if not over.done():
        over.set_result(None)


class Naming(SyncReferences):
    """The calls that concern names which do not exist yet."""

    def await_name(
        self,
        name: str,
        desired: int,
        reference: Reference,
        *,
        object_kind: ObjectKind = ObjectKind.MEMORY,
    ) -> Imported | NameWait:
        """See `Manager`."""
        event = self._event_of(name)
        try:
            found = self.import_by_name(name, desired, reference, object_kind=object_kind)
        except NameNotFoundError as error:
            if error.ntstatus == Status.OBJECT_PATH_NOT_FOUND:
                event.close()
                raise  # no object can ever have it
            return WindowsNameWait(self, name, desired, object_kind, event)
        except BaseException:
            event.close()
            raise
        event.close()
        return found

    def _event_of(self, name: str) -> OwnedFd:
        path = names.waiters_of(names.payload_path(names.resolve(name, self.session())))
        for _ in range(64):  # another process may create it, or close the last handle, between the two calls
            with contextlib.suppress(calls.StatusError):
                return OwnedDescriptor(waitables.open_event(path, waitables.ALL))
            try:
                return OwnedDescriptor(waitables.create_event(path, signaled=False))
            except calls.StatusError as error:
                if error.status != Status.OBJECT_NAME_COLLISION:
                    raise _cannot_wait(error, name, path) from None
        raise status_errors.of_opening(calls.StatusError(Status.ACCESS_DENIED), name, path, waitables.ALL)

    def told(self, name: str | None, exported: Exported) -> Exported:
        """Return the export, after those who wait for its name were woken."""
        if name is None:
            return exported
        path = names.waiters_of(names.payload_path(names.resolve(name, self.session())))
        with contextlib.suppress(calls.StatusError):  # nobody waits, or only another user
            event = OwnedDescriptor(waitables.open_event(path, _MODIFY))
            try:
                waitables.set_event(event.fd)
            finally:
                event.close()
        return exported

    def forget_name(self, name: str) -> bool:
        """See `Manager`. Nothing is kept on Windows: NameNotFoundError for a name that does not exist."""
        self.import_by_name(name, reference=(reference := Reference(self))).payload.close()
        reference.give_back()
        return False


def refuse_terms(replace: bool, keep: Keep) -> None:
    """Refuse what the kernel cannot do. `core.naming.refuse_terms` has the reasons for programs."""
    if replace or keep:
        raise UnsupportedError(
            "the Windows kernel can neither give the name of an object to another one nor keep an object that no "
            "process has open; use another name, and have a process of your own keep the memory",
            requires_one_of=["Linux"],
        )
