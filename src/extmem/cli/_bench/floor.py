"""`floor.c`, `cuda_floor.c` and `order_floor.c`: the same calls in C.

They are compiled for the benchmark and called as libraries.

The times are taken in C, directly around the calls, so the time of the call from Python does not count.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from extmem.errors import UnsupportedError

__all__ = ["CudaFloor", "Floor", "OrderFloor", "compile_floor"]

_HERE = Path(__file__).parent
_COMPILERS = ("cc", "gcc", "clang")
_FAILED_SYSTEM = -1000
_Address, _U64, _U32, _Int = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_int
_SIGNATURES: dict[str, dict[str, tuple[Any, tuple[Any, ...]]]] = {
    "floor": {
        "floor_open": (_Address, (ctypes.c_char_p,)),
        "floor_close": (None, (_Address,)),
        "floor_pass": (ctypes.c_int64, (_Address, _Int, _U64, _U32, _U64, _U32)),
        "floor_take": (ctypes.c_int64, (_Address, _Int)),
        "floor_import": (ctypes.c_int64, (_Address, _Int, _U64, _U32, _U64, _U32)),
        "floor_budget": (_U64, (_Address, _U32)),
    },
    "cuda_floor": {
        "cuda_floor_open": (_Address, (ctypes.c_char_p,)),
        "cuda_floor_close": (None, (_Address,)),
        "cuda_floor_import": (ctypes.c_int64, (_Address, _Int, _U64, _U32)),
        "cuda_floor_import_parts": (ctypes.c_int64, (_Address, _Address, _Address, _U32)),
    },
    "order_floor": {
        "order_floor_open": (_Address, (ctypes.c_char_p,)),
        "order_floor_close": (None, (_Address,)),
        "order_floor_stream": (ctypes.c_int64, (_Address, _U32)),
        "order_floor_heard": (ctypes.c_int64, (_Address, _U32)),
        "order_floor_paced": (ctypes.c_int64, (_Address, _U32)),
        "order_floor_chain": (ctypes.c_int64, (_Address, _U32)),
    },
}
"""The functions of each library by the prefix of their names, with the types of results and arguments."""


def compile_floor(directory: Path, source: str = "floor.c") -> str:
    """Compile a source file. Return the path of the library. Errors: UnsupportedError without a working compiler."""
    compilers = filter(None, (os.environ.get("CC"), *_COMPILERS))
    compiler = next(filter(None, map(shutil.which, compilers)), None)
    if compiler is None:
        raise UnsupportedError(
            "this benchmark compares with C code and needs a C compiler; install one (Debian: apt-get install gcc)",
            requires_one_of=list(_COMPILERS),
        )
    library = directory / f"{Path(source).stem}.so"
    done = subprocess.run(
        [compiler, "-std=c11", "-O2", "-shared", "-fPIC", "-o", str(library), str(_HERE / source), "-ldl"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        raise UnsupportedError(f"{compiler} cannot build {source}: {done.stderr.strip()[-800:]}")
    return str(library)


class _LoadedFloor:
    """A device in C. Each call frees its own objects before it returns."""

    def __init__(self, library: str, device_uuid: bytes, prefix: str, kind: str) -> None:
        self._library = ctypes.CDLL(library)
        for name, (result, arguments) in _SIGNATURES[prefix].items():
            function = getattr(self._library, name)
            function.restype, function.argtypes = result, arguments
        self._close = getattr(self._library, f"{prefix}_close")
        self._floor = getattr(self._library, f"{prefix}_open")(device_uuid)
        if not self._floor:
            raise UnsupportedError(f"the C code found no {kind} device with UUID {device_uuid.hex()}")

    def close(self) -> None:
        """Destroy the VkDevice and its VkInstance, or release the primary context of the GPU."""
        floor, self._floor = self._floor, None
        self._close(floor)


class Floor(_LoadedFloor):
    """A VkDevice in C."""

    def __init__(self, library: str, device_uuid: bytes) -> None:
        super().__init__(library, device_uuid, "floor", "Vulkan")

    def passed(self, socket: int, size: int, memory_type: int, buffer_size: int, usage: int) -> int:
        """Return the nanoseconds of an export, its passing through the socket, and its import and binding there."""
        return _checked(self._library.floor_pass(self._floor, socket, size, memory_type, buffer_size, usage))

    def take(self, socket: int) -> int:
        """Receiver: import and bind the next payload, free it, and send the time of the binding. Return 0 to end."""
        return _checked(self._library.floor_take(self._floor, socket))

    def imported(self, fd: int, size: int, memory_type: int, buffer_size: int, usage: int) -> int:
        """Return the nanoseconds of copying an fd, importing it, binding a buffer and mapping it."""
        return _checked(self._library.floor_import(self._floor, fd, size, memory_type, buffer_size, usage))

    def budget(self, heap: int) -> int:
        """Return the number of free bytes of a heap (VK_EXT_memory_budget); 0 if the driver does not report it."""
        return int(self._library.floor_budget(self._floor, heap))


class CudaFloor(_LoadedFloor):
    """A GPU's primary context in C."""

    def __init__(self, library: str, device_uuid: bytes) -> None:
        super().__init__(library, device_uuid, "cuda_floor", "CUDA")

    def imported(self, fd: int, size: int, *, dedicated: bool) -> int:
        """Return the nanoseconds of copying an fd, importing and mapping it, and querying the mapped pointer."""
        return _checked(self._library.cuda_floor_import(self._floor, fd, size, int(dedicated)))

    def imported_parts(self, fds: Sequence[int], sizes: Sequence[int]) -> int:
        """Return the nanoseconds of importing allocations by fd, side by side, and of letting the device read them."""
        count = len(sizes)
        if len(fds) != count:
            raise ValueError(f"there are {len(fds)} fds for {count} allocations")
        numbers, lengths = (_Int * count)(*fds), (_U64 * count)(*sizes)
        return _checked(self._library.cuda_floor_import_parts(self._floor, numbers, lengths, count))


class OrderFloor(_LoadedFloor):
    """A VkDevice and a CUDA stream of one GPU in C, with a timeline of the Vulkan driver."""

    def __init__(self, library: str, device_uuid: bytes) -> None:
        super().__init__(library, device_uuid, "order_floor", "Vulkan and CUDA")

    def on_stream(self, rounds: int) -> int:
        """Return the nanoseconds of `rounds` waits and signals on the stream, which is not waited for."""
        return _checked(self._library.order_floor_stream(self._floor, rounds))

    def heard(self, rounds: int) -> int:
        """As `on_stream`; after each signal a host function raises a word and wakes who sleeps on it."""
        return _checked(self._library.order_floor_heard(self._floor, rounds))

    def paced(self, rounds: int) -> int:
        """Return the nanoseconds of `rounds` waits and signals, each after a pause. The waits are not satisfied yet."""
        return _checked(self._library.order_floor_paced(self._floor, rounds))

    def chained(self, rounds: int) -> int:
        """Return the nanoseconds of `rounds` chains of the queue, the stream, the queue, and a wait of the host."""
        return _checked(self._library.order_floor_chain(self._floor, rounds))


def _checked(value: int) -> int:
    if value < 0:
        reason = "a system call failed" if value == _FAILED_SYSTEM else f"result {value}"
        raise OSError(f"the C code failed: {reason}")
    return value
