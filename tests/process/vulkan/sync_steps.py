"""Semaphores between two processes, by their fds alone. Peers execute `PEER` first."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

from extmem.devices.sync import NativeSync
from extmem.testing.children import Peer

__all__ = ["PEER", "SECOND", "receives"]

SECOND = 1_000_000_000
"""Nanoseconds."""
PEER = """
import socket
import extmem
from extmem.devices.sync import Batch, FenceSpec, SemaphoreSignal, SemaphoreSpec, SemaphoreWait, SyncSource
from extmem.owning import OwnedFd, Uses
from extmem.sharing.payload import PayloadFd

def import_into(target, fds, handle_type, temporary=False):
    handles = [OwnedFd(fd) for fd in fds]
    payload = PayloadFd(handles[0], True, handles[1:], [2] * (len(handles) - 1))
    timeline = getattr(target, "timeline", False)
    target.import_payload(SyncSource(handle_type, temporary=temporary, timeline=timeline, payload=payload))

def submit(waits=(), signals=(), fence=None):
    waits = [SemaphoreWait(*one) for one in waits]
    backend.submit_batches([Batch(waits=waits, signals=[SemaphoreSignal(*one) for one in signals])], fence, Uses())
"""


@contextlib.contextmanager
def receives(opening: str, native: NativeSync, **variables: Any) -> Iterator[Peer]:
    """Another process that has received the files of a semaphore or fence, as `fds`, and opened a device.

    opening: the expression that opens its device. The files are those that the object manager would pass on.
    """
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    assert native.fd is not None
    fds = [native.fd, *(page.handle for page in native.pages)]
    with here, there, Peer(pass_fds=[there.fileno()]) as peer:
        socket.send_fds(here, [b"fd"], fds)
        peer(PEER)
        peer(f"_, fds, _, _ = socket.recv_fds(socket.socket(fileno={there.fileno()}), 2, {len(fds)})")
        peer(f"device = {opening}\nbackend = device.backend\nNone")
        for name, value in variables.items():
            peer(f"{name} = value", value=value)
        yield peer
        peer("device.close()")
        peer.leave()
