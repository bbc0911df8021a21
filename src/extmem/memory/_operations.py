"""All of this layer that `operations` gives, imported together."""

from extmem.manager import manager
from extmem.memory import (
    allocating,
    allocating_arrays,
    arguments,
    asking,
    binding,
    creating,
    exporting,
    importing,
    opening,
    passing,
    ranges,
)
from extmem.memory.commands import Commands
from extmem.memory.descriptor import ArrayInfo, Descriptor, ImageInfo, PlaneInfo
from extmem.memory.holding import in_use
from extmem.memory.memory import DeviceMemory
from extmem.memory.resources import Buffer, Image

__all__ = [
    "ArrayInfo",
    "Buffer",
    "Commands",
    "Descriptor",
    "DeviceMemory",
    "Image",
    "ImageInfo",
    "PlaneInfo",
    "allocating",
    "allocating_arrays",
    "arguments",
    "asking",
    "binding",
    "creating",
    "exporting",
    "importing",
    "in_use",
    "manager",
    "opening",
    "passing",
    "ranges",
]
