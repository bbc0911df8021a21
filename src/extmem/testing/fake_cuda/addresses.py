"""The addresses of functions (cuGetProcAddress): C functions that call the fake's."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from extmem.testing.fake_cuda import semaphores, streams
from extmem.testing.fake_cuda.semaphores import PARAMS_WORDS
from extmem.testing.fake_cuda.sharing import POSIX

if TYPE_CHECKING:
    from extmem.testing.fake_cuda.machine import FakeCuda

__all__: list[str] = []

_NOT_SUPPORTED = 801
_NODE_MASK = 1
_Int, _Word, _Pointer = ctypes.c_uint, ctypes.c_uint64, ctypes.c_size_t
_KINDS: dict[str, Any] = {
    "cuDeviceGetLuid": ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int),
    "cuWaitExternalSemaphoresAsync": ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, _Pointer, _Int, _Pointer),
    "cuSignalExternalSemaphoresAsync": ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, _Pointer, _Int, _Pointer),
    "cuStreamWaitValue64": ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, _Word, _Word, _Int),
    "cuStreamWriteValue64": ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, _Word, _Word, _Int),
    "cuStreamIsCapturing": ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, _Pointer),
    "cuEventRecord": ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, _Pointer),
    "cuLaunchHostFunc": ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, _Pointer, _Pointer),
}


def cuGetProcAddress(fake: FakeCuda, symbol: bytes, version: int, flags: int) -> tuple[int, Any]:
    """Return the address of one of the driver's functions that extmem calls by their address."""
    name = symbol.decode()
    if name not in _KINDS or flags:
        raise fake.wrong(f"the address of {name} is asked for, flags {flags}")
    if name not in fake.callbacks:
        fake.callbacks[name] = _KINDS[name](_c_function(fake, name))
    address = ctypes.cast(fake.callbacks[name], ctypes.c_void_p).value or 0
    return address, fake.module.CUdriverProcAddressQueryResult(0)


def _c_function(fake: FakeCuda, name: str) -> Callable[..., int]:
    if name == "cuDeviceGetLuid":
        return lambda luid, mask, device: _get_luid(fake, luid, mask, device)
    function: Callable[..., None] = getattr(semaphores, name, None) or getattr(streams, name)
    if name.endswith("SemaphoresAsync"):

        def of_semaphores(handles: int, params: int, count: int, stream: int) -> int:
            found = list((ctypes.c_uint64 * count).from_address(handles))
            words = list((ctypes.c_uint64 * (PARAMS_WORDS * count)).from_address(params))
            each = [words[PARAMS_WORDS * at : PARAMS_WORDS * (at + 1)] for at in range(count)]
            return int(fake.run(name, function, found, each, count, stream)[0])

        return of_semaphores
    return lambda *arguments: int(fake.run(name, function, *arguments)[0])


def _get_luid(fake: FakeCuda, luid: int, mask: int, device: int) -> int:
    """The driver's cuDeviceGetLuid, which fills in 8 bytes."""
    if POSIX:
        return _NOT_SUPPORTED
    ctypes.memmove(luid, fake.gpus[device].luid, 8)
    ctypes.c_uint.from_address(mask).value = _NODE_MASK
    return 0
