"""Memory objects, devices as programs see them, and the self-description of payloads."""

from extmem.memory.descriptor import ArrayInfo, Descriptor, ImageInfo, PlaneInfo
from extmem.memory.device import Check, Device
from extmem.memory.doors import enumerate_devices, open, open_device, open_handle
from extmem.memory.memory import DeviceMemory
from extmem.memory.resources import Buffer, Image
from extmem.memory.warning import RuleWarning

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
