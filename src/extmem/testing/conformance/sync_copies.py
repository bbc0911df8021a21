"""Scenarios for copies of handles of semaphores and fences: duplicated in every way, and sent to another process."""

from __future__ import annotations

import os
import socket
import sys

from extmem.handles import FdHandle, KmtHandle, NtHandle
from extmem.testing.children import Peer
from extmem.testing.conformance._case import NotSupportedError, expect
from extmem.testing.conformance._sync_case import SyncCase

__all__ = ["dup", "dup2", "dup3", "export_multiple_times", "open_in_other_process", "send_over_socket", "two_processes"]


def export_multiple_times(case: SyncCase) -> None:
    """Export thousands of handles of one object, each closed before the next; a few are imported."""
    made = case.make(case.exporter)
    for number in range(case.repeats):
        if case.copies:
            case.signal(made)
        handle = case.handle(made) if number == 0 else case.another_handle(made)
        if number % 1024 == 0:
            thing = case.imported(handle)
            if not case.copies:
                case.signal(made)
            case.wait(thing)
            if case.fence and not case.copies:
                case.reset(made)
            thing.close()
        if not isinstance(handle, int):
            handle.close()


def _imports(case: SyncCase, handle: FdHandle | NtHandle | KmtHandle, signaled: bool) -> None:
    thing = case.imported(handle)
    if not signaled:
        case.signal(thing)
    case.wait(thing)


def _exported(case: SyncCase, count: int) -> list[FdHandle | NtHandle | KmtHandle]:
    made = case.make(case.exporter)
    handles: list[FdHandle | NtHandle | KmtHandle] = []
    for number in range(count):
        if case.copies:
            case.signal(made)
        handle = case.handle(made) if number == 0 else case.another_handle(made)
        if isinstance(handle, int):
            raise NotSupportedError("the device exports -1, which is not an fd that can be copied")
        handles.append(handle)
    return handles


def dup(case: SyncCase) -> None:
    """Export once and import a copy: dup(2), or DuplicateHandle with the same access."""
    (handle,) = _exported(case, 1)
    copy = case.kept(handle.duplicate(inherit=True) if isinstance(handle, NtHandle) else handle.duplicate())
    _imports(case, copy, case.copies)


def dup2(case: SyncCase) -> None:
    """Export twice, put the first over the second with dup2(2); or DuplicateHandle with DUPLICATE_CLOSE_SOURCE."""
    first, second = _exported(case, 2)
    if isinstance(first, FdHandle):
        os.dup2(int(first), int(second), inheritable=True)
        _imports(case, second, case.copies)
    elif isinstance(first, NtHandle):
        moved = first.duplicate(close_source=True)
        case.keep(moved)
        expect(first.closed, "DUPLICATE_CLOSE_SOURCE must close the source")
        _imports(case, moved, case.copies)


def dup3(case: SyncCase) -> None:
    """Export twice, put the first over the second with dup3(2); or DuplicateHandle with an access and inheritance."""
    first, second = _exported(case, 2)
    if isinstance(first, FdHandle):
        os.dup2(int(first), int(second), inheritable=False)
        _imports(case, second, case.copies)
    elif isinstance(first, NtHandle):
        other = first.duplicate(access=0x1F0003, inherit=True)
        case.keep(other)
        expect(other.same_object(first), "a duplicate must refer to the same object")
        _imports(case, other, case.copies)


def send_over_socket(case: SyncCase) -> None:
    """Send the fd with SCM_RIGHTS over a Unix socket, receive it, and import it."""
    if sys.platform != "linux":
        raise NotSupportedError("file descriptors travel over sockets on Linux alone")
    (handle,) = _exported(case, 1)
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with sender, receiver:
        socket.send_fds(sender, [b"deqp"], [int(handle)])
        text, fds, _, _ = socket.recv_fds(receiver, 4, 1, socket.MSG_CMSG_CLOEXEC)
    received = [FdHandle(fd) for fd in fds]
    case.keep(*received)
    expect(text == b"deqp" and len(received) == 1, f"{text!r} and {len(received)} descriptors came")
    _imports(case, received[0], case.copies)


_REMOTE = """
from extmem.testing.conformance._sync_case import Payload, SyncCase, SyncVariant
variant = SyncVariant(handles, Payload(payload), temporary)
case = SyncCase(lambda: {device}, variant)
opened = case.__enter__()
"""


def _peer_case(case: SyncCase, peer: Peer) -> None:
    variant = case.variant
    peer(
        _REMOTE.format(device=case.remote),
        handles=variant.handles,
        payload=variant.payload.value,
        temporary=variant.temporary,
    )


def two_processes(case: SyncCase) -> None:
    """Another process imports the handle; it waits for a signal of this one, and this one for its own."""
    made = case.make(case.exporter)
    if case.copies:
        case.signal(made)
    handle = case.handle(made)
    if isinstance(handle, int):
        raise NotSupportedError("the device exports -1, which needs no other process")
    with Peer() as peer:
        _peer_case(case, peer)
        peer("thing = case.imported(handle)", handle=handle)
        if not case.copies:
            case.signal(made)
        peer("case._value = value\ncase.wait(thing)", value=case._value)
        if not case.copies and not case.variant.temporary:
            if case.fence:
                peer("case.reset(thing)")
                expect(not case.signaled(made), "a reset in the other process must reach this one")
            case._value = peer("case.signal(thing)\ncase._value")
            case.wait(made)
        peer("case.__exit__(None, None, None)")
        peer.leave()


def open_in_other_process(case: SyncCase) -> None:
    """Another process, which gets the name and nothing else, imports by it, and waits for a signal of this one."""
    name = case.name()
    made = case.make(case.exporter, name=name)
    with Peer() as peer:
        _peer_case(case, peer)
        peer("thing = case.target(case.importer)\ncase.import_into(thing, None, name=name)", name=name)
        case.signal(made)
        peer("case._value = value\ncase.wait(thing)", value=case._value)
        peer("case.__exit__(None, None, None)")
        peer.leave()
