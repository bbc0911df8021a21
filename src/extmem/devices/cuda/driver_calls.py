"""CUDA's functions that every wait and signal of a stream calls, by their addresses.

How this works. A stream's wait and signal take 8 µs in C, so what Python adds counts. cuda-bindings converts its
arguments and results at each call, and its cuLaunchHostFunc calls the host function with the GIL held. cffi calls the
driver's functions by their addresses (cuGetProcAddress), with numbers for all pointers, and releases the GIL meanwhile.
Arguments that are the same in each call are made once; `call_sequence` makes several calls in one.
"""

from __future__ import annotations

from typing import Any, Final

from extmem.devices.cuda.results import value_of
from extmem.vk.abi import ffi

__all__ = ["FENCE_VALUE", "KEY", "PARAMS_WORDS", "TIMEOUT_MS", "DriverCalls"]

PARAMS_WORDS: Final = 18
"""The size of CUDA_EXTERNAL_SEMAPHORE_SIGNAL_PARAMS and …_WAIT_PARAMS, in words of 8 bytes."""
FENCE_VALUE: Final = 0
"""The index of params.fence.value in these words."""
KEY: Final = 2
"""The index of params.keyedMutex.key."""
TIMEOUT_MS: Final = 3
"""The index of params.keyedMutex.timeoutMs (of a wait)."""

_SINCE: Final = 12_000
"""The version of CUDA whose functions are meant."""
_ON_SEMAPHORES: Final = "int(*)(uintptr_t, uintptr_t, unsigned int, uintptr_t)"
_ON_WORD: Final = "int(*)(uintptr_t, uint64_t, uint64_t, unsigned int)"


class DriverCalls:
    """The functions of one driver. Each returns a CUresult as an int."""

    def __init__(self, module: Any) -> None:
        """module: of CUDA's driver API. Errors: DriverError for a function that the driver lacks."""
        self._module = module
        self.names: dict[Any, str] = {}
        """The name of each function, for errors."""
        self.addresses: dict[Any, int] = {}
        """The address of each function, for programs (`call_sequence`)."""
        self.wait_semaphores = self._function("cuWaitExternalSemaphoresAsync", _ON_SEMAPHORES)
        self.signal_semaphores = self._function("cuSignalExternalSemaphoresAsync", _ON_SEMAPHORES)
        self.wait_value = self._function("cuStreamWaitValue64", _ON_WORD)
        self.write_value = self._function("cuStreamWriteValue64", _ON_WORD)
        self.record_event = self._function("cuEventRecord", "int(*)(uintptr_t, uintptr_t)")
        self.is_capturing = self._function("cuStreamIsCapturing", "int(*)(uintptr_t, uintptr_t)")
        self.launch_host_function = self._function("cuLaunchHostFunc", "int(*)(uintptr_t, uintptr_t, uintptr_t)")

    def _function(self, name: str, kind: str) -> Any:
        result, address, _ = self._module.cuGetProcAddress(name.encode(), _SINCE, 0)
        number = int(value_of((result, address), f"cuGetProcAddress({name})"))
        function = ffi.cast(kind, number)
        self.names[function], self.addresses[function] = name, number
        return function
