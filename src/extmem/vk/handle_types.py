"""Handle types of memory, semaphores and fences: a number type for each, its constants, and groups of them.

`MemoryHandleType`, `SemaphoreHandleType` and `FenceHandleType` are plain ints at run time: the operators of IntFlag are
a hundred times slower, and every call compares handle types. For the type checker each is a type of its own. Their bits
have different meanings (0x8 is D3D11_TEXTURE of memory, D3D12_FENCE of a semaphore, and SYNC_FD of a fence): neither
another of them nor a plain int can be passed for one. A value of the public API is converted once, where it arrives:
`MemoryHandleType(int(value))`. The operators return int; `common`, `union` and `lowest` return handle types.
"""

from __future__ import annotations

from typing import NewType, TypeAlias, TypeVar

from extmem.vk._generated.flags import ExternalFenceHandleTypeFlagBits as _FenceBits
from extmem.vk._generated.flags import ExternalMemoryHandleTypeFlagBits as _Bits
from extmem.vk._generated.flags import ExternalSemaphoreHandleTypeFlagBits as _SemaphoreBits

__all__ = [
    "BY_NUMBER",
    "D3D11_TEXTURE",
    "D3D11_TEXTURE_KMT",
    "D3D11_TYPES",
    "D3D12_HEAP",
    "D3D12_RESOURCE",
    "DEFINED_FENCE_TYPES",
    "DEFINED_SEMAPHORE_TYPES",
    "DEFINED_TYPES",
    "DMA_BUF",
    "FD_TYPES",
    "FENCE_FD_TYPES",
    "FENCE_OPAQUE_FD",
    "FENCE_OPAQUE_TYPES",
    "FENCE_OPAQUE_WIN32",
    "FENCE_OPAQUE_WIN32_KMT",
    "FENCE_SYNC_FD",
    "FENCE_WIN32_TYPES",
    "FROM_D3D",
    "FenceHandleType",
    "HOST_ALLOCATION",
    "HOST_MAPPED_FOREIGN_MEMORY",
    "HOST_TYPES",
    "KNOWN_FENCE_TYPE_BITS",
    "KNOWN_SEMAPHORE_TYPE_BITS",
    "KNOWN_TYPE_BITS",
    "MemoryHandleType",
    "NO_FENCE_TYPES",
    "NO_SEMAPHORE_TYPES",
    "NO_TYPES",
    "NT_TYPES",
    "OPAQUE_FD",
    "OPAQUE_WIN32",
    "OPAQUE_WIN32_KMT",
    "OPAQUE_WIN32_TYPES",
    "SEMAPHORE_D3D12_FENCE",
    "SEMAPHORE_FD_TYPES",
    "SEMAPHORE_NT_TYPES",
    "SEMAPHORE_OPAQUE_FD",
    "SEMAPHORE_OPAQUE_TYPES",
    "SEMAPHORE_OPAQUE_WIN32",
    "SEMAPHORE_OPAQUE_WIN32_KMT",
    "SEMAPHORE_SYNC_FD",
    "SEMAPHORE_WIN32_TYPES",
    "SIZED_BY_D3D",
    "SIZE_IGNORED_TYPES",
    "SemaphoreHandleType",
    "SyncHandleType",
    "WIN32_TYPES",
    "common",
    "lowest",
    "union",
]

MemoryHandleType = NewType("MemoryHandleType", int)
"""One VkExternalMemoryHandleTypeFlagBits, or several of them (VkExternalMemoryHandleTypeFlags)."""


SemaphoreHandleType = NewType("SemaphoreHandleType", int)
"""One VkExternalSemaphoreHandleTypeFlagBits, or several of them."""

FenceHandleType = NewType("FenceHandleType", int)
"""One VkExternalFenceHandleTypeFlagBits, or several of them."""

SyncHandleType: TypeAlias = SemaphoreHandleType | FenceHandleType
"""A handle type of a semaphore or of a fence, by the object that it is for."""

T = TypeVar("T", MemoryHandleType, SemaphoreHandleType, FenceHandleType)


def common(types: T, others: T) -> T:
    """Return the types that both contain."""
    return types & others  # type: ignore[return-value]  # the operators return int; see above


def lowest(types: T) -> T:
    """Return the single type with the lowest bit; no type of no types."""
    return types & -types  # type: ignore[return-value]  # as above


def union(*types: T) -> T:
    """Return all these types."""
    mask = 0
    for one in types:
        mask |= one
    return mask  # type: ignore[return-value]  # as above


NO_TYPES = MemoryHandleType(0)
OPAQUE_FD = MemoryHandleType(int(_Bits.OPAQUE_FD))
OPAQUE_WIN32 = MemoryHandleType(int(_Bits.OPAQUE_WIN32))
OPAQUE_WIN32_KMT = MemoryHandleType(int(_Bits.OPAQUE_WIN32_KMT))
D3D11_TEXTURE = MemoryHandleType(int(_Bits.D3D11_TEXTURE))
D3D11_TEXTURE_KMT = MemoryHandleType(int(_Bits.D3D11_TEXTURE_KMT))
D3D12_HEAP = MemoryHandleType(int(_Bits.D3D12_HEAP))
D3D12_RESOURCE = MemoryHandleType(int(_Bits.D3D12_RESOURCE))
HOST_ALLOCATION = MemoryHandleType(int(_Bits.HOST_ALLOCATION_EXT))
HOST_MAPPED_FOREIGN_MEMORY = MemoryHandleType(int(_Bits.HOST_MAPPED_FOREIGN_MEMORY_EXT))
DMA_BUF = MemoryHandleType(int(_Bits.DMA_BUF_EXT))

DEFINED_TYPES = frozenset(MemoryHandleType(int(bit)) for bit in _Bits)
"""Every single handle type."""
FROM_D3D = (D3D11_TEXTURE, D3D11_TEXTURE_KMT, D3D12_HEAP, D3D12_RESOURCE)
"""Types that refer to objects of Direct3D."""
BY_NUMBER = (OPAQUE_WIN32_KMT, D3D11_TEXTURE_KMT)
"""Types that are KMT numbers, which are the same in every process and own nothing."""
SIZED_BY_D3D = (D3D11_TEXTURE, D3D11_TEXTURE_KMT, D3D12_RESOURCE)
"""Types whose size is that of the Direct3D object; VkMemoryAllocateInfo::allocationSize is ignored."""

# Masks.
OPAQUE_WIN32_TYPES = union(OPAQUE_WIN32, OPAQUE_WIN32_KMT)
FD_TYPES = union(OPAQUE_FD, DMA_BUF)
HOST_TYPES = union(HOST_ALLOCATION, HOST_MAPPED_FOREIGN_MEMORY)
NT_TYPES = union(OPAQUE_WIN32, D3D11_TEXTURE, D3D12_HEAP, D3D12_RESOURCE)
D3D11_TYPES = union(D3D11_TEXTURE, D3D11_TEXTURE_KMT)
WIN32_TYPES = union(OPAQUE_WIN32_TYPES, *FROM_D3D)
SIZE_IGNORED_TYPES = union(*SIZED_BY_D3D)
"""Imports of these take their size from the Direct3D resource. allocationSize and the size in the resource's memory
requirements are ignored. The specification requires dedicated allocations for them."""
KNOWN_TYPE_BITS = union(*DEFINED_TYPES)

NO_SEMAPHORE_TYPES = SemaphoreHandleType(0)
SEMAPHORE_OPAQUE_FD = SemaphoreHandleType(int(_SemaphoreBits.OPAQUE_FD))
SEMAPHORE_OPAQUE_WIN32 = SemaphoreHandleType(int(_SemaphoreBits.OPAQUE_WIN32))
SEMAPHORE_OPAQUE_WIN32_KMT = SemaphoreHandleType(int(_SemaphoreBits.OPAQUE_WIN32_KMT))
SEMAPHORE_D3D12_FENCE = SemaphoreHandleType(int(_SemaphoreBits.D3D12_FENCE))
SEMAPHORE_SYNC_FD = SemaphoreHandleType(int(_SemaphoreBits.SYNC_FD))

DEFINED_SEMAPHORE_TYPES = frozenset(SemaphoreHandleType(int(bit)) for bit in _SemaphoreBits)
"""Every single handle type of semaphores."""
SEMAPHORE_FD_TYPES = union(SEMAPHORE_OPAQUE_FD, SEMAPHORE_SYNC_FD)
SEMAPHORE_NT_TYPES = union(SEMAPHORE_OPAQUE_WIN32, SEMAPHORE_D3D12_FENCE)
SEMAPHORE_OPAQUE_TYPES = union(SEMAPHORE_OPAQUE_FD, SEMAPHORE_OPAQUE_WIN32, SEMAPHORE_OPAQUE_WIN32_KMT)
SEMAPHORE_WIN32_TYPES = union(SEMAPHORE_NT_TYPES, SEMAPHORE_OPAQUE_WIN32_KMT)
KNOWN_SEMAPHORE_TYPE_BITS = union(*DEFINED_SEMAPHORE_TYPES)

NO_FENCE_TYPES = FenceHandleType(0)
FENCE_OPAQUE_FD = FenceHandleType(int(_FenceBits.OPAQUE_FD))
FENCE_OPAQUE_WIN32 = FenceHandleType(int(_FenceBits.OPAQUE_WIN32))
FENCE_OPAQUE_WIN32_KMT = FenceHandleType(int(_FenceBits.OPAQUE_WIN32_KMT))
FENCE_SYNC_FD = FenceHandleType(int(_FenceBits.SYNC_FD))

DEFINED_FENCE_TYPES = frozenset(FenceHandleType(int(bit)) for bit in _FenceBits)
"""Every single handle type of fences."""
FENCE_FD_TYPES = union(FENCE_OPAQUE_FD, FENCE_SYNC_FD)
FENCE_OPAQUE_TYPES = union(FENCE_OPAQUE_FD, FENCE_OPAQUE_WIN32, FENCE_OPAQUE_WIN32_KMT)
FENCE_WIN32_TYPES = union(FENCE_OPAQUE_WIN32, FENCE_OPAQUE_WIN32_KMT)
KNOWN_FENCE_TYPE_BITS = union(*DEFINED_FENCE_TYPES)
