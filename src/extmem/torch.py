"""PyTorch's memory on a GPU, made so that `extmem.share` shares it where it is, without a copy.

There are two ways. What is made in a block of `pool()` is in memory that extmem's own allocator has made: one
allocation of the driver for a large tensor, whatever PyTorch's settings are. `make_shareable()` switches PyTorch's
expandable segments on, whose tensors consist of many small allocations.

A handle leads to whole allocations. So a process that opens a shared tensor can see what else is in the first and the
last allocation that it touches: other tensors of the pool (small tensors share 2 MiB), or neighbours in the segment.

Who opens it without the right to write gets it mapped for reading. The GPU enforces that: a kernel that writes there by
a pointer faults, which ends the CUDA context of its process. The contents and other processes stay as they are.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple
from weakref import WeakSet

from extmem import api as _api  # noqa: F401  # sets the class of shared devices
from extmem import optional
from extmem.core import shared_devices
from extmem.core.device_state import DeviceState
from extmem.devices import select
from extmem.devices.optional_protocols import AllocatesForFrameworks, WrapsPointers
from extmem.errors import UnsupportedError
from extmem.owning import Lock

__all__ = ["Unshareable", "make_shareable", "pool"]

_lock = Lock(reentrant=True)
_pools: dict[int, list[Any]] = {}
"""The `MemPool`s of each device, by PyTorch's index. They live as long as the process, and so outlive their tensors."""
_open: dict[tuple[int, int], _Recording] = {}
"""What threads allocate from: by thread and PyTorch's index."""
_PIECE = 1 << 30
"""Bytes of a segment that are looked at together: one payload has no room for all allocations of a large segment."""
_SETTING = re.compile(r"(?:^|,)\s*expandable_segments\s*:\s*\w+")


class Unshareable(NamedTuple):
    """Memory of PyTorch that cannot be shared without a copy."""

    device: int
    """PyTorch's index of the GPU."""
    address: int
    """The address of the segment; 0 for tensors that will be made."""
    size: int
    """Bytes in use there."""
    reason: str
    """Why, and what helps."""


class _Recording:
    """A thread that allocates from a pool of one device, in one block or several."""

    __slots__ = ("blocks", "pool", "recording")

    def __init__(self, pool: Any, recording: Any) -> None:
        self.pool = pool
        self.recording = recording
        """PyTorch's block, which is entered."""
        self.blocks: WeakSet[_Block] = WeakSet()
        """The blocks of the thread, nested or side by side. The last one leaves PyTorch's block.

        If an exception of a signal handler prevents that, the next block of the thread does it.
        """


class _Block:
    """What stands for one block of `pool`."""

    __slots__ = ("__weakref__",)


@contextlib.contextmanager
def pool(device: object = None) -> Iterator[None]:
    """A block whose new tensors on the GPU can be shared where they are: `with extmem.torch.pool(): …`.

    device: a `torch.device`, its text or its index; None for the current one. The block is for this thread; several
    threads may be in blocks at the same time, and a thread may enter further ones inside. Each thread has a
    `torch.cuda.MemPool` for the time of its block. A later block of any thread uses it again. The pools live as long as
    the process; memory that is free there is given back by `torch.cuda.empty_cache()`. The environment and the settings
    of PyTorch's allocator do not matter. Inside of a block of another `torch.cuda.use_mem_pool`, PyTorch allocates from
    that pool, whose tensors may not be shareable.
    Errors: UnsupportedError without PyTorch for CUDA, and for systems and machines without this allocator (it is for
    Linux on x86_64); TypeError, ValueError for another device.
    """
    torch = _torch()
    index = _index(torch, device)
    block, key = _Block(), (threading.get_ident(), index)
    try:
        _enter(torch, key, block)
        yield
    finally:
        _leave(key, block)


def make_shareable() -> list[Unshareable]:
    """Switch PyTorch's expandable segments on, at any time, and return the memory that still cannot be shared.

    Tensors that are made from here on are in expandable segments. Free memory of other kinds is given back to the GPU
    (`torch.cuda.empty_cache`); the list has the segments in use whose tensors `extmem.share` would copy, each with its
    reason, and for a GPU on which new tensors cannot be shared either an entry without an address. The other settings
    of the allocator are kept. Segments are looked at on the GPUs that PyTorch has used.
    Errors: UnsupportedError without PyTorch for CUDA, on Windows, and where the setting has no effect, such as with
    `backend:cudaMallocAsync`.
    """
    torch = _torch()
    with _lock:
        _switch_on(torch)
        torch.cuda.empty_cache()
        found = []
        used: set[int] = {torch.cuda.current_device()}
        for segment in torch.cuda.memory_snapshot():
            index, address, size = segment["device"], segment["address"], segment["allocated_size"]
            used.add(index)
            if size:
                found += _problem(index, address, segment["total_size"], size)
        for index in sorted(used):
            with torch.cuda.device(index):
                probe = torch.empty(1, dtype=torch.uint8, device=f"cuda:{index}")
            found += [one._replace(address=0, size=0) for one in _problem(index, probe.data_ptr(), 1, 1)]
            del probe
    return found


def _torch() -> Any:
    torch = optional.load("torch", what="PyTorch", advice="install a build for CUDA, as described on pytorch.org")
    if not torch.cuda.is_available():
        raise UnsupportedError(
            "PyTorch finds no GPU here (torch.cuda.is_available()); install a build for CUDA, or share tensors of the "
            "CPU, which need no pool",
            requires_one_of=["PyTorch for CUDA", "a GPU"],
        )
    return torch


def _index(torch: Any, device: object) -> int:
    if device is None:
        return int(torch.cuda.current_device())
    chosen = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    if chosen.type != "cuda":
        raise ValueError(f"device is {chosen}; give a GPU, such as 'cuda' or 'cuda:0'")
    return int(torch.cuda.current_device() if chosen.index is None else chosen.index)


def _enter(torch: Any, key: tuple[int, int], block: _Block) -> None:
    """Let this thread allocate from a pool, if it does not already. key: as in `_open`.

    PyTorch records to a pool for one thread at a time, so that each has its own.
    """
    index = key[1]
    with _lock:
        found = _open.get(key)
        if found is None:
            pools = _pools.setdefault(index, [])
            used = [one.pool for (_, of), one in _open.items() if of == index]
            free = next((each for each in pools if each not in used), None)
            if free is None:
                free = _new_pool(torch, index)
                pools.append(free)
            found = _Recording(free, torch.cuda.use_mem_pool(free, device=index))
            found.blocks.add(block)
            found.recording.__enter__()
            _open[key] = found  # if this is not reached, the end of `found` ends PyTorch's block
        found.blocks.add(block)


def _leave(key: tuple[int, int], block: _Block) -> None:
    """Undo `_enter`; also one that failed or was interrupted. The last block of a thread gives its pool back."""
    with _lock:
        found = _open.get(key)
        if found is None or block not in found.blocks:
            return
        found.blocks.discard(block)
        if not found.blocks:
            del _open[key]
            found.recording.__exit__(None, None, None)


def _new_pool(torch: Any, index: int) -> Any:
    backend = _device(index).backend
    if not isinstance(backend, AllocatesForFrameworks):
        raise UnsupportedError(f"cuda:{index} has no allocator for PyTorch", requires_one_of=["a CUDA device"])
    allocate, deallocate = backend.framework_allocator()
    allocator = torch._C._cuda_customAllocator(allocate, deallocate)
    with torch.cuda.device(index):
        torch.cuda.current_stream()  # PyTorch's context of the device exists
        return torch.cuda.MemPool(allocator)


def _device(index: int) -> DeviceState:
    """Return the CUDA device with PyTorch's index. Errors: UnsupportedError."""
    offers = select.cuda_offers()
    device = shared_devices.cuda_device(offers[index].identity.device_uuid) if index < len(offers) else None
    if device is None:
        raise UnsupportedError(
            f"PyTorch has cuda:{index}, and extmem finds {len(offers)} devices of CUDA; install cuda-bindings for this "
            "driver",
            requires_one_of=["cuda-bindings"],
        )
    return device


def _problem(index: int, address: int, size: int, used: int) -> list[Unshareable]:
    """Return what hinders the sharing of this memory, in a list of one; an empty list for nothing."""
    device = _device(index)
    backend = device.backend
    if not isinstance(backend, WrapsPointers):
        raise UnsupportedError(f"cuda:{index} is not a CUDA device", requires_one_of=["a CUDA device"])
    with device.use():
        try:
            for at in range(address, address + size, _PIECE):
                backend.wrap_range(at, min(_PIECE, address + size - at)).close()
        except UnsupportedError as error:
            return [Unshareable(index, address, used, str(error))]
    return []


def _switch_on(torch: Any) -> None:
    settings = torch.cuda.memory._snapshot()["allocator_settings"]
    if not settings.get("expandable_segments"):
        # A new setting replaces the old ones, so they are repeated.
        before = settings.get("last_allocator_settings") or settings.get("PYTORCH_CUDA_ALLOC_CONF") or ""
        kept = _SETTING.sub("", before).strip(" ,")
        text = f"{kept},expandable_segments:True" if kept else "expandable_segments:True"
        setter = getattr(torch._C, "_accelerator_setAllocatorSettings", None)
        (setter or torch.cuda.memory._set_allocator_settings)(text)
        settings = torch.cuda.memory._snapshot()["allocator_settings"]
    if not settings.get("expandable_segments"):
        backend = torch.cuda.get_allocator_backend()
        raise UnsupportedError(
            f"PyTorch {torch.__version__} with the allocator {backend} did not switch expandable segments on (they "
            "need Linux and backend:native); allocate in a block of extmem.torch.pool()",
            requires_one_of=["extmem.torch.pool()", "backend:native"],
        )
