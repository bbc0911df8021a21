"""Memory that a framework allocated with CUDA's virtual-memory API, adopted: measured, and refused if unsuitable."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator, Sequence

import pytest

import extmem
from extmem import raw, vk
from extmem.api import Device
from extmem.devices.cuda.handle_types import Terms
from extmem.testing import fake_cuda
from tests.unit.devices.cuda.test_sharing import CU_TYPE, SHARED, each_sees_the_other


def test_memory_of_the_virtual_memory_api_is_adopted(cuda: Device, fake: fake_cuda.FakeCuda) -> None:
    with cuda.allocate((100_000,)) as memory:
        place = memory.device_array()
        with raw.adopt_cuda(cuda, place.pointer, memory.size) as adopted:
            each_sees_the_other(memory, adopted)
            with adopted.export_handle(SHARED) as handle, cuda.open(handle) as other:
                each_sees_the_other(memory, other)
        del place


@pytest.mark.linux_only("on Windows a CUDA device imports them")
def test_direct3ds_types_are_refused_with_the_reason(cuda: Device) -> None:
    kind = vk.ExternalMemoryHandleTypeFlagBits.D3D11_TEXTURE_KMT
    number = raw.kmt_handle(0x4000_0002)
    with pytest.raises(extmem.UnsupportedError, match="device on Windows imports"):
        raw.import_payload(cuda, number, extmem.Descriptor(int(kind), 4096))
    with pytest.raises(extmem.UnsupportedError, match="device on Windows imports"):
        cuda.allocate_memory(vk.MemoryAllocateInfo(4096, 0, vk.ImportMemoryWin32HandleInfoKHR(kind, number)))


def test_other_memory_is_refused_with_the_remedy(cuda: Device) -> None:
    with pytest.raises(extmem.UnsupportedError, match="allocate it through extmem"):
        raw.adopt_cuda(cuda, 4096, 4096)
    with cuda.allocate_memory(vk.MemoryAllocateInfo(10, 0)) as private:
        place = private.device_array()
        with pytest.raises(extmem.UnsupportedError, match="without a shareable handle type"):
            raw.adopt_cuda(cuda, place.pointer, 10)
        del place


@contextlib.contextmanager
def segment(fake: fake_cuda.FakeCuda, *granules: int, kinds: Sequence[int] = ()) -> Iterator[int]:
    """Make one range of addresses with allocations of so many granules side by side, like expandable segments.

    Each byte of an allocation is its number, from 1 on. Returns the address of the range. kinds: the handle type of
    each allocation, if that is not the usual one.
    """
    cu, granule = fake.module, fake.gpus[0].granularity
    properties = cu.CUmemAllocationProp()
    properties.type = cu.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    properties.location.type = cu.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    properties.requestedHandleTypes = cu.CUmemAllocationHandleType(CU_TYPE)
    terms = Terms(None)
    if terms.address:  # on Windows: which users may open it
        properties.win32HandleMetaData = terms.address
    whole = sum(granules) * granule
    _, address = cu.cuMemAddressReserve(whole, 0, 0, 0)
    parts, at = [], int(address)
    for number, count in enumerate(granules, 1):
        if kinds:
            properties.requestedHandleTypes = cu.CUmemAllocationHandleType(kinds[number - 1])
        _, handle = cu.cuMemCreate(count * granule, properties, 0)
        access = cu.CUmemAccessDesc()
        access.location.type = cu.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
        access.flags = cu.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE
        assert not cu.cuMemMap(at, count * granule, 0, handle, 0)[0]
        assert not cu.cuMemSetAccess(at, count * granule, [access], 1)[0]
        ctypes.memset(at, number, count * granule)
        cu.cuMemRelease(handle)
        parts.append((at, count * granule))
        at += count * granule
    yield int(address)
    for begin, size in parts:
        cu.cuMemUnmap(begin, size)
    cu.cuMemAddressFree(address, whole)


def test_a_tensor_that_begins_its_allocation_is_adopted_wherever_that_is(
    cuda: Device, fake: fake_cuda.FakeCuda
) -> None:
    granule = fake.gpus[0].granularity
    with segment(fake, 1, 3) as address:
        for begin, size, whole, number in (
            (address, 100, granule, 1),
            (address, granule, granule, 1),
            (address + granule, 3 * granule, 3 * granule, 2),
            (address + granule, granule + 1, 3 * granule, 2),
        ):
            with raw.adopt_cuda(cuda, begin, size) as adopted:
                assert (adopted.size, adopted.allocation_size) == (size, whole)
                with adopted.export_handle(SHARED) as handle, cuda.open(handle) as other:
                    assert other.size == size and set(other.read_bytes()) == {number}


def test_a_tensor_that_is_not_one_allocation_is_refused_with_the_remedy(cuda: Device, fake: fake_cuda.FakeCuda) -> None:
    """A handle leads to the beginning of an allocation: it would show its neighbour's bytes."""
    granule = fake.gpus[0].granularity
    with segment(fake, 2, 1) as address:
        for begin, size, problem in (
            (address + 512, 512, "begin inside of an allocation, 512 bytes after"),
            (address + granule, granule, f"begin inside of an allocation, {granule} bytes after"),
            (address, 2 * granule + 1, f"has {2 * granule} bytes, and others follow"),
            (address, 3 * granule, f"has {2 * granule} bytes, and others follow"),
            (address + 2 * granule, 1 << 40, f"has {granule} bytes"),
        ):
            with pytest.raises(extmem.UnsupportedError, match=problem) as caught:
                raw.adopt_cuda(cuda, begin, size)
            assert "copy it once into memory of extmem's" in str(caught.value)
        with pytest.raises(ValueError, match="size is 0"):
            raw.adopt_cuda(cuda, address, 0)
        raw.adopt_cuda(cuda, address, 2 * granule).close()
        raw.adopt_cuda(cuda, address + 2 * granule, 5).close()


def test_a_driver_that_counts_a_whole_range_as_one_is_asked_at_each_allocation(
    cuda: Device, fake: fake_cuda.FakeCuda
) -> None:
    granule = fake.gpus[0].granularity
    with segment(fake, 1, 5, 2) as address:
        fake.whole_ranges = (address, 8 * granule)
        for begin, whole in ((0, 1), (1, 5), (6, 2)):
            at = address + begin * granule
            with raw.adopt_cuda(cuda, at, whole * granule) as adopted:
                assert adopted.allocation_size == whole * granule
            with pytest.raises(extmem.UnsupportedError, match=f"has {whole * granule} bytes"):
                raw.adopt_cuda(cuda, at, whole * granule + 1)
        with pytest.raises(extmem.UnsupportedError, match="begin inside of an allocation"):
            raw.adopt_cuda(cuda, address + 2 * granule, granule)
