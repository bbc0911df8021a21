"""Waits for names, leases, superseded and kept objects: the calls of the broker's client for them.

How this works. `AwaitName` gets an import, or a wait with a pipe. The broker writes to the pipe when the name has
appeared; then `EndWait` returns the import. The wait is only the pipe: who closes it, in whatever way, ends the wait.
If the broker ends, or its connection is lost, the pipe ends, too: `take` returns None, and the caller begins again with
the next broker.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from extmem import wire
from extmem.errors import InvalidHandleError, NameNotFoundError, UnsupportedError
from extmem.manager.api import Lease, NameWait, Reference
from extmem.manager.linux.broker_control import BrokerControl, expect
from extmem.manager.linux.client import Client
from extmem.manager.linux.held import State
from extmem.manager.linux.validate import check_mask, check_name
from extmem.objects import Status
from extmem.owning import OwnedFd, late_imports
from extmem.sharing.kinds import ObjectKind
from extmem.sharing.terms import Imported

if TYPE_CHECKING:
    import asyncio

__all__ = ["LinuxLease", "LinuxNameWait", "Naming"]

_LONGEST: Final = 86_400.0
"""Seconds of one call of poll(2), which counts milliseconds in 31 bits; it is repeated for longer waits."""


def _sleep(pipe: OwnedFd, seconds: float | None) -> None:
    """Wait until there is a byte in the pipe, or its other end is closed, for so many seconds at most."""
    deadline = None if seconds is None else time.monotonic() + seconds
    with pipe.hold():
        waiting = select.poll()
        waiting.register(pipe.fd, select.POLLIN)
        while True:
            left = _LONGEST if deadline is None else max(0.0, deadline - time.monotonic())
            if waiting.poll(min(left, _LONGEST) * 1000) or (deadline is not None and left < _LONGEST):
                return


class LinuxLease(Lease):
    """The read end of a pipe, at which the broker tells that this process has the lease."""

    def __init__(self, pipe: OwnedFd) -> None:
        self._pipe = pipe

    def obtain(self, seconds: float | None) -> bool | None:
        _sleep(self._pipe, seconds)
        with self._pipe.hold():
            try:
                return True if os.read(self._pipe.fd, 1) else None
            except BlockingIOError:
                return False

    def close(self) -> None:
        self._pipe.close()


class LinuxNameWait(NameWait):
    """The read end of a pipe, at which the broker tells that the wait is over."""

    def __init__(self, client: Client, number: int, pipe: OwnedFd) -> None:
        self._client = client
        self._number = number
        self._pipe = pipe

    def sleep(self, seconds: float | None) -> None:
        _sleep(self._pipe, seconds)

    async def sleep_async(self) -> None:
        with late_imports():
            import asyncio

        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        with self._pipe.hold():
            loop.add_reader(self._pipe.fd, _finish, over)
            try:
                await over
            finally:
                loop.remove_reader(self._pipe.fd)

    def take(self, reference: Reference) -> Imported | None:
        client = self._client
        try:
            with client.lock:
                return client.perform(wire.EndWait(self._number), partial(State.imported, owner=reference))
        except NameNotFoundError:
            return None
        except InvalidHandleError as error:
            if error.ntstatus != Status.INVALID_HANDLE:
                raise
            return None  # the broker that had the wait has ended
        finally:
            self.close()

    def close(self) -> None:
        self._pipe.close()


def _finish(over: asyncio.Future[None]) -> None:
    if not over.done():
        over.set_result(None)


def _leased(state: State, reply: wire.Reply, received: Sequence[OwnedFd]) -> Lease:
    expect(reply, wire.Awaited)
    return LinuxLease(received[0])


class Naming(BrokerControl):
    """The calls."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self.names_counter = (None,)
        self._watched: object = None
        """The connection whose broker counts in `names_counter`, the page, mapped: reading it is not a system call."""

    def await_name(
        self,
        name: str,
        desired: int,
        reference: Reference,
        *,
        object_kind: ObjectKind = ObjectKind.MEMORY,
    ) -> Imported | NameWait:
        self._check_name(name)
        client = self.client

        def enter(state: State, reply: wire.Reply, received: Sequence[OwnedFd]) -> Imported | NameWait:
            if type(reply) is wire.Awaited:
                return LinuxNameWait(client, reply.number, received[0])
            return state.imported(reply, received, owner=reference)

        with client.lock:
            return client.perform(wire.AwaitName(name, check_mask(desired), object_kind), enter)

    def watch_names(self) -> int:
        client = self.client
        while self._watched is None or self._watched is not client.connected:
            with client.lock:
                client.perform(wire.WatchNames(), self._enter_page)
        return cast("int", self.names_counter[0])

    def _enter_page(self, state: State, reply: wire.Reply, received: Sequence[OwnedFd]) -> None:
        with late_imports():
            import mmap

        expect(reply, wire.NamesPage)
        with received[0].hold():
            page = mmap.mmap(
                received[0].fd, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ
            )  # has its own copy of the fd
        received[0].close()
        self.names_counter = memoryview(page).cast("Q")
        self._watched = self.client.connected  # after the counter, since other threads read both

    def disconnect(self) -> None:
        super().disconnect()
        self._watched = None
        self.names_counter = (None,)

    def is_superseded(self, number: int) -> bool:
        client = self.client
        with client.lock:
            reply, _ = client.exchange(lambda: wire.IsSuperseded(client.number(number)))
        return bool(expect(reply, wire.Value).value)

    def lease(self, number: int) -> Lease:
        client = self.client
        with client.lock:
            return client.perform(lambda: wire.Lease(client.number(number)), _leased)

    def freeze(self, numbers: Sequence[int]) -> tuple[int, ...]:
        client = self.client
        with client.lock:
            reply, _ = client.exchange(lambda: wire.Freeze(tuple(map(client.number, numbers))))
        return expect(reply, wire.Writers).pids

    def forget_name(self, name: str) -> bool:
        self._check_name(name)
        client = self.client
        with client.lock:
            reply, _ = client.exchange(wire.Forget(name))
        return bool(expect(reply, wire.Value).value)

    def _check_name(self, name: str) -> None:
        """Refuse a name that no object of this broker can have."""
        check_name(name)
        if name[:7].casefold() == "global\\" and not self.client.directory.system:
            raise UnsupportedError(
                f"{name!r}: names under Global\\ are shared by all users of the machine, which on Linux requires a "
                "system-wide broker. This version of extmem connects only to the broker of its own user; use a name "
                "without Global\\, or let a child of the other user inherit the connection",
                requires_one_of=["a system broker"],
            )
