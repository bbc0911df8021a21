"""CUresults as errors: what was tried, on which device, and what to do."""

from __future__ import annotations

from typing import Any, NoReturn

from extmem import vk
from extmem.errors import DriverError, OutOfMemoryError

__all__ = ["check", "fail", "value_of"]

_OUT_OF_MEMORY = 2
_ADVICE = {
    1: "a value does not fit: size, type and dedicated flag must be the exporter's (they are in the descriptor)",
    3: "CUDA is not initialized in this process; a child that was forked after CUDA began can't use it: use spawn",
    4: "CUDA is shutting down: the process is ending",
    34: "the library is a stub for linking: let the loader find the driver's own libcuda first (LD_LIBRARY_PATH)",
    46: "another process has the GPU for itself (compute mode), or it is not ready",
    100: "there is no GPU that CUDA can use; see whether `nvidia-smi` lists one, and CUDA_VISIBLE_DEVICES",
    101: "CUDA has no GPU of this number here",
    201: "the context was destroyed or reset by other code; open the device again",
    304: "the operating system refused: too many descriptors or mappings, or no right to the handle",
    400: "the handle is not valid",
    700: "a kernel wrote or read where it must not, and the context is lost: end the process and start again",
    712: "these pages are registered with CUDA already, by other code of this process; unregister them there",
    719: "a kernel failed, and the context is lost: end the process and start again",
    801: "the GPU or its driver lacks it",
    802: "the GPU or its fabric is not ready; see `nvidia-smi`",
    803: "the driver and the CUDA library do not match; restart after an update of the driver",
    804: "the CUDA library is newer than the driver and the GPU is not one that allows it: update the driver",
    999: "the driver does not recognize the handle; pass the exporter's handle, with its type and size",
}
_RESULTS = {
    304: "ERROR_TOO_MANY_OBJECTS",
    400: "ERROR_INVALID_EXTERNAL_HANDLE",
    700: "ERROR_DEVICE_LOST",
    719: "ERROR_DEVICE_LOST",
    801: "ERROR_FEATURE_NOT_PRESENT",
    999: "ERROR_INVALID_EXTERNAL_HANDLE",
}
"""The VkResult that a Vulkan driver returns in such a case, by name."""


def check(result: Any, command: str, *devices: str, tried: str = "") -> None:
    """Raise the error that a CUresult other than CUDA_SUCCESS means. As `fail`."""
    if result:
        fail(result, command, *devices, tried=tried)


def value_of(answer: tuple[Any, Any], command: str, *devices: str, tried: str = "") -> Any:
    """Return the second part of a call's answer, whose first part is its CUresult. Errors: as `fail`."""
    result, value = answer
    check(result, command, *devices, tried=tried)
    return value


def fail(result: Any, command: str, *devices: str, tried: str = "") -> NoReturn:
    """Raise the error that a CUresult means. devices: names of the devices. tried: the call's values in words."""
    code = int(result)
    name = getattr(result, "name", f"CUresult {code}")
    what = f"{command} on {devices[0] if devices else 'CUDA'} returned {name} ({code})"
    if tried:
        what = f"{what} for {tried}"
    if code == _OUT_OF_MEMORY:
        raise OutOfMemoryError(
            f"{what}: the GPU has no more memory; free some, or ask for less",
            result=int(vk.Result.ERROR_OUT_OF_DEVICE_MEMORY),
            command=command,
            devices=devices,
        )
    raise DriverError(
        f"{what}: {_ADVICE.get(code, 'see the CUDA driver API on this result')}",
        result=int(vk.Result[_RESULTS.get(code, "ERROR_UNKNOWN")]),
        command=command,
        devices=devices,
    )
