"""All of this layer that `operations` gives, imported together."""

from extmem.api import pickling
from extmem.api.commands import Commands
from extmem.api.memory import DeviceMemory
from extmem.core import (
    allocating,
    allocating_arrays,
    arguments,
    binding,
    creating,
    exporting,
    import_source,
    mapped_ranges,
    opening,
    own_fds,
    queries,
)
from extmem.core.memory_record import in_use
from extmem.core.resources import Buffer, Image
from extmem.manager import manager
from extmem.sharing.descriptor.descriptor import ArrayInfo, Descriptor, ImageInfo, PlaneInfo

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
    "queries",
    "binding",
    "creating",
    "exporting",
    "import_source",
    "in_use",
    "manager",
    "opening",
    "own_fds",
    "pickling",
    "mapped_ranges",
]
