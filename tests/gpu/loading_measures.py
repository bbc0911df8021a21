"""Measures of loading a safetensors file onto a GPU: by extmem, first and later, and by `load_file` of the library.

Run it as `python -m tests.gpu.loading_measures [GiB [folder]]`. It prints JSON: seconds, and the GPU memory in use.
Files are read from a warm page cache, as `load_file` is at its best then; extmem gives the pages back, so the
cache is filled again before each round. Loaders after the first are other processes, with a CUDA context.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import extmem
from extmem.testing.children import Peer
from tests.file_memory import write_file

__all__ = ["measure"]

_ROUNDS = 5
_DEADLINE = 300.0
OPENER = """
import time, torch, extmem
torch.zeros(1, device="cuda")
extmem.open_device(kind="cuda").close()

def load(path, name):
    start = time.perf_counter()
    memory = extmem.load_safetensors(path, name, device="cuda")
    views = memory.torch()
    took = time.perf_counter() - start
    total = sum(int(tensor.reshape(-1).view(torch.uint8)[::4096].sum(dtype=torch.int64)) for tensor in views.values())
    return took, total, torch.cuda.mem_get_info()[0]
"""


def _warm(path: Path) -> None:
    """Read the file into the page cache."""
    with path.open("rb", buffering=0) as file:
        buffer = bytearray(16 << 20)
        while file.readinto(buffer):
            pass


def _best(work: Callable[[], Any], path: Path) -> float:
    best = float("inf")
    for _ in range(_ROUNDS):
        _warm(path)
        start = time.perf_counter()
        kept = work()
        best = min(best, time.perf_counter() - start)
        del kept
    return best


def measure(torch: Any, path: Path, processes: int = 3) -> dict[str, Any]:
    """Return what it takes to load the file. processes: that load it after the first."""
    from safetensors.torch import load_file

    torch.zeros(1, device="cuda")

    def library() -> Any:
        found = load_file(path, device="cuda")
        torch.cuda.synchronize()
        return found

    found: dict[str, Any] = {
        "bytes": path.stat().st_size,
        "cores": len(os.sched_getaffinity(0)),
        "load_file(cuda), s": _best(library, path),
    }
    torch.cuda.empty_cache()

    def first() -> None:
        extmem.load_safetensors(path, device="cuda").close()

    with extmem.open_device(kind="cuda"):
        found["load_safetensors(cuda), s"] = _best(first, path)
        _warm(path)
        with Peer() as peer:
            peer(OPENER + "\nNone", deadline=_DEADLINE)
            before = torch.cuda.mem_get_info()[0]
            with extmem.load_safetensors(path, "loading measures", device="cuda") as memory:
                found["GPU memory of the first"] = before - torch.cuda.mem_get_info()[0]
                views = memory.torch()
                total = sum(int(t.reshape(-1).view(torch.uint8)[::4096].sum(dtype=torch.int64)) for t in views.values())
                took = []
                for _ in range(processes):
                    seconds, other, free = peer(f"load({str(path)!r}, 'loading measures')", deadline=_DEADLINE)
                    took.append(seconds)
                    found["contents"] = other == total
                    found["GPU memory of the first and another"] = before - free
                theirs = load_file(path, device="cpu")
                found["contents of the file"] = all(
                    bool((views[name].cpu() == tensor).all()) for name, tensor in theirs.items()
                )
                del views
    found["others, s"] = took
    found["others, median, s"] = statistics.median(took)
    found["first / load_file"] = found["load_file(cuda), s"] / found["load_safetensors(cuda), s"]
    found["GPU memory / file"] = found["GPU memory of the first and another"] / found["bytes"]
    return found


if __name__ == "__main__":
    import torch as _torch

    _size = int(float(sys.argv[1] if len(sys.argv) > 1 else 2) * (1 << 30))
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as _folder:
        _path = Path(_folder) / "model.safetensors"
        write_file(_path, _size)
        print(json.dumps(measure(_torch, _path), indent=1))
