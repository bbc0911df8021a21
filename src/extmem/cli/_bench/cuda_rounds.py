"""What the processes of `extmem bench cuda` do: import, by C and by this library; hand tensors over, and PyTorch too.

- *Importing*: both import the same payload of the Vulkan device, whose fd is there when the clock starts: C copies it,
  imports and maps it, and looks at the pointer's context, device and range, as this library does by `Device.open`.
- *Handing over*: a round begins before the payload's name, or the tensor, is sent, and ends when the other process has
  said how many elements its tensor has and has let go of it. This library's processes talk through a Unix socket, and
  what is opened is known there already; PyTorch's through two queues of `torch.multiprocessing`, where the tensor's
  memory is known after the first. A third round trip, in turn with these, asks for nothing: two processes wake each
  other through the socket, which no hand-over can be faster than.
"""

from __future__ import annotations

import gc
import importlib
import os
import socket
import sys
import time
from typing import Any

import extmem
from extmem import vk
from extmem.cli._bench.floor import CudaFloor
from extmem.cli._bench.measure import interleaved

if sys.platform != "linux":
    raise ImportError("the benchmarks measure Linux's object manager and opaque fds; there is none to measure here")

__all__ = ["TURN"]

_FD = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD
_PATIENCE = 60.0
TURN = 10
"""Rounds of the same, one after the other: a driver that maps much leaves the caches in ruins."""
_NOTHING = b"\0"
"""A message that asks for no tensor."""
_clock = time.perf_counter_ns


def importing(library: str, uuid: bytes, size: int, rounds: int) -> list[list[int]]:
    """Nanoseconds of each round: C's, this library's by fd handle, this library's by name."""
    floor = CudaFloor(library, uuid)
    with (
        extmem.open_device(kind="vulkan", uuid=uuid) as vulkan,
        extmem.open_device(kind="cuda", uuid=uuid) as cuda,
        vulkan.allocate(size, name=f"bench cuda {size}") as memory,
    ):
        alone = memory.descriptor.dedicated is not None

        def by_c() -> int:
            with memory.export_handle(_FD) as handle:
                return floor.imported(int(handle), memory.allocation_size, dedicated=alone)

        def by_fd() -> int:
            handle = memory.export_handle(_FD)
            start = _clock()
            other = cuda.open(handle)
            end = _clock()
            other.close()
            return end - start

        def by_name() -> int:
            start = _clock()
            other = cuda.open(f"bench cuda {size}")
            end = _clock()
            other.close()
            return end - start

        times = interleaved(rounds, by_c, by_fd, by_name, warm_up=5, turn=TURN)
    floor.close()
    return times


def take(address: str) -> None:
    """This library's other end: open each name that comes as a tensor, and say so, until the socket closes."""
    importlib.import_module("torch")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        door.bind(address)
        door.listen(1)
        peer, _ = door.accept()
    kept: dict[str, extmem.DeviceMemory] = {}
    gc.disable()
    with peer:
        while message := peer.recv(256):
            if message == _NOTHING:
                peer.send(bytes(8))
                continue
            name = message.decode()
            if name not in kept:
                kept[name] = extmem.open(name)  # what is known there already
            with extmem.open(name) as memory:
                tensor = memory.torch()
                size = tensor.numel()
                del tensor
            peer.send(size.to_bytes(8, "little"))
    for memory in kept.values():
        memory.close()


def taken_by_torch(tensors: Any, answers: Any) -> None:
    """PyTorch's other end, until None comes."""
    gc.disable()
    while (tensor := tensors.get()) is not None:
        size = tensor.numel()
        del tensor
        answers.put(size)


def handing(address: str, uuid: bytes, size: int, rounds: int) -> list[list[int]]:
    """Nanoseconds of each round trip: this library's, PyTorch's, the socket's alone."""
    torch = importlib.import_module("torch")
    processes = importlib.import_module("torch.multiprocessing").get_context("spawn")
    tensors, answers = processes.Queue(), processes.Queue()
    child = processes.Process(target=taken_by_torch, args=(tensors, answers), daemon=True)
    child.start()
    name = f"bench handing {size}"
    try:
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer,
            extmem.open_device(kind="cuda", uuid=uuid) as cuda,
            cuda.allocate(size, name=name),
        ):
            _connect(peer, address)
            tensor = torch.empty(size, dtype=torch.uint8, device="cuda")
            message = name.encode()

            def by_name() -> int:
                start = _clock()
                peer.send(message)
                answer = peer.recv(8)
                end = _clock()
                if int.from_bytes(answer, "little") != size:
                    raise OSError("the importer went away")
                return end - start

            def by_torch() -> int:
                start = _clock()
                tensors.put(tensor)
                answer = answers.get()  # with a timeout it takes longer; who waits for this process has a deadline
                end = _clock()
                if answer != size:
                    raise OSError("PyTorch's importer got another tensor")
                return end - start

            def by_socket() -> int:
                start = _clock()
                peer.send(_NOTHING)
                peer.recv(8)
                return _clock() - start

            times = interleaved(rounds, by_name, by_torch, by_socket, warm_up=10)
    finally:
        tensors.put(None)
        child.join(_PATIENCE)
        if child.is_alive():
            child.kill()
    return times


def _connect(peer: socket.socket, address: str) -> None:
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            peer.connect(address)
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


def churn(uuid: bytes, times: int) -> dict[str, int]:
    """What is left of so many imports and closes."""
    with (
        extmem.open_device(kind="vulkan", uuid=uuid) as vulkan,
        extmem.open_device(kind="cuda", uuid=uuid) as cuda,
        vulkan.allocate(1 << 20, name="bench churn"),
    ):
        cuda.open("bench churn").close()
        before = _held(cuda)
        for _ in range(times):
            cuda.open("bench churn").close()
        after = _held(cuda)
    return {"bytes": before[0] - after[0], "descriptors": after[1] - before[1]}


def _held(device: extmem.Device) -> tuple[int, int]:
    backend: Any = device.backend
    with backend.gpu.current:
        _, free, _ = backend.module.cuMemGetInfo()
    return int(free), len(os.listdir("/proc/self/fd"))
