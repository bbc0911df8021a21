"""`python -m tests.gpu.torch_memory`: what sharing PyTorch's own memory costs on this GPU, as JSON.

A tensor of 4 GiB (`--gib`) of expandable segments and one of `extmem.torch.pool()` are shared, and opened by another
process, which compares with as many imports of the driver alone: the calls of cuda-bindings in a loop, on the same
handles. Memory of the same size that extmem allocated is opened, too. Times are the best of five, in milliseconds;
`parts of share` are the calls that `share` consists of: finding the allocations, exporting them, and the broker's part.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import textwrap
import time
from collections.abc import Iterator
from typing import Any

import extmem
import extmem.torch
from extmem.core import exporting
from extmem.devices.cuda.spans import Spans
from extmem.manager.linux.connection import Connection
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


class _Timed:
    """The time that calls of some functions take, added up for each."""

    def __init__(self) -> None:
        self.taken: dict[str, float] = {}

    @contextlib.contextmanager
    def watching(self, **functions: tuple[Any, str]) -> Iterator[None]:
        """Time these functions, each given as its owner and its name there."""
        self.taken = dict.fromkeys(functions, 0.0)
        before = {label: getattr(owner, name) for label, (owner, name) in functions.items()}
        for label, (owner, name) in functions.items():
            setattr(owner, name, self._timed(label, before[label]))
        try:
            yield
        finally:
            for label, (owner, name) in functions.items():
                setattr(owner, name, before[label])

    def _timed(self, label: str, call: Any) -> Any:
        def timed(*arguments: Any, **options: Any) -> Any:
            begin = time.perf_counter()
            try:
                return call(*arguments, **options)
            finally:
                self.taken[label] += time.perf_counter() - begin

        return timed


def _parts_of_share(tensor: Any, name: str) -> dict[str, float]:
    """Return the milliseconds of the parts of one `share`."""
    timed = _Timed()
    watched = {
        "allocations": (Spans, "adopt"),
        "export": (exporting.PayloadHandles, "__init__"),
        "broker": (Connection, "_round_trip"),
    }
    with timed.watching(**watched):
        begin = time.perf_counter()
        with extmem.share(tensor, name, copy=False):
            whole = time.perf_counter() - begin
            taken = dict(timed.taken)
    return {label: round(1000 * seconds, 3) for label, seconds in {"whole": whole, **taken}.items()}


def _own(peer: Peer, size: int) -> float:
    """Return the milliseconds of opening memory of this size that extmem allocated on the GPU."""
    opens = []
    with extmem.open_device(kind="cuda") as device:
        for number in range(5):
            with device.allocate((size,), "uint8", name=f"own-{number}") as memory:
                memory.fill(7)
                took, ends = peer(f"opening('own-{number}')")
                if ends != (7, 7):
                    raise SystemExit(f"the reader of own memory has seen {ends}")
                opens.append(took)
    return round(1000 * min(opens), 3)


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
        "parts of share": _parts_of_share(tensor, f"{name}-parts"),
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
        found: dict[str, Any] = {
            "torch": torch.__version__,
            "not shareable": [one._asdict() for one in left],
            "expandable segments": _measure(peer, of_segments, "segments"),
            "pool": _measure(peer, pooled, "pool"),
            "open of memory of extmem": _own(peer, size),
        }
        found["pool, against memory of extmem"] = round(found["pool"]["open"] / found["open of memory of extmem"], 3)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
