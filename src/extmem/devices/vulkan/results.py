"""VkResults as errors: what was tried, on which device, and what to do."""

from __future__ import annotations

from typing import NoReturn

from extmem import vk
from extmem.devices import descriptor_shortage
from extmem.errors import DriverError, OutOfMemoryError

__all__ = ["fail"]

Result = vk.Result
_MEMORY = {
    Result.ERROR_OUT_OF_HOST_MEMORY: "the process or machine has no more memory; free some",
    Result.ERROR_OUT_OF_DEVICE_MEMORY: "the device has no more memory of this kind; free some, or take another type",
    Result.ERROR_TOO_MANY_OBJECTS: "the device or process has too many objects or descriptors; close some",
}
_OTHER = {
    Result.ERROR_DEVICE_LOST: "the device is lost, and everything on it: close it, open it again, and allocate again",
    Result.ERROR_INVALID_EXTERNAL_HANDLE: "the handle is not what the driver exported for this type and size",
    Result.ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT: "offset or pitch of a memory plane does not suit the "
    "modifier; give those that the exporter's driver states",
    Result.ERROR_INITIALIZATION_FAILED: "the driver does not start; see whether `vulkaninfo` runs",
    Result.ERROR_INCOMPATIBLE_DRIVER: "no driver is installed for this loader; on Debian software rendering is in "
    "mesa-vulkan-drivers",
    Result.ERROR_EXTENSION_NOT_PRESENT: "the driver lacks an extension; update it, or choose another device",
    Result.ERROR_FEATURE_NOT_PRESENT: "the driver lacks a feature; update it, or choose another device",
    Result.TIMEOUT: "a keyed mutex was not acquired in its time: another device holds it, or released it with another "
    "key; nothing was submitted, so submit again. A mutex whose holder has ended is abandoned for good: share a new "
    "resource then",
    Result.ERROR_MEMORY_MAP_FAILED: "the host has no address space for it; unmap other memory, or use read and write",
}

_CERTAIN = frozenset(
    (
        Result.TIMEOUT,
        Result.ERROR_DEVICE_LOST,
        Result.ERROR_EXTENSION_NOT_PRESENT,
        Result.ERROR_FEATURE_NOT_PRESENT,
        Result.ERROR_FORMAT_NOT_SUPPORTED,
    )
)
"""Results that a lack of descriptors does not cause. It may cause all others, whatever the driver calls that."""

_NO_REASON = (
    "the driver gives no reason; run the program under VK_LAYER_KHRONOS_validation, and report this as a fault "
    "of extmem if the layer finds nothing"
)


def fail(result: int, command: str, device: str, tried: str = "") -> NoReturn:
    """Raise the error that a VkResult means. device: its name. tried: the call's values in words.

    Where the process has no file descriptor left, that is OutOfMemoryError, with VK_ERROR_TOO_MANY_OBJECTS where the
    driver returned no result that means a lack: drivers return any result then.
    """
    try:
        known_result = Result(result)
        name = f"VK_{known_result.name}"
    except ValueError:
        known_result, name = None, f"VkResult {result}"
    what = f"{command} on {device or 'Vulkan'} returned {name}" + (f" for {tried}" if tried else "")
    devices = [device] if device else []
    lacking = descriptor_shortage.of_descriptors() if known_result not in _CERTAIN else ""
    if known_result in _MEMORY or lacking:
        meant = result if known_result in _MEMORY else int(Result.ERROR_TOO_MANY_OBJECTS)
        words = lacking or _MEMORY[Result(meant)]
        raise OutOfMemoryError(f"{what}: {words}", result=meant, command=command, devices=devices)
    advice = _OTHER[known_result] if known_result in _OTHER else _NO_REASON
    raise DriverError(f"{what}: {advice}", result=result, command=command, devices=devices)
