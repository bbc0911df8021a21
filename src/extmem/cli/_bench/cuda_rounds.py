"""Tasks of the processes of `extmem bench cuda`: imports by C and by extmem, passing of tensors by extmem and PyTorch.

- *Importing*: both sides import the same payload of the Vulkan device, whose fd exists when the clock starts. C copies
  the fd, imports and maps it, and checks context, device and range of the pointer, as `Device.open` of extmem does.
- *Passing*: a round begins before the payload's name, or the tensor, is sent. It ends when the other process has
  reported the number of elements of its tensor and has released it. The processes of extmem use a Unix socket, and the
  receiver has the payload open already. Those of PyTorch use two queues of `torch.multiprocessing`, where the tensor's
  memory is known after the first round. A third kind of round sends an empty request: two processes only wake each
  other through the socket. Passing a tensor cannot be faster than that.
"""

from __future__ import annotations

import gc
import importlib
import os
import socket
import sys
import time
from functools import partial
from typing import Any

import extmem
from extmem import vk
from extmem.cli._bench.floor import CudaFloor
from extmem.cli._bench.measure import interleaved
from extmem.cli._bench.sharing import timed

if sys.platform != "linux":
    raise ImportError("this benchmark measures the broker and opaque fds of Linux")

__all__ = ["churn", "importing", "passing", "receive"]

_FD = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD
_PATIENCE = 60.0
_NOTHING = b"\0"
"""The empty request."""


def importing(library: str, uuid: bytes, size: int, rounds: int, turn: int) -> list[list[int]]:
    """Return the nanoseconds of each round: by C, by extmem with an fd handle, by extmem with a name."""
    floor = CudaFloor(library, uuid)
    with (
        extmem.open_device(kind="vulkan", uuid=uuid) as vulkan,
        extmem.open_device(kind="cuda", uuid=uuid) as cuda,
        vulkan.allocate(size, name=f"bench cuda {size}") as memory,
    ):

        def by_c() -> int:
            with memory.export_handle(_FD) as handle:
                return floor.imported(
                    int(handle), memory.allocation_size, dedicated=memory.descriptor.dedicated is not None
                )

        def by_fd() -> int:
            return timed(partial(cuda.open, memory.export_handle(_FD)))()

        by_name = timed(partial(cuda.open, f"bench cuda {size}"))
        times = interleaved(rounds, by_c, by_fd, by_name, warm_up=5, turn=turn)
    floor.close()
    return times


def receive(address: str) -> None:
    """Receiver of extmem: open each received name as a tensor, and reply with its size, until the socket is closed."""
    importlib.import_module("torch")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(address)
        listener.listen(1)
        peer, _ = listener.accept()
    kept: dict[str, extmem.DeviceMemory] = {}
    gc.disable()
    with peer:
        while message := peer.recv(256):
            if message == _NOTHING:
                peer.send(bytes(8))
                continue
            name = message.decode()
            if name not in kept:
                kept[name] = extmem.open(name)  # so that the later open does not import it
            with extmem.open(name) as memory:
                tensor = memory.torch()
                size = tensor.numel()
                del tensor
            peer.send(size.to_bytes(8, "little"))
    for memory in kept.values():
        memory.close()


def receive_by_torch(tensors: Any, answers: Any) -> None:
    """Receiver of PyTorch, until it receives None."""
    gc.disable()
    while (tensor := tensors.get()) is not None:
        size = tensor.numel()
        del tensor
        answers.put(size)


def passing(address: str, uuid: bytes, size: int, rounds: int) -> list[list[int]]:
    """Return the nanoseconds of each round trip: by extmem, by PyTorch, by the socket alone."""
    torch = importlib.import_module("torch")
    processes = importlib.import_module("torch.multiprocessing").get_context("spawn")
    tensors, answers = processes.Queue(), processes.Queue()
    child = processes.Process(target=receive_by_torch, args=(tensors, answers), daemon=True)
    child.start()
    name = f"bench passing {size}"
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
                start = time.perf_counter_ns()
                peer.send(message)
                answer = peer.recv(8)
                end = time.perf_counter_ns()
                if int.from_bytes(answer, "little") != size:
                    raise OSError("the receiver has ended")
                return end - start

            def by_torch() -> int:
                start = time.perf_counter_ns()
                tensors.put(tensor)
                answer = answers.get()  # a timeout would take time; the parent process has a deadline
                end = time.perf_counter_ns()
                if answer != size:
                    raise OSError("the receiver of PyTorch got another tensor")
                return end - start

            def by_socket() -> int:
                start = time.perf_counter_ns()
                peer.send(_NOTHING)
                peer.recv(8)
                return time.perf_counter_ns() - start

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
    """Return what is left after `times` imports and closes."""
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
    with backend.device.gpu.current:
        _, free, _ = backend.device.module.cuMemGetInfo()
    return int(free), len(os.listdir("/proc/self/fd"))
