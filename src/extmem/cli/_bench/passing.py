"""Tasks of the processes of `extmem bench vulkan`: export in one and import in another, by C and by extmem.

Both processes of a pair share a Unix socket. A round begins before vkAllocateMemory for export in one process, and ends
when the other has imported the payload, created a buffer and bound it. The importer sends that time after it has freed
everything. Both sides read CLOCK_MONOTONIC, which all processes of the machine share.

- C sends its fd in an SCM_RIGHTS message, and imports the fd.
- extmem sends an fd handle with the payload's descriptor (`extmem.process.send_handle`), opens it and requests a buffer
  over it. The rules check allocation, export, buffer and binding; size and memory type are in the descriptor.
- By name (without a bound): the export has a name, so the object manager gets the device's fd. The name is sent through
  the socket, and vkAllocateMemory of the importer imports by name.
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
from typing import Any, NamedTuple, cast

import extmem
from extmem import vk
from extmem.cli._bench.floor import Floor
from extmem.process import receive_handle, send_handle

if sys.platform != "linux":
    raise ImportError("this benchmark measures the broker and opaque fds of Linux")

from extmem.cli._bench.sharing import import_by_name

__all__ = ["USAGE", "Payload", "buffer_info", "exportable", "export_named"]

HandleType = vk.ExternalMemoryHandleTypeFlagBits
USAGE = vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST
_HEADER = struct.Struct("QQI")
_END = struct.Struct("q")
_at: dict[str, Any] = {}
"""Objects that this process keeps between tasks."""
_numbers = itertools.count(1)


class Payload(NamedTuple):
    """The exported memory: number of bytes of the memory and of its buffer, and the memory type."""

    size: int
    buffer_size: int
    memory_type: int


def buffer_info(size: int, handle_type: HandleType) -> vk.BufferCreateInfo:
    """Return the create info of a buffer for copies, for memory that is shared as that type."""
    return vk.BufferCreateInfo(size=size, usage=USAGE, p_next=vk.ExternalMemoryBufferCreateInfo(handle_type))


def exportable(device: extmem.Device, size: int) -> Payload:
    """Return memory for a buffer of `size` bytes, device-local if the device has such memory."""
    with device.create_buffer(buffer_info(size, HandleType.OPAQUE_FD)) as buffer:
        needs = buffer.requirements
    if needs.requires_dedicated:
        raise extmem.UnsupportedError(
            f"{device.name} requires dedicated memory for every shared buffer; this is not measured"
        )
    types = device.facts.memory_types
    allowed = [index for index in range(len(types)) if needs.memory_type_bits >> index & 1]
    local = [i for i in allowed if types[i].property_flags & vk.MemoryPropertyFlagBits.DEVICE_LOCAL] or allowed
    return Payload(needs.size, size, max(local, key=lambda index: types[index].heap_size))


def export_named(device: extmem.Device, payload: Payload, name: str) -> extmem.DeviceMemory:
    """Export with VkExportMemoryWin32HandleInfoKHR::name."""
    named = vk.ExportMemoryWin32HandleInfoKHR(None, extmem.Access.ALL, name)
    export = vk.ExportMemoryAllocateInfo(HandleType.OPAQUE_WIN32, named)
    return device.allocate_memory(vk.MemoryAllocateInfo(payload.size, payload.memory_type, export))


# Tasks of the pairs of processes.


def bind_to(processor: int) -> None:
    """Run on this processor only."""
    os.sched_setaffinity(0, {processor})


def listen(address: str) -> None:
    """Exporter: listen at the address that its importer connects to."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(address)
    listener.listen(1)
    _at["listener"] = listener


def _accepted() -> socket.socket:
    if "peer" not in _at:
        with _at.pop("listener") as listener:
            _at["peer"], _ = listener.accept()
        gc.disable()  # as in all comparisons; the objects of a round have no cycles
    return cast("socket.socket", _at["peer"])


def pass_by_c(library: str, uuid: bytes, payload: Payload, rounds: int) -> list[int]:
    """Exporter in C: return the nanoseconds of each of `rounds` rounds."""
    peer = _accepted()
    floor = _at.get("floor") or _at.setdefault("floor", Floor(library, uuid))
    return [
        int(floor.passed(peer.fileno(), payload.size, payload.memory_type, payload.buffer_size, int(USAGE)))
        for _ in range(rounds)
    ]


def take_by_c(address: str, library: str, uuid: bytes) -> None:
    """Importer in C: run until the exporter ends."""
    floor = Floor(library, uuid)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
        peer.connect(address)
        while floor.take(peer.fileno()):
            pass
    floor.close()


def pass_by_fd(payload: Payload, rounds: int) -> list[int]:
    """Exporter of extmem: return the nanoseconds of each of `rounds` rounds."""
    peer, device = _accepted(), _device()
    return [_passed_by_fd(device, peer, payload) for _ in range(rounds)]


def _device() -> extmem.Device:
    return cast("extmem.Device", _at.get("device") or _at.setdefault("device", extmem.open_device(kind="vulkan")))


def _passed_by_fd(device: extmem.Device, peer: socket.socket, payload: Payload) -> int:
    start = time.perf_counter_ns()
    memory = device.allocate_memory(
        vk.MemoryAllocateInfo(payload.size, payload.memory_type, vk.ExportMemoryAllocateInfo(HandleType.OPAQUE_FD))
    )
    handle = device.get_memory_fd(vk.MemoryGetFdInfoKHR(memory, HandleType.OPAQUE_FD))
    send_handle(peer, handle)
    end = _received_end(peer)
    handle.close()
    memory.close()
    return end - start


def _received_end(peer: socket.socket) -> int:
    answer = peer.recv(_END.size)
    if len(answer) != _END.size:
        raise OSError("the importer has ended")
    return int(_END.unpack(answer)[0])


def take_by_fd(address: str) -> None:
    """Importer of extmem: run until the exporter ends."""
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
            end = time.perf_counter_ns()
            memory.close()
            peer.send(_END.pack(end))


def pass_by_name(payload: Payload, rounds: int) -> list[int]:
    """Exporter of extmem: return the nanoseconds of each of `rounds` rounds."""
    peer, device = _accepted(), _device()
    return [_passed_by_name(device, peer, payload) for _ in range(rounds)]


def _passed_by_name(device: extmem.Device, peer: socket.socket, payload: Payload) -> int:
    name = f"bench pass {next(_numbers)}"
    start = time.perf_counter_ns()
    memory = export_named(device, payload, name)
    peer.send(_HEADER.pack(*payload) + name.encode())
    end = _received_end(peer)
    memory.close()
    return end - start


def take_by_name(address: str) -> None:
    """Importer of extmem: run until the exporter ends."""
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
            end = time.perf_counter_ns()
            buffer.close()
            memory.close()
            peer.send(_END.pack(end))
