"""Memory of CUDA's virtual-memory API that extmem did not make, on a real GPU: PyTorch's, and a range made here."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

import extmem
from extmem import raw, vk
from extmem.api import Device
from extmem.testing.children import Child, Peer

FD = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD


def done(answer: tuple[Any, ...]) -> Any:
    """Return the results of a call of cuda-bindings, whose first part is the CUresult."""
    assert not answer[0], answer
    return answer[1] if len(answer) == 2 else None


@contextlib.contextmanager
def segment(device: Device, *granules: int) -> Iterator[tuple[int, int]]:
    """Allocate so many granules side by side in one range of addresses. Return the address, and the bytes of a granule.

    Each byte of an allocation is its number, from 1 on.
    """
    backend: Any = device.backend
    cu = backend.device.module
    properties = cu.CUmemAllocationProp()
    properties.type = cu.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    properties.location.type = cu.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    properties.location.id = backend.device.gpu.ordinal
    properties.requestedHandleTypes = cu.CUmemAllocationHandleType.CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR
    access = cu.CUmemAccessDesc()
    access.location.type = cu.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    access.location.id = backend.device.gpu.ordinal
    access.flags = cu.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE
    with backend.device.gpu.current:
        kind = cu.CUmemAllocationGranularity_flags.CU_MEM_ALLOC_GRANULARITY_MINIMUM
        granule = int(done(cu.cuMemGetAllocationGranularity(properties, kind)))
        whole = sum(granules) * granule
        address = int(done(cu.cuMemAddressReserve(whole, 0, 0, 0)))
        at, parts = address, []
        for number, count in enumerate(granules, 1):
            size = count * granule
            handle = done(cu.cuMemCreate(size, properties, 0))
            done(cu.cuMemMap(at, size, 0, handle, 0))
            done(cu.cuMemSetAccess(at, size, [access], 1))
            done(cu.cuMemRelease(handle))
            done(cu.cuMemsetD8(at, number, size))
            parts.append((at, size))
            at += size
        done(cu.cuCtxSynchronize())
    try:
        yield address, granule
    finally:
        with backend.device.gpu.current:
            for begin, size in parts:
                done(cu.cuMemUnmap(begin, size))
            done(cu.cuMemAddressFree(address, whole))


def test_each_allocation_of_a_range_is_shared_as_itself(cuda: Device) -> None:
    """A process that opens it, this one or another, reads the bytes of the allocation that was adopted."""
    with segment(cuda, 1, 10, 3) as (address, granule), Peer() as peer:
        for first, count, number in ((0, 1, 1), (1, 10, 2), (11, 3, 3)):
            for size in (4096, count * granule):
                with raw.adopt_cuda(cuda, address + first * granule, size) as adopted:
                    assert (adopted.size, adopted.allocation_size) == (size, count * granule)
                    with adopted.export_handle(FD) as handle, cuda.open(handle) as other:
                        assert set(other.read_bytes(size - 4096)) == {number}
                    assert peer("set(given.read_bytes(0, 4096))", given=adopted) == {number}
                    peer("given.close()")


def test_what_is_not_one_allocation_from_its_beginning_is_refused(cuda: Device) -> None:
    with segment(cuda, 1, 10) as (address, granule):
        for begin, size, problem in (
            (512, 512, "begin inside of an allocation"),
            (2 * granule, 512, "begin inside of an allocation"),
            (0, granule + 1, "others follow"),
            (granule, 10 * granule + 1, f"has {10 * granule} bytes"),
        ):
            with pytest.raises(extmem.UnsupportedError, match=problem):
                raw.adopt_cuda(cuda, address + begin, size)
        raw.adopt_cuda(cuda, address, granule).close()


EXPANDABLE = textwrap.dedent(
    """
    import torch, extmem
    from extmem import raw, vk
    FD = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD
    device = extmem.open_device(kind="cuda")
    one, two = (torch.full((1 << 20,), n, dtype=torch.uint8, device="cuda") for n in (1, 2))
    large = torch.full((256 << 20,), 3, dtype=torch.uint8, device="cuda")
    torch.cuda.synchronize()
    seen = 0
    for tensor, number in ((one, 1), (two, 2), (large, 3)):
        try:
            with raw.adopt_cuda(device, tensor.data_ptr(), tensor.numel()) as adopted:
                with device.open(adopted.export_handle(FD)) as other:
                    assert set(other.read_bytes(0, 4096)) == {number}, number
            seen += 1
        except extmem.UnsupportedError as error:
            assert "begin inside of an allocation" in str(error) or "others follow" in str(error), error
            assert "copy it once" in str(error), error
    print("adopted", seen, flush=True)
    """
)


def test_tensors_of_expandable_segments_arrive_as_themselves_or_are_refused(torch: Any) -> None:
    """The tensor of 256 MiB is in several allocations, and is refused; of the others the first begins an allocation."""
    environment = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    with Child.python(EXPANDABLE, env=environment) as child:
        child.wait(deadline=120)
        assert child.output.split()[-2] == "adopted" and child.output.split()[-1] in ("1", "2"), child.output
