"""The public objects: devices, memory, buffers and images, and the functions that open them."""

from __future__ import annotations

from extmem.api import pickle_registry as pickle_registry  # registers the pickling of memory and handles
from extmem.api.device import Buffer, Check, Device, DeviceMemory, Image
from extmem.api.functions import enumerate_devices, open, open_device, open_handle

__all__ = [
    "Buffer",
    "Check",
    "Device",
    "DeviceMemory",
    "Image",
    "enumerate_devices",
    "open",
    "open_device",
    "open_handle",
]
