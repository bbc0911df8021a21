"""Handle types of memory: a number type of their own, its constants, and the groups that the layers refer to.

`MemoryHandleType` is a plain int at run time: the operators of IntFlag are a hundred times slower, and every call
compares handle types. For the type checker it is a type of its own. The bits of semaphores and fences have other
meanings (0x8 is D3D11_TEXTURE of memory, and D3D12_FENCE of a semaphore): neither they nor a plain int can be passed
for it. A value of the public API is converted once, where it arrives: `MemoryHandleType(int(value))`. The operators
return int; `common`, `union` and `lowest` return handle types.
"""

from __future__ import annotations

from typing import NewType

from extmem.vk._generated.flags import ExternalMemoryHandleTypeFlagBits as _Bits

__all__ = [
    "BY_NUMBER",
    "D3D11_TYPES",
    "D3D11_TEXTURE",
    "D3D11_TEXTURE_KMT",
    "D3D12_HEAP",
    "D3D12_RESOURCE",
    "DEFINED_TYPES",
    "DMA_BUF",
    "FD_TYPES",
    "FROM_D3D",
    "HOST_ALLOCATION",
    "HOST_MAPPED_FOREIGN_MEMORY",
    "HOST_TYPES",
    "KNOWN_TYPE_BITS",
    "NO_TYPES",
    "NT_TYPES",
    "OPAQUE_FD",
    "OPAQUE_WIN32",
    "OPAQUE_WIN32_KMT",
    "OPAQUE_WIN32_TYPES",
    "SIZED_BY_D3D",
    "SIZE_IGNORED_TYPES",
    "WIN32_TYPES",
    "MemoryHandleType",
    "common",
    "lowest",
    "union",
]

MemoryHandleType = NewType("MemoryHandleType", int)
"""One VkExternalMemoryHandleTypeFlagBits, or several of them (VkExternalMemoryHandleTypeFlags)."""


def common(types: MemoryHandleType, others: MemoryHandleType) -> MemoryHandleType:
    """Return the types that both contain."""
    return MemoryHandleType(types & others)


def lowest(types: MemoryHandleType) -> MemoryHandleType:
    """Return the single type with the lowest bit; no type of no types."""
    return MemoryHandleType(types & -types)


def union(*types: MemoryHandleType) -> MemoryHandleType:
    """Return all these types."""
    mask = 0
    for one in types:
        mask |= one
    return MemoryHandleType(mask)


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
