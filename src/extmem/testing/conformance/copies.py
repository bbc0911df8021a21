"""Scenarios for copies of handles: exported again, duplicated in every way, sent to another process."""

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
    """Export thousands of handles of one memory object, each closed before the next; a few are imported.

    The first NT handle comes from the device, the others are duplicates made by the library.
    """
    buffer = case.buffer(case.exporter)
    memory = case.allocate(buffer)
    data = case.data(buffer.requirements.size)
    visible = case.can_look(memory)
    if visible:
        case.write(memory, data)
    for index in range(case.repeats):
        handle = case.another_handle(memory)
        if index % 1024 == 0:
            imported = case.import_memory(case.buffer(case.importer), handle)
            if visible:
                case.expect_bytes(data, importer=imported)
            imported.close()
        handle.close()


def _exported(case: Case) -> tuple[DeviceMemory, bytes]:
    """Allocate exportable memory and fill it; also return what was written."""
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
    memory, data = _exported(case)
    _both_ways(case, memory, data, case.copy(case.handle(memory)))


def dup2(case: Case) -> None:
    """Export twice, put the first over the second with dup2(2); or DuplicateHandle with DUPLICATE_CLOSE_SOURCE."""
    memory, data = _exported(case)
    first, second = case.handle(memory), case.another_handle(memory)
    if isinstance(first, FdHandle) and isinstance(second, FdHandle):
        os.dup2(int(first), int(second), inheritable=True)
        _both_ways(case, memory, data, second)
        return
    expect(isinstance(first, NtHandle), f"{first!r} is not an NT handle")
    if isinstance(first, NtHandle):
        value = int(first)
        moved = first.duplicate(close_source=True)
        case.keep(moved)
        expect(first.closed, "DUPLICATE_CLOSE_SOURCE must close the source")
        expect(int(moved) == value, f"within one process it must keep the value {value:#x}, and gave {int(moved):#x}")
        _both_ways(case, memory, data, moved)


def dup3(case: Case) -> None:
    """Export twice, put the first over the second with dup3(2); or DuplicateHandle with an access and inheritance."""
    memory, data = _exported(case)
    first, second = case.handle(memory), case.another_handle(memory)
    if isinstance(first, FdHandle) and isinstance(second, FdHandle):
        os.dup2(int(first), int(second), inheritable=False)
        _both_ways(case, memory, data, second)
        return
    expect(isinstance(first, NtHandle), f"{first!r} is not an NT handle")
    if isinstance(first, NtHandle):
        other = first.duplicate(access=READ_WRITE, inherit=True)
        case.keep(other)
        expect(other.same_object(first), "a duplicate must refer to the same object")
        expect(bool(other.access & Access.WRITE), f"the duplicate's access is {other.access!r}, WRITE was asked for")
        _both_ways(case, memory, data, other)


def send_over_socket(case: Case) -> None:
    """Send the fd with SCM_RIGHTS and four bytes over a Unix socket, receive it, and import it."""
    if sys.platform != "linux":
        raise NotSupportedError("file descriptors travel over sockets on Linux alone")
    memory, data = _exported(case)
    handle = case.handle(memory)
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with sender, receiver:
        socket.send_fds(sender, [b"deqp"], [int(handle)])
        text, fds, flags, _ = socket.recv_fds(receiver, 4, 1, socket.MSG_CMSG_CLOEXEC)
    received = [FdHandle(fd) for fd in fds]
    case.keep(*received)
    expect(text == b"deqp", f"{text!r} came with the descriptor instead of b'deqp'")
    expect(len(received) == 1 and not flags & socket.MSG_CTRUNC, f"{len(received)} descriptors came, flags {flags:#x}")
    _both_ways(case, memory, data, received[0])


_READ_AND_ANSWER = """
memory = device.allocate_memory(vk.MemoryAllocateInfo(size, memory_type, chain))
with memory.map() as view:
    content = bytes(view[:])
    view[:] = answer
memory.close()
content
"""


def send_to_other_process(case: Case) -> None:
    """Send the handle to another process, which imports it, reads, and writes an answer.

    An fd is sent over a Unix socket, an NT handle by DuplicateHandle into that process, a KMT handle as its number.
    """
    memory, data = _exported(case)
    if not case.can_look(memory):
        return
    handle = case.handle(memory)
    if isinstance(handle, FdHandle):
        _send_fd(case, memory, data, handle)
        return
    with Peer() as peer:
        peer(f"from extmem import raw\ndevice = {case.remote}")
        if isinstance(handle, NtHandle):
            # The receiver must be connected to the object manager before its handle table can get an entry.
            peer("from extmem.manager import manager\nmanager().kmt_alive(0)")
            peer(f"handle = raw.nt_handle({handle.duplicate(into=peer.pid)})")
        else:
            peer(f"handle = raw.kmt_handle({int(handle)})")
        handle_type = f"vk.ExternalMemoryHandleTypeFlagBits({int(case.handle_type)})"
        _exchange(case, peer, memory, data, f"vk.ImportMemoryWin32HandleInfoKHR({handle_type}, handle, None)")
        peer("handle.close()\ndevice.close()")
        peer.leave()


def _send_fd(case: Case, memory: DeviceMemory, data: bytes, handle: FdHandle) -> None:
    if sys.platform != "linux":
        raise NotSupportedError("file descriptors travel over sockets on Linux alone")
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with sender, receiver, Peer(pass_fds=[receiver.fileno()]) as peer:
        peer(f"import socket\nfrom extmem import raw\ndevice = {case.remote}")
        socket.send_fds(sender, [b"deqp"], [int(handle)])
        peer(f"_, fds, _, _ = socket.recv_fds(socket.socket(fileno={receiver.fileno()}), 4, 1)")
        peer("handle = raw.fd_handle(fds[0])")
        handle_type = f"vk.ExternalMemoryHandleTypeFlagBits({int(case.handle_type)})"
        _exchange(case, peer, memory, data, f"vk.ImportMemoryFdInfoKHR({handle_type}, handle)")
        peer("handle.close()\ndevice.close()")
        peer.leave()


def open_in_other_process(case: Case) -> None:
    """Another process, which gets the name and nothing else of the payload, imports by it, reads and answers."""
    name = case.name()
    memory = case.allocate(case.buffer(case.exporter), win32=vk.ExportMemoryWin32HandleInfoKHR(None, READ_WRITE, name))
    if not case.can_look(memory):
        return
    data = case.data(memory.allocation_size)
    case.write(memory, data)
    with Peer() as peer:
        peer(f"device = {case.remote}")
        handle_type = f"vk.ExternalMemoryHandleTypeFlagBits({int(case.handle_type)})"
        _exchange(case, peer, memory, data, f"vk.ImportMemoryWin32HandleInfoKHR({handle_type}, None, {name!r})")
        peer("device.close()")
        peer.leave()


def _exchange(case: Case, peer: Peer, memory: DeviceMemory, data: bytes, chain: str) -> None:
    """The peer imports by the chain, in the dedicated variant with a buffer of its own, reads the data and answers."""
    answer = case.data(len(data))
    if case.variant.dedicated:
        peer(
            "buffer = device.create_buffer(vk.BufferCreateInfo(size=size, usage=usage, "
            f"p_next=vk.ExternalMemoryBufferCreateInfo(vk.ExternalMemoryHandleTypeFlagBits({int(case.handle_type)}))))",
            **case.buffer_facts(),
        )
        chain = f"vk.MemoryDedicatedAllocateInfo(None, buffer, {chain})"
    content = peer(
        f"chain = {chain}\n{_READ_AND_ANSWER}",
        size=memory.allocation_size,
        memory_type=memory.memory_type_index,
        answer=answer,
    )
    expect(content == data, "the other process reads other bytes than were written")
    case.expect_bytes(answer, exporter=memory)
    if case.variant.dedicated:
        peer("buffer.close()")
