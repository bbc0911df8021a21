"""Scenarios for copies of handles: exported again, duplicated in every way, sent to somebody else."""

from __future__ import annotations

import os
import socket
import sys

from extmem import vk
from extmem.api import DeviceMemory
from extmem.handles import Access, FdHandle, NtHandle
from extmem.testing.children import Peer
from extmem.testing.conformance._case import READ_WRITE, Case, Handle, NotSupportedError, expect

__all__ = [
    "dup",
    "dup2",
    "dup3",
    "export_multiple_times",
    "open_in_other_process",
    "send_over_socket",
    "send_to_other_process",
]


def export_multiple_times(case: Case) -> None:
    """Thousands of handles of one memory object, each closed before the next; a few are imported.

    NT handles come once from the device and then as duplicates made by the library.
    """
    buffer = case.buffer(case.exporter)
    memory = case.allocate(buffer)
    data = case.data(buffer.requirements.size)
    looks = case.can_look(memory)
    if looks:
        case.write(memory, data)
    for index in range(case.repeats):
        handle = case.another_handle(memory)
        if index % 1024 == 0:
            imported = case.import_memory(case.buffer(case.importer), handle)
            if looks:
                case.expect_bytes(data, importer=imported)
            imported.close()
        handle.close()


def _start(case: Case) -> tuple[DeviceMemory, bytes]:
    buffer = case.buffer(case.exporter)
    memory = case.allocate(buffer)
    data = case.data(buffer.requirements.size)
    if case.can_look(memory):
        case.write(memory, data)
    return memory, data


def _both_ways(case: Case, memory: DeviceMemory, data: bytes, handle: Handle) -> None:
    """Import the handle; the importer reads what was written, and the exporter what the importer writes."""
    imported = case.import_memory(case.buffer(case.importer), handle)
    if not case.can_look(memory, imported):
        return
    case.expect_bytes(data, importer=imported)
    data = case.data(len(data))
    case.write(imported, data)
    case.expect_bytes(data, exporter=memory)


def dup(case: Case) -> None:
    """Export once and import a copy: dup(2), or DuplicateHandle with the same access."""
    memory, data = _start(case)
    _both_ways(case, memory, data, case.copy(case.handle(memory)))


def dup2(case: Case) -> None:
    """Export twice, put the first over the second with dup2(2); or DuplicateHandle with DUPLICATE_CLOSE_SOURCE."""
    memory, data = _start(case)
    first, second = case.handle(memory), case.another_handle(memory)
    if isinstance(first, FdHandle) and isinstance(second, FdHandle):
        os.dup2(int(first), int(second), inheritable=True)
        _both_ways(case, memory, data, second)
        return
    expect(isinstance(first, NtHandle), f"{first!r} is no NT handle")
    if isinstance(first, NtHandle):
        value = int(first)
        moved = first.duplicate(close_source=True)
        case.keep(moved)
        expect(first.closed, "DUPLICATE_CLOSE_SOURCE must close the source")
        expect(int(moved) == value, f"within one process it must keep the value {value:#x}, and gave {int(moved):#x}")
        _both_ways(case, memory, data, moved)


def dup3(case: Case) -> None:
    """Export twice, put the first over the second with dup3(2); or DuplicateHandle with an access and inheritance."""
    memory, data = _start(case)
    first, second = case.handle(memory), case.another_handle(memory)
    if isinstance(first, FdHandle) and isinstance(second, FdHandle):
        os.dup2(int(first), int(second), inheritable=False)
        _both_ways(case, memory, data, second)
        return
    expect(isinstance(first, NtHandle), f"{first!r} is no NT handle")
    if isinstance(first, NtHandle):
        other = first.duplicate(access=READ_WRITE, inherit=True)
        case.keep(other)
        expect(other.same_object(first), "a duplicate must refer to the same object")
        expect(bool(other.access & Access.WRITE), f"the duplicate's access is {other.access!r}, WRITE was asked for")
        _both_ways(case, memory, data, other)


def send_over_socket(case: Case) -> None:
    """Send the fd with SCM_RIGHTS and four bytes over a Unix socket, receive it, import what came."""
    if sys.platform != "linux":
        raise NotSupportedError("file descriptors travel over sockets on Linux alone")
    memory, data = _start(case)
    handle = case.handle(memory)
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with here, there:
        socket.send_fds(here, [b"deqp"], [int(handle)])
        text, fds, flags, _ = socket.recv_fds(there, 4, 1, socket.MSG_CMSG_CLOEXEC)
    received = [FdHandle(fd) for fd in fds]
    case.keep(*received)
    expect(text == b"deqp", f"{text!r} came with the descriptor instead of b'deqp'")
    expect(len(received) == 1 and not flags & socket.MSG_CTRUNC, f"{len(received)} descriptors came, flags {flags:#x}")
    _both_ways(case, memory, data, received[0])


_THERE = """
memory = device.allocate_memory(vk.MemoryAllocateInfo(size, kind, chain))
with memory.map() as view:
    found = bytes(view[:])
    view[:] = answer
memory.close()
found
"""


def send_to_other_process(case: Case) -> None:
    """Another process gets the handle in the family's own way, imports it, reads, and writes an answer.

    fd: over a Unix socket. NT: DuplicateHandle into that process. KMT: the number itself.
    """
    memory, data = _start(case)
    if not case.can_look(memory):
        return
    handle = case.handle(memory)
    if isinstance(handle, FdHandle):
        _send_fd(case, memory, data, handle)
        return
    with Peer() as peer:
        peer(f"from extmem import raw\ndevice = {case.remote}")
        if isinstance(handle, NtHandle):
            # The receiver must be known to the object manager before anything can be put into its handle table.
            peer("from extmem.manager import manager\nmanager().kmt_alive(0)")
            peer(f"handle = raw.nt_handle({handle.duplicate(into=peer.pid)})")
        else:
            peer(f"handle = raw.kmt_handle({int(handle)})")
        kind = f"vk.ExternalMemoryHandleTypeFlagBits({int(case.handle_type)})"
        _answered_there(case, peer, memory, data, f"vk.ImportMemoryWin32HandleInfoKHR({kind}, handle, None)")
        peer("handle.close()\ndevice.close()")
        peer.leave()


def _send_fd(case: Case, memory: DeviceMemory, data: bytes, handle: FdHandle) -> None:
    if sys.platform != "linux":
        raise NotSupportedError("file descriptors travel over sockets on Linux alone")
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with here, there, Peer(pass_fds=[there.fileno()]) as peer:
        peer(f"import socket\nfrom extmem import raw\ndevice = {case.remote}")
        socket.send_fds(here, [b"deqp"], [int(handle)])
        peer(f"_, fds, _, _ = socket.recv_fds(socket.socket(fileno={there.fileno()}), 4, 1)")
        peer("handle = raw.fd_handle(fds[0])")
        kind = f"vk.ExternalMemoryHandleTypeFlagBits({int(case.handle_type)})"
        _answered_there(case, peer, memory, data, f"vk.ImportMemoryFdInfoKHR({kind}, handle)")
        peer("handle.close()\ndevice.close()")
        peer.leave()


def open_in_other_process(case: Case) -> None:
    """Another process, which is told the name and nothing else that leads there, imports by it and answers."""
    name = case.name()
    memory = case.allocate(case.buffer(case.exporter), win32=vk.ExportMemoryWin32HandleInfoKHR(None, READ_WRITE, name))
    if not case.can_look(memory):
        return
    data = case.data(memory.allocation_size)
    case.write(memory, data)
    with Peer() as peer:
        peer(f"device = {case.remote}")
        kind = f"vk.ExternalMemoryHandleTypeFlagBits({int(case.handle_type)})"
        _answered_there(case, peer, memory, data, f"vk.ImportMemoryWin32HandleInfoKHR({kind}, None, {name!r})")
        peer("device.close()")
        peer.leave()


def _answered_there(case: Case, peer: Peer, memory: DeviceMemory, data: bytes, chain: str) -> None:
    """The peer imports by the chain, with a dedicated buffer of its own where the variant is; reads; and answers."""
    answer = case.data(len(data))
    if case.variant.dedicated:
        peer(
            "buffer = device.create_buffer(vk.BufferCreateInfo(size=size, usage=usage, "
            f"p_next=vk.ExternalMemoryBufferCreateInfo(vk.ExternalMemoryHandleTypeFlagBits({int(case.handle_type)}))))",
            **case.buffer_facts(),
        )
        chain = f"vk.MemoryDedicatedAllocateInfo(None, buffer, {chain})"
    found = peer(
        f"chain = {chain}\n{_THERE}", size=memory.allocation_size, kind=memory.memory_type_index, answer=answer
    )
    expect(found == data, "the other process reads other bytes than were written")
    case.expect_bytes(answer, exporter=memory)
    if case.variant.dedicated:
        peer("buffer.close()")
