"""How much memory a safetensors file takes in several processes that load it: shared, anonymous and page cache.

`python -m tests.file_memory [MiB [processes [numpy+torch]]]` prints JSON: the bytes that are used, by extmem and by the
library of the format. The counts are of the processes, of the payload and of the file, so that other programs of the
machine do not change them; those of the whole machine (/proc/meminfo) are printed too.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from extmem.testing.children import Peer

__all__ = ["cached_bytes", "drop_cache", "measure", "write_file"]

_TENSORS = 300
_DEADLINE = 300.0

LOAD = {
    "extmem": """
import extmem
memory = extmem.load_safetensors(path, "file memory")
views = memory.{framework}()
""",
    "library": """
from safetensors.{framework} import load_file
views = load_file(path)
""",
}
"""How a process gets the tensors. The second is what programs do without extmem, to compare with."""
TOUCH = {
    "numpy": "sum(int(array.reshape(-1).view('uint8')[::4096].sum()) for array in views.values())",
    "torch": "sum(int(tensor.reshape(-1).view(torch.uint8)[::4096].sum()) for tensor in views.values())",
}
WARM = """
with extmem.share({{str(n): numpy.zeros(1 << 16, "uint8") for n in range(300)}}) as memory:
    views = memory.{framework}()
    {touch}
    del views
del memory
"""
"""What a framework needs for its first use is not counted."""
COUNTS = """
def anonymous():
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Anonymous:"))

def memory_files():
    import os
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            if os.readlink("/proc/self/fd/" + fd).startswith("/memfd:"):
                status = os.stat("/proc/self/fd/" + fd)
                found.append((status.st_ino, status.st_blocks * 512))
        except OSError:
            pass
    return found
"""


def write_file(path: Path, size: int, tensors: int = _TENSORS) -> None:
    """Write a safetensors file of about `size` bytes, onto the disk."""
    each = size // tensors
    header = {
        f"layer.{n}.weight": {"dtype": "U8", "shape": [each], "data_offsets": [n * each, (n + 1) * each]}
        for n in range(tensors)
    }
    body = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(body).to_bytes(8, "little") + body)
        for _ in range(tensors):
            file.write(os.urandom(each))
        file.flush()
        os.fsync(file.fileno())


def cached_bytes(path: Path) -> int:
    """Return how many bytes of a file are in the page cache (mincore)."""
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        pages = -(-len(mapped) // mmap.PAGESIZE)
        resident = (ctypes.c_ubyte * pages)()
        start = ctypes.c_ubyte.from_buffer(mapped)
        if libc.mincore(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(len(mapped)), resident):
            raise OSError(ctypes.get_errno(), "mincore")
        del start
        return sum(byte & 1 for byte in bytes(resident)) * mmap.PAGESIZE


def drop_cache(path: Path) -> None:
    """Drop the pages of a file from the page cache."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _machine() -> dict[str, int]:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines}
    return {key: found[key] for key in ("Shmem", "AnonPages", "Cached")}


def measure(
    path: Path, processes: int = 4, frameworks: Sequence[str] = ("numpy",), how: str = "extmem"
) -> dict[str, Any]:
    """Load a file in several processes, touch every page there, and return the bytes that this takes.

    frameworks: of the processes, in turn. how: a key of `LOAD`.
    """
    drop_cache(path)
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(Peer()) for _ in range(processes)]
        chosen = [frameworks[n % len(frameworks)] for n in range(processes)]
        for peer, framework in zip(peers, chosen, strict=True):
            imports = f"import extmem, numpy, {framework}" + f"\nimport safetensors.{framework}" * (how == "library")
            warm = WARM.format(framework=framework, touch=TOUCH[framework])
            peer(f"{imports}\n{COUNTS}\n{warm}\nNone", deadline=_DEADLINE)
        before, machine = [peer("anonymous()") for peer in peers], _machine()
        for peer, framework in zip(peers, chosen, strict=True):
            peer(LOAD[how].format(framework=framework) + "\nNone", path=str(path), deadline=_DEADLINE)
        sums = {peer(TOUCH[framework], deadline=_DEADLINE) for peer, framework in zip(peers, chosen, strict=True)}
        after, now = [peer("anonymous()") for peer in peers], _machine()
        shared = {tuple(each) for peer in peers for each in peer("memory_files()")}
        found = {
            "file": path.stat().st_size,
            "shared": sum(size for _, size in shared),
            "anonymous": sum(b - a for a, b in zip(before, after, strict=True)) << 10,
            "page cache": cached_bytes(path),
            "processes": processes,
            "equal": len(sums) == 1,
            "machine": {key: now[key] - machine[key] for key in now},
        }
    found["ratio"] = (found["shared"] + found["anonymous"] + found["page cache"]) / found["file"]
    # The kernel counts shared memory among the cached.
    found["ratio of the machine"] = (found["machine"]["Cached"] + found["machine"]["AnonPages"]) / found["file"]
    return found


if __name__ == "__main__":
    _size = int(sys.argv[1] if len(sys.argv) > 1 else 512) << 20
    _processes = int(sys.argv[2] if len(sys.argv) > 2 else 4)
    _frameworks = (sys.argv[3] if len(sys.argv) > 3 else "numpy").split("+")
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as _folder:
        _path = Path(_folder) / "model.safetensors"
        write_file(_path, _size)
        print(json.dumps({_how: measure(_path, _processes, _frameworks, _how) for _how in LOAD}, indent=1))
