"""PyTorch's memory on a GPU, made so that `extmem.share` shares it where it is, without a copy.

There are two ways. What is made in a block of `pool()` is in memory that extmem's own allocator has made: one
allocation of the driver for a large tensor, whatever PyTorch's settings are. `make_shareable()` switches PyTorch's
expandable segments on, whose tensors consist of many small allocations.

A handle leads to whole allocations. So a process that opens a shared tensor can see what else is in the first and the
last allocation that it touches: other tensors of the pool (small tensors share 2 MiB), or neighbours in the segment.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

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
_pools: dict[int, Any] = {}
"""The pool of each device, by PyTorch's index. They live as long as the process, and so longer than their tensors."""
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


@contextlib.contextmanager
def pool(device: object = None) -> Iterator[None]:
    """A block whose new tensors on the GPU can be shared where they are: `with extmem.torch.pool(): …`.

    device: a `torch.device`, its text or its index; None for the current one. The block is for this thread. Blocks of
    one device use one `torch.cuda.MemPool`, which lives as long as the process; memory that is free there is given back
    by `torch.cuda.empty_cache()`. The environment and the settings of PyTorch's allocator do not matter.
    Errors: UnsupportedError without PyTorch for CUDA, and for systems and machines without this allocator (it is for
    Linux on x86_64); TypeError, ValueError for another device.
    """
    torch = _torch()
    index = _index(torch, device)
    with torch.cuda.use_mem_pool(_pool_of(torch, index), device=index):
        yield


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


def _pool_of(torch: Any, index: int) -> Any:
    with _lock:
        made = _pools.get(index)
        if made is None:
            backend = _device(index).backend
            if not isinstance(backend, AllocatesForFrameworks):
                raise UnsupportedError(f"cuda:{index} has no allocator for PyTorch", requires_one_of=["a CUDA device"])
            allocate, deallocate = backend.framework_allocator()
            allocator = torch._C._cuda_customAllocator(allocate, deallocate)
            with torch.cuda.device(index):
                torch.cuda.current_stream()  # PyTorch's context of the device exists
                made = torch.cuda.MemPool(allocator)
            _pools[index] = made
    return made


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
            backend.wrap_range(address, size).close()
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
