"""The program with which `tensors_start` compares: cuda-bindings alone, from an fd to a tensor of PyTorch.

It is run by its path in a process of its own and does not import extmem: `python -P bare_start.py KIND FD SIZE ORDINAL
FLAGS`. KIND is "cuda" for memory of cuMemCreate and "vulkan" for an opaque fd of Vulkan; FLAGS are those of the import.
PyTorch is imported before the time begins. It prints the nanoseconds and the first byte of the tensor as JSON.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from typing import Any

__all__ = ["main"]


def main(kind: str, fd: int, size: int, ordinal: int, flags: int) -> dict[str, int]:
    """Import the memory, and return the nanoseconds until there is a tensor, and its first byte."""
    torch = importlib.import_module("torch")
    begin = time.perf_counter_ns()
    cu = importlib.import_module("cuda.bindings.driver")
    _value(cu.cuInit(0))
    _value(cu.cuCtxSetCurrent(_value(cu.cuDevicePrimaryCtxRetain(_value(cu.cuDeviceGet(ordinal))))))
    address = _of_cuda(cu, fd, size, ordinal) if kind == "cuda" else _of_vulkan(cu, fd, size, flags)
    tensor = torch.as_tensor(_Octets(address, size), device=f"cuda:{ordinal}")
    spent = time.perf_counter_ns() - begin
    return {"nanoseconds": spent, "first": int(tensor[0])}


class _Octets:
    def __init__(self, address: int, size: int) -> None:
        self.__cuda_array_interface__ = {
            "shape": (size,),
            "typestr": "|u1",
            "data": (address, False),
            "version": 3,
        }


def _of_cuda(cu: Any, fd: int, size: int, ordinal: int) -> int:
    handle = _value(
        cu.cuMemImportFromShareableHandle(fd, cu.CUmemAllocationHandleType.CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
    )
    address = int(_value(cu.cuMemAddressReserve(size, 0, 0, 0)))
    _value(cu.cuMemMap(address, size, 0, handle, 0))
    access = cu.CUmemAccessDesc()
    access.location.type = cu.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    access.location.id = ordinal
    access.flags = cu.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READ
    _value(cu.cuMemSetAccess(address, size, [access], 1))
    return address


def _of_vulkan(cu: Any, fd: int, size: int, flags: int) -> int:
    described = cu.CUDA_EXTERNAL_MEMORY_HANDLE_DESC()
    described.type = cu.CUexternalMemoryHandleType.CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD
    described.handle.fd = fd
    described.size = size
    described.flags = flags
    memory = _value(cu.cuImportExternalMemory(described))
    buffer = cu.CUDA_EXTERNAL_MEMORY_BUFFER_DESC()
    buffer.size = size
    return int(_value(cu.cuExternalMemoryGetMappedBuffer(memory, buffer)))


def _value(answer: Any) -> Any:
    result, *values = answer
    if int(result):
        raise OSError(f"a call of CUDA failed: {result!r}")
    return values[0] if values else None


if __name__ == "__main__":
    _kind, *_numbers = sys.argv[1:]
    sys.stdout.write(json.dumps(main(_kind, *map(int, _numbers))))
