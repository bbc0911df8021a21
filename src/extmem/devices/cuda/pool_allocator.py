"""An allocator of shareable memory for frameworks: two C functions, which make one allocation of the driver each.

How this works. A framework calls them with its own lock held. A function in Python would wait for the GIL there, while
a thread that has the GIL waits for that lock. So they are machine code, compiled from the C functions below, which
call the driver's functions by their addresses, and keep nothing: the caller passes address and size again. Code,
context and the retained GPU context stay for the life of the process, since memory of the pool may be freed at its
very end::

    u64 allocate(u64 size, int device, u64 stream, const struct context *c) {
      u64 whole = (size + c->granule - 1) & ~(c->granule - 1), handle, address, old;
      if ((u64)(unsigned)device != c->device || !whole || whole < size || c->push(c->cuda)) return 0;
      if (c->create(&handle, whole, c->properties, 0)) { address = 0; goto end; }
      if (c->reserve(&address, whole, 0, 0, 0)) { address = 0; goto drop; }
      if (c->map(address, whole, 0, handle, 0)) goto unreserve;
      if (!c->allow(address, whole, c->access, 1)) goto drop;
      c->unmap(address, whole);
    unreserve:
      c->free(address, whole); address = 0;
    drop:
      c->release(handle);  // the mapping keeps the memory
    end:
      c->pop(&old);
      return address;
    }

    void deallocate(u64 address, u64 size, int device, u64 stream, const struct context *c) {
      u64 whole = (size + c->granule - 1) & ~(c->granule - 1), old;
      int pushed = !c->push(c->cuda);
      if (!address) goto end;
      c->synchronize();  // as cudaFree does
      if (!c->unmap(address, whole)) c->free(address, whole);
    end:
      if (pushed) c->pop(&old);
    }

The last argument of each is set by an entry in front of it, which frameworks call.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from extmem.devices.cuda import machine_code
from extmem.devices.cuda.handle_types import WIN32_IS_NATIVE, Terms
from extmem.devices.cuda.results import value_of
from extmem.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from extmem.devices.cuda.logical import LogicalDevice
    from extmem.devices.cuda.vmm import Vmm

__all__ = ["FUNCTIONS", "Context", "PoolAllocator", "functions"]

FUNCTIONS: Final = (
    "cuMemCreate",
    "cuMemRelease",
    "cuMemAddressReserve",
    "cuMemAddressFree",
    "cuMemMap",
    "cuMemUnmap",
    "cuMemSetAccess",
    "cuCtxPushCurrent",
    "cuCtxPopCurrent",
    "cuCtxSynchronize",
)
"""The driver's functions, in the order of their addresses in `struct context`."""
_SINCE: Final = 12_000
_WHAT: Final = "extmem.torch.pool()"
_REMEDY: Final = "call extmem.torch.make_shareable(), or allocate with extmem and use memory.torch()"
_DEALLOCATE: Final = 0xE1
"""Where in the code the second function begins."""
_X86_64: Final = bytes.fromhex(
    "f30f1efa488b415889f6483b71600f85ca00000055488d6c38ff48f7d8534883ec284821c5750731c0e9a9000000"
    "4839fd72f4488b79504889cbff513885c075e631c9488b5368488d7c24084889eeff1385c0740931d24889542410"
    "eb6c4531c031c931d24889ee488d7c2410ff531085c075474531c031d2488b4c2408488b7c24104889eeff532085"
    "c07523488b5370488b7c2410b9010000004889eeff533085c0741d488b7c24104889eeff5328488b7c24104889ee"
    "ff531831c04889442410488b7c2408ff5308488d7c2418ff5340488b4424104883c4285b5dc331c0c3"
    "f30f1efa4156415541544989f4554889fd534c89c34883ec104d8b6858498b785041ff50384189c64885ed7424ff"
    "53484f8d6425ff49f7dd4889ef4d21ec4c89e6ff532885c075094c89e64889efff53184585f67508488d7c2408ff"
    "53404883c4105b5d415c415d415ec3"
)
_CONTEXT: Final = struct.Struct("=15Q")
_ENTRY: Final = 32
"""Bytes of each of the two entries."""


def functions(context: int) -> tuple[int, int]:
    """Return the addresses of the two functions for a `struct context` at this address. They stay valid.

    They are void *(size_t size, int device, CUstream) and void (void *, size_t size, int device, CUstream).
    Errors: UnsupportedError on machines that the code is not for; OutOfMemoryError.
    """
    if WIN32_IS_NATIVE:
        raise UnsupportedError(
            f"{_WHAT} is for Linux; allocate with extmem and use memory.torch()",
            requires_one_of=["Linux", "memory allocated by extmem"],
        )
    # endbr64; movabs rcx (r8), context; jmp function
    first = b"\xf3\x0f\x1e\xfa\x48\xb9" + struct.pack("<Q", context)
    first += b"\xe9" + struct.pack("<i", 2 * _ENTRY - len(first) - 5)
    second = b"\xf3\x0f\x1e\xfa\x49\xb8" + struct.pack("<Q", context)
    second += b"\xe9" + struct.pack("<i", _ENTRY + _DEALLOCATE - len(second) - 5)
    code = first.ljust(_ENTRY, b"\xcc") + second.ljust(_ENTRY, b"\xcc") + _X86_64
    address = machine_code.load({"x86_64": code}, f"{_WHAT} allocates", _REMEDY)
    return address, address + _ENTRY


class Context:
    """A `struct context`, in memory that is never unmapped."""

    def __init__(self, calls: Mapping[str, int], values: Sequence[int]) -> None:
        """calls: the addresses of `FUNCTIONS`. values: CUcontext, granularity, ordinal, and the addresses of
        CUmemAllocationProp and CUmemAccessDesc.
        """
        self.address, memory = machine_code.mapped(_WHAT)
        _CONTEXT.pack_into(memory, 0, *(calls[name] for name in FUNCTIONS), *values)


class PoolAllocator:
    """The allocator of one GPU. It is never destroyed: the driver and the framework have its addresses."""

    def __init__(self, device: LogicalDevice, vmm: Vmm) -> None:
        """Errors: UnsupportedError; DriverError; OutOfMemoryError."""
        module = device.module
        self._terms = Terms(None)
        self._properties: Any = vmm.properties(self._terms)
        self._access: Any = vmm.access(writable=True)
        self._retained = device.gpu.retain()
        calls = {name: _address(module, name) for name in FUNCTIONS}
        values = (
            int(device.gpu.context),
            vmm.granularity,
            device.gpu.ordinal,
            int(self._properties.getPtr()),
            int(self._access.getPtr()),
        )
        self.allocate, self.deallocate = functions(Context(calls, values).address)


def _address(module: Any, name: str) -> int:
    result, address, _ = module.cuGetProcAddress(name.encode(), _SINCE, 0)
    return int(value_of((result, address), f"cuGetProcAddress({name})"))
