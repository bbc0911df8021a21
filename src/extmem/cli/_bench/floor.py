"""`floor.c` and `cuda_floor.c`, compiled where the benchmark runs and called as libraries: the same calls from C.

Their times are taken in C, between the calls themselves, so that it does not matter who calls it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from extmem.errors import UnsupportedError

__all__ = ["CudaFloor", "Floor", "compile_floor"]

_HERE = Path(__file__).parent
_COMPILERS = ("cc", "gcc", "clang")
_FAILED_SYSTEM = -1000
_Address, _U64, _U32, _Int = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_int
_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "floor_open": (_Address, (ctypes.c_char_p,)),
    "floor_close": (None, (_Address,)),
    "floor_pass": (ctypes.c_int64, (_Address, _Int, _U64, _U32, _U64, _U32)),
    "floor_take": (ctypes.c_int64, (_Address, _Int)),
    "floor_import": (ctypes.c_int64, (_Address, _Int, _U64, _U32, _U64, _U32)),
    "floor_budget": (_U64, (_Address, _U32)),
}

_CUDA_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "cuda_floor_open": (_Address, (ctypes.c_char_p,)),
    "cuda_floor_close": (None, (_Address,)),
    "cuda_floor_import": (ctypes.c_int64, (_Address, _Int, _U64, _U32)),
}


def compile_floor(directory: Path, source: str = "floor.c") -> str:
    """Compile it there; the library's path. Errors: UnsupportedError without a C compiler, or where it refuses."""
    wanted = [os.environ["CC"]] if os.environ.get("CC") else []
    compiler = next(filter(None, map(shutil.which, (*wanted, *_COMPILERS))), None)
    if compiler is None:
        raise UnsupportedError(
            "there is no C compiler here to build what is compared with; install one (Debian: apt-get install gcc)",
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


class Floor:
    """A VkDevice in C. Ownership: destroyed by `close`; everything that a call makes is freed before it returns."""

    def __init__(self, library: str, device_uuid: bytes) -> None:
        loaded = ctypes.CDLL(library)
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(loaded, name)
            function.restype, function.argtypes = result, arguments
        self._library = loaded
        self._floor = loaded.floor_open(device_uuid)
        if not self._floor:
            raise UnsupportedError(f"C finds no Vulkan device with UUID {device_uuid.hex()}")

    def passed(self, socket: int, size: int, memory_type: int, buffer_size: int, usage: int) -> int:
        """Nanoseconds of exporting so much, passing it through the socket, and its import and binding over there."""
        return _checked(self._library.floor_pass(self._floor, socket, size, memory_type, buffer_size, usage))

    def take(self, socket: int) -> int:
        """The other end: import and bind the next one, free it, and say when it was bound. 0 once nothing comes."""
        return _checked(self._library.floor_take(self._floor, socket))

    def imported(self, fd: int, size: int, memory_type: int, buffer_size: int, usage: int) -> int:
        """Nanoseconds of copying an fd, importing it, binding a buffer and mapping it."""
        return _checked(self._library.floor_import(self._floor, fd, size, memory_type, buffer_size, usage))

    def budget(self, heap: int) -> int:
        """Bytes of a heap that are to be had still (VK_EXT_memory_budget); 0 where nobody says."""
        return int(self._library.floor_budget(self._floor, heap))

    def close(self) -> None:
        """vkDestroyDevice, vkDestroyInstance."""
        floor, self._floor = self._floor, None
        self._library.floor_close(floor)


class CudaFloor:
    """A GPU's primary context in C. Ownership: let go by `close`; what a call makes is freed before it returns."""

    def __init__(self, library: str, device_uuid: bytes) -> None:
        loaded = ctypes.CDLL(library)
        for name, (result, arguments) in _CUDA_SIGNATURES.items():
            function = getattr(loaded, name)
            function.restype, function.argtypes = result, arguments
        self._library = loaded
        self._floor = loaded.cuda_floor_open(device_uuid)
        if not self._floor:
            raise UnsupportedError(f"C finds no CUDA device with UUID {device_uuid.hex()}")

    def imported(self, fd: int, size: int, *, dedicated: bool) -> int:
        """Nanoseconds of copying an fd, importing and mapping it, and looking at what was mapped."""
        return _checked(self._library.cuda_floor_import(self._floor, fd, size, int(dedicated)))

    def close(self) -> None:
        """cuDevicePrimaryCtxRelease."""
        floor, self._floor = self._floor, None
        self._library.cuda_floor_close(floor)


def _checked(value: int) -> int:
    if value < 0:
        what = "the system refused" if value == _FAILED_SYSTEM else f"result {value}"
        raise OSError(f"C's part failed: {what}")
    return value
