"""Memory objects, devices as programs see them, and the self-description of payloads.

What opening a device needs is imported at once, the rest when it is first used (`operations`).
"""

from __future__ import annotations

from extmem.memory.device import Check, Device
from extmem.memory.doors import enumerate_devices, open, open_device, open_handle
from extmem.memory.warning import RuleWarning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from extmem.memory.descriptor import ArrayInfo, Descriptor, ImageInfo, PlaneInfo
    from extmem.memory.memory import DeviceMemory
    from extmem.memory.resources import Buffer, Image

__all__ = [
    "ArrayInfo",
    "Buffer",
    "Check",
    "Descriptor",
    "Device",
    "DeviceMemory",
    "Image",
    "ImageInfo",
    "PlaneInfo",
    "RuleWarning",
    "enumerate_devices",
    "open",
    "open_device",
    "open_handle",
]

if not TYPE_CHECKING:  # a type checker would take this to mean that every name exists

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module 'extmem.memory' has no attribute {name!r}")
        from extmem.memory import operations

        value = globals()[name] = getattr(operations, name)
        return value
