"""What the processes of `extmem bench vulkan` do: export here and import there, by C and by this library.

Both ends of a pair share a Unix socket. A round begins before vkAllocateMemory for export in one process, and ends when
the other has imported the payload, made a buffer and bound it; the importer tells that moment after it has freed all.

- C sends its fd in an SCM_RIGHTS message, and imports the fd.
- This library sends an fd handle with its payload's description (`extmem.process.send_handle`), opens it and asks for
  a buffer over it: the rules judge allocation, export, buffer and binding; size and memory type come along.
- By name (told beside it): the export is named, which takes the device's fd to the object manager; the name goes
  through the socket, and the importer's vkAllocateMemory imports by it.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import socket
import struct
import sys
import time
from typing import Any, NamedTuple

import extmem
from extmem import vk
from extmem.cli._bench.floor import Floor
from extmem.process import receive_handle, send_handle

if sys.platform != "linux":
    raise ImportError("the benchmarks measure Linux's object manager and opaque fds; there is none to measure here")

from extmem.cli._bench.sharing import import_by_name

__all__ = ["USAGE", "Payload", "buffer_info", "exportable", "export_named"]

HandleType = vk.ExternalMemoryHandleTypeFlagBits
USAGE = vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST
_HEADER = struct.Struct("QQI")
_END = struct.Struct("q")
_clock = time.perf_counter_ns
"""CLOCK_MONOTONIC, which all processes of the machine share, as C's."""
_at: dict[str, Any] = {}
"""What this process keeps between tasks."""
_numbers = itertools.count(1)


class Payload(NamedTuple):
    """What is exported: bytes of the memory and of the buffer on it, and the memory type."""

    size: int
    buffer_size: int
    memory_type: int


def buffer_info(size: int, handle_type: HandleType) -> vk.BufferCreateInfo:
    """A buffer for moving bytes, on shared memory of that type."""
    return vk.BufferCreateInfo(size=size, usage=USAGE, p_next=vk.ExternalMemoryBufferCreateInfo(handle_type))


def exportable(device: extmem.Device, size: int) -> Payload:
    """Memory for a buffer of so many bytes, of the device's own where it has any."""
    with device.create_buffer(buffer_info(size, HandleType.OPAQUE_FD)) as buffer:
        needs = buffer.requirements
    if needs.requires_dedicated:
        raise extmem.UnsupportedError(f"{device.name} wants dedicated memory for every shared buffer; not measured")
    types = device.facts.memory_types
    allowed = [index for index in range(len(types)) if needs.memory_type_bits >> index & 1]
    local = [i for i in allowed if types[i].property_flags & vk.MemoryPropertyFlagBits.DEVICE_LOCAL] or allowed
    return Payload(needs.size, size, max(local, key=lambda index: types[index].heap_size))


def export_named(device: extmem.Device, payload: Payload, name: str) -> extmem.DeviceMemory:
    """vkAllocateMemory with VkExportMemoryWin32HandleInfoKHR::name."""
    named = vk.ExportMemoryWin32HandleInfoKHR(None, extmem.Access.ALL, name)
    return device.allocate_memory(
        vk.MemoryAllocateInfo(
            payload.size, payload.memory_type, vk.ExportMemoryAllocateInfo(HandleType.OPAQUE_WIN32, named)
        )
    )


# Pairs of processes.


def settle(processor: int) -> None:
    """Stay on one processor."""
    os.sched_setaffinity(0, {processor})


def listen(address: str) -> None:
    """An exporter: where its importer will find it."""
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    door.bind(address)
    door.listen(1)
    _at["door"] = door


def _accepted() -> socket.socket:
    if "peer" not in _at:
        with _at.pop("door") as door:
            _at["peer"], _ = door.accept()
        gc.disable()  # as in every comparison; what a round makes has no cycles
    peer: socket.socket = _at["peer"]
    return peer


def pass_by_c(library: str, uuid: bytes, payload: Payload, rounds: int) -> list[int]:
    """C's exporter: nanoseconds of each of so many rounds."""
    peer = _accepted()
    floor = _at.get("floor") or _at.setdefault("floor", Floor(library, uuid))
    return [
        int(floor.passed(peer.fileno(), payload.size, payload.memory_type, payload.buffer_size, int(USAGE)))
        for _ in range(rounds)
    ]


def take_by_c(address: str, library: str, uuid: bytes) -> None:
    """C's importer, until the exporter goes."""
    floor = Floor(library, uuid)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
        peer.connect(address)
        while floor.take(peer.fileno()):
            pass
    floor.close()


def pass_by_fd(payload: Payload, rounds: int) -> list[int]:
    """This library's exporter: nanoseconds of each of so many rounds."""
    peer = _accepted()
    device = _at.get("device") or _at.setdefault("device", extmem.open_device(kind="vulkan"))
    return [_passed_by_fd(device, peer, payload) for _ in range(rounds)]


def _passed_by_fd(device: extmem.Device, peer: socket.socket, payload: Payload) -> int:
    start = _clock()
    memory = device.allocate_memory(
        vk.MemoryAllocateInfo(payload.size, payload.memory_type, vk.ExportMemoryAllocateInfo(HandleType.OPAQUE_FD))
    )
    handle = device.get_memory_fd(vk.MemoryGetFdInfoKHR(memory, HandleType.OPAQUE_FD))
    send_handle(peer, handle)
    answer = peer.recv(_END.size)
    handle.close()
    memory.close()
    if len(answer) != _END.size:
        raise OSError("the importer went away")
    return int(_END.unpack(answer)[0]) - start


def take_by_fd(address: str) -> None:
    """This library's importer, until the exporter goes."""
    gc.disable()
    with (
        extmem.open_device(kind="vulkan") as device,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer,
        contextlib.suppress(extmem.PeerGoneError),
    ):
        peer.connect(address)
        while True:
            memory = device.open(receive_handle(peer))
            memory.buffer()
            end = _clock()
            memory.close()
            peer.send(_END.pack(end))


def pass_by_name(payload: Payload, rounds: int) -> list[int]:
    """This library's exporter: nanoseconds of each of so many rounds."""
    peer = _accepted()
    device = _at.get("device") or _at.setdefault("device", extmem.open_device(kind="vulkan"))
    return [_passed_by_name(device, peer, payload) for _ in range(rounds)]


def _passed_by_name(device: extmem.Device, peer: socket.socket, payload: Payload) -> int:
    name = f"bench pass {next(_numbers)}"
    start = _clock()
    memory = export_named(device, payload, name)
    peer.send(_HEADER.pack(*payload) + name.encode())
    answer = peer.recv(_END.size)
    memory.close()
    if len(answer) != _END.size:
        raise OSError("the importer went away")
    return int(_END.unpack(answer)[0]) - start


def take_by_name(address: str) -> None:
    """This library's importer, until the exporter goes."""
    gc.disable()
    with (
        extmem.open_device(kind="vulkan") as device,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer,
    ):
        peer.connect(address)
        while message := peer.recv(256):
            size, buffer_size, memory_type = _HEADER.unpack_from(message)
            memory = import_by_name(device, message[_HEADER.size :].decode(), size, memory_type)
            buffer = device.create_buffer(buffer_info(buffer_size, HandleType.OPAQUE_WIN32))
            device.bind_buffer_memory(buffer, memory)
            end = _clock()
            buffer.close()
            memory.close()
            peer.send(_END.pack(end))
