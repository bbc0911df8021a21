"""Memory objects, devices as programs see them, and the self-description of payloads.

What opening a device needs is imported at once, the rest when it is first used (`operations`).
"""

from __future__ import annotations

from extmem.api.device import Check, Device
from extmem.api.functions import enumerate_devices, open, open_device, open_handle
from extmem.api.warning import RuleWarning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from extmem.api.memory import DeviceMemory
    from extmem.core.resources import Buffer, Image
    from extmem.sharing.descriptor.descriptor import ArrayInfo, Descriptor, ImageInfo, PlaneInfo

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
            raise AttributeError(f"module 'extmem.api' has no attribute {name!r}")
        from extmem.api import operations

        value = globals()[name] = getattr(operations, name)
        return value
