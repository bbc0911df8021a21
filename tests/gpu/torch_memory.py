"""`python -m tests.gpu.torch_memory`: what sharing PyTorch's own memory costs on this GPU, as JSON.

A tensor of 4 GiB (`--gib`) of expandable segments and one of `extmem.torch.pool()` are shared, and opened by another
process, which compares with as many imports of the driver alone: the calls of cuda-bindings in a loop, on the same
handles. Times are the best of five, in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import textwrap
import time
from typing import Any

import extmem
import extmem.torch
from extmem.testing.children import Peer

READER = textwrap.dedent(
    """
    import time, extmem, torch
    from cuda.bindings import driver as cu
    from extmem.manager import Reference, manager
    torch.zeros(1, device="cuda")
    def done(answer):
        assert not answer[0], answer
        return answer[1] if len(answer) > 1 else None
    def opening(name):
        begin = time.perf_counter()
        memory = extmem.open(name)
        took = time.perf_counter() - begin
        ends = int(memory.torch().view(torch.uint8)[0]), int(memory.torch().view(torch.uint8)[-1])
        memory.close()
        return took, ends
    def alone(name):
        owner = manager()
        held = owner.import_by_name(name, 0x2000000, Reference(owner))
        described = extmem.Descriptor.parse(held.descriptor)
        sizes = described.part_sizes or (described.allocation_size,)
        kind = cu.CUmemAllocationHandleType.CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR
        access = cu.CUmemAccessDesc()
        access.location.type = cu.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
        access.location.id = 0
        access.flags = cu.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READ
        begin = time.perf_counter()
        address = int(done(cu.cuMemAddressReserve(sum(sizes), 0, 0, 0)))
        at = address
        for fd, size in zip(held.payload.fds, sizes):
            handle = done(cu.cuMemImportFromShareableHandle(fd, kind))
            done(cu.cuMemMap(at, size, 0, handle, 0))
            done(cu.cuMemRelease(handle))
            at += size
        done(cu.cuMemSetAccess(address, sum(sizes), [access], 1))
        took = time.perf_counter() - begin
        at = address
        for size in sizes:
            done(cu.cuMemUnmap(at, size))
            at += size
        done(cu.cuMemAddressFree(address, sum(sizes)))
        held.give_back()
        return took
    """
)


def _measure(peer: Peer, tensor: Any, name: str) -> dict[str, Any]:
    import torch

    shares, opens, floors = [], [], []
    free = torch.cuda.mem_get_info()[0]
    for number in range(5):
        begin = time.perf_counter()
        memory = extmem.share(tensor, f"{name}-{number}", copy=False)
        shares.append(time.perf_counter() - begin)
        with memory:
            took, ends = peer(f"opening('{name}-{number}')")
            if ends != (7, 7):
                raise SystemExit(f"the reader of {name} has seen {ends}")
            opens.append(took)
            floors.append(peer(f"alone('{name}-{number}')"))
            handles = len(memory.descriptor.part_sizes) or 1
    return {
        "handles": handles,
        "share": round(1000 * min(shares), 3),
        "open": round(1000 * min(opens), 3),
        "imports alone": round(1000 * min(floors), 3),
        "ratio": round(min(opens) / min(floors), 3),
        "bytes of the GPU": free - torch.cuda.mem_get_info()[0],
    }


def main() -> None:
    """Measure, and print the figures."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=4)
    size = int(parser.parse_args().gib * (1 << 30))
    left = extmem.torch.make_shareable()
    of_segments = torch.full((size,), 7, dtype=torch.uint8, device="cuda")
    with extmem.torch.pool():
        pooled = torch.full((size,), 7, dtype=torch.uint8, device="cuda")
    with Peer() as peer:
        peer(READER)
        found = {
            "torch": torch.__version__,
            "not shareable": [one._asdict() for one in left],
            "expandable segments": _measure(peer, of_segments, "segments"),
            "pool": _measure(peer, pooled, "pool"),
        }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
