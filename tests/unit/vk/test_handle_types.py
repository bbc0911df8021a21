"""Handle types of memory, semaphores and fences: constants as in the enum, groups, and computations with them."""

from __future__ import annotations

from extmem import vk
from extmem.vk import handle_types
from extmem.vk.handle_types import MemoryHandleType, common, lowest, union

Bits = vk.ExternalMemoryHandleTypeFlagBits
CONSTANTS = (
    "OPAQUE_FD",
    "OPAQUE_WIN32",
    "OPAQUE_WIN32_KMT",
    "D3D11_TEXTURE",
    "D3D11_TEXTURE_KMT",
    "D3D12_HEAP",
    "D3D12_RESOURCE",
    "HOST_ALLOCATION",
    "HOST_MAPPED_FOREIGN_MEMORY",
    "DMA_BUF",
)


SYNC = {
    "SEMAPHORE": (vk.ExternalSemaphoreHandleTypeFlagBits, ("D3D12_FENCE", "SYNC_FD")),
    "FENCE": (vk.ExternalFenceHandleTypeFlagBits, ("SYNC_FD",)),
}


def test_constants_are_the_numbers_of_the_enum() -> None:
    for name in CONSTANTS:
        value = getattr(handle_types, name)
        assert value == Bits[name] and type(value) is int, name
    for kind, (bits, others) in SYNC.items():
        for name in ("OPAQUE_FD", "OPAQUE_WIN32", "OPAQUE_WIN32_KMT", *others):
            value = getattr(handle_types, f"{kind}_{name}")
            assert value == bits[name] and type(value) is int, name


def test_groups_have_the_types_of_the_specification() -> None:
    assert handle_types.FD_TYPES == Bits.OPAQUE_FD | Bits.DMA_BUF
    assert handle_types.HOST_TYPES == Bits.HOST_ALLOCATION | Bits.HOST_MAPPED_FOREIGN_MEMORY
    assert handle_types.OPAQUE_WIN32_TYPES == Bits.OPAQUE_WIN32 | Bits.OPAQUE_WIN32_KMT
    assert handle_types.D3D11_TYPES == Bits.D3D11_TEXTURE | Bits.D3D11_TEXTURE_KMT
    by_number = Bits.OPAQUE_WIN32_KMT | Bits.D3D11_TEXTURE_KMT
    assert handle_types.WIN32_TYPES == handle_types.NT_TYPES | by_number
    assert not handle_types.NT_TYPES & by_number
    assert union(*handle_types.BY_NUMBER) == by_number
    assert handle_types.SIZE_IGNORED_TYPES == handle_types.D3D11_TYPES | Bits.D3D12_RESOURCE
    assert union(*handle_types.FROM_D3D) == handle_types.SIZE_IGNORED_TYPES | Bits.D3D12_HEAP


def test_every_bit_of_the_enum_is_defined() -> None:
    assert handle_types.DEFINED_TYPES == set(Bits)
    assert handle_types.KNOWN_TYPE_BITS.bit_count() == len(handle_types.DEFINED_TYPES)


def test_groups_of_semaphores_and_fences() -> None:
    semaphores, fences = SYNC["SEMAPHORE"][0], SYNC["FENCE"][0]
    assert handle_types.DEFINED_SEMAPHORE_TYPES == set(semaphores)
    assert handle_types.KNOWN_SEMAPHORE_TYPE_BITS.bit_count() == len(handle_types.DEFINED_SEMAPHORE_TYPES)
    assert handle_types.DEFINED_FENCE_TYPES == set(fences)
    assert handle_types.KNOWN_FENCE_TYPE_BITS.bit_count() == len(handle_types.DEFINED_FENCE_TYPES)
    assert handle_types.SEMAPHORE_FD_TYPES == semaphores.OPAQUE_FD | semaphores.SYNC_FD
    assert handle_types.SEMAPHORE_NT_TYPES == semaphores.OPAQUE_WIN32 | semaphores.D3D12_FENCE
    assert handle_types.SEMAPHORE_WIN32_TYPES == handle_types.SEMAPHORE_NT_TYPES | semaphores.OPAQUE_WIN32_KMT
    opaque = semaphores.OPAQUE_FD | semaphores.OPAQUE_WIN32 | semaphores.OPAQUE_WIN32_KMT
    assert handle_types.SEMAPHORE_OPAQUE_TYPES == opaque
    assert handle_types.FENCE_FD_TYPES == fences.OPAQUE_FD | fences.SYNC_FD
    assert handle_types.FENCE_WIN32_TYPES == fences.OPAQUE_WIN32 | fences.OPAQUE_WIN32_KMT
    assert handle_types.FENCE_OPAQUE_TYPES == handle_types.FENCE_WIN32_TYPES | fences.OPAQUE_FD


def test_types_are_joined_and_compared() -> None:
    both = union(handle_types.OPAQUE_FD, handle_types.OPAQUE_WIN32, handle_types.OPAQUE_FD)
    assert both == 3 and union() == handle_types.NO_TYPES
    assert common(both, handle_types.FD_TYPES) == handle_types.OPAQUE_FD
    assert common(both, handle_types.HOST_TYPES) == handle_types.NO_TYPES
    assert lowest(MemoryHandleType(6)) == handle_types.OPAQUE_WIN32 and lowest(handle_types.NO_TYPES) == 0
