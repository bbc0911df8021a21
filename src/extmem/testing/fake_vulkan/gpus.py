"""What a fake GPU is: plain values that a test chooses, and that travel to other processes as text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from extmem import vk
from extmem.devices.host import HAS_FDS

__all__ = [
    "DISCRETE",
    "HOST_POINTERS",
    "INTEGRATED",
    "NON_COHERENT",
    "PAYLOAD_NAME",
    "SHARING_EXTENSION",
    "External",
    "Family",
    "Gpu",
    "Manners",
    "MemoryType",
    "Modifier",
    "from_plain",
    "shared",
    "to_plain",
]

PAYLOAD_NAME = "fake vulkan memory"
"""What the memory files of a fake driver are called, so that its fds look alike; and the sections of KMT numbers."""

HandleType = vk.ExternalMemoryHandleTypeFlagBits
_Feature = vk.ExternalMemoryFeatureFlagBits
_Property = vk.MemoryPropertyFlagBits
_FD, _HOST = int(HandleType.OPAQUE_FD), int(HandleType.HOST_ALLOCATION)
_NT, _KMT = int(HandleType.OPAQUE_WIN32), int(HandleType.OPAQUE_WIN32_KMT)
_BOTH = int(_Feature.EXPORTABLE | _Feature.IMPORTABLE)
_IMPORT = int(_Feature.IMPORTABLE)
_ALL_QUEUE = int(vk.QueueFlagBits.GRAPHICS | vk.QueueFlagBits.COMPUTE | vk.QueueFlagBits.TRANSFER)
_LOCAL, _VISIBLE = int(_Property.DEVICE_LOCAL), int(_Property.HOST_VISIBLE)
_COHERENT, _CACHED = int(_Property.HOST_COHERENT), int(_Property.HOST_CACHED)
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class MemoryType:
    """VkMemoryType: property flags and the heap's number."""

    flags: int
    heap: int = 0


@dataclass(frozen=True, slots=True)
class Family:
    """VkQueueFamilyProperties."""

    flags: int = _ALL_QUEUE
    count: int = 1


@dataclass(frozen=True, slots=True)
class Modifier:
    """A DRM format modifier (VkDrmFormatModifierPropertiesEXT) that every plain format has. See `modifiers`."""

    number: int
    planes: int = 1
    """Memory planes."""
    pitch_alignment: int = 64
    """Bytes: where rows and planes begin."""
    shared: int | None = None
    """Handle types that images with it may be shared as; None for all that the GPU shares images as."""


@dataclass(frozen=True, slots=True)
class External:
    """What the driver says of one handle type for buffers or images (VkExternalMemoryProperties)."""

    kind: Literal["buffer", "image"]
    handle_type: int
    features: int = _BOTH
    export_from_imported: int = _FD
    compatible: int = _FD
    dedicated: Literal["no", "preferred", "required"] = "no"
    """What such a resource's VkMemoryDedicatedRequirements say; "required" adds DEDICATED_ONLY to the features."""


def shared(
    *, buffer: Literal["no", "preferred", "required"] = "no", image: Literal["no", "preferred", "required"] = "no"
) -> tuple[External, ...]:
    """What a driver of this system shares: opaque fds, or NT handles and KMT numbers, which do not go together (B86).

    buffer, image: what such resources require of dedicated memory.
    """
    asks: tuple[tuple[Literal["buffer", "image"], Literal["no", "preferred", "required"]], ...]
    asks = (("buffer", buffer), ("image", image))
    if HAS_FDS:
        return tuple(External(kind, _FD, dedicated=alone) for kind, alone in asks)
    opaque = [External(kind, bit, _BOTH, 0, bit, alone) for kind, alone in asks for bit in (_NT, _KMT)]
    images = (HandleType.D3D11_TEXTURE, HandleType.D3D11_TEXTURE_KMT, HandleType.D3D12_RESOURCE)
    textures = [External("image", int(bit), _IMPORT, 0, int(bit), "required") for bit in images]
    resource, heap = int(HandleType.D3D12_RESOURCE), int(HandleType.D3D12_HEAP)
    buffers = [
        External("buffer", resource, _IMPORT, 0, resource, "required"),
        External("buffer", heap, _IMPORT, 0, heap),
    ]
    return (*opaque, *textures, *buffers)


HOST_POINTERS = (
    External("buffer", _HOST, _IMPORT, 0, _HOST),
    External("image", _HOST, _IMPORT, 0, _HOST),
)
"""VK_EXT_external_memory_host: what every fake GPU takes."""
SHARING_EXTENSION = "VK_KHR_external_memory_fd" if HAS_FDS else "VK_KHR_external_memory_win32"
"""The extension by which drivers of this system share."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A physical device. The default is a discrete GPU whose own memory the host cannot see."""

    name: str = "Fake Discrete GPU"
    device_uuid: bytes = b"fake gpu 0000001"
    driver_uuid: bytes = b"fake driver 0001"
    luid: bytes | None = b"fakeluid"
    node_mask: int = 1
    driver_name: str = "extmem fake driver"
    driver_info: str = "1.0"
    device_type: int = int(vk.PhysicalDeviceType.DISCRETE_GPU)
    api_version: tuple[int, int] = (1, 3)
    memory_types: tuple[MemoryType, ...] = (
        MemoryType(_LOCAL, 0),
        MemoryType(_VISIBLE | _COHERENT, 1),
        MemoryType(_VISIBLE | _COHERENT | _CACHED, 1),
    )
    heaps: tuple[int, ...] = (8 * _GIB, 16 * _GIB)
    """Bytes of each heap. Heap 0 is the device's own. Allocating more than a heap has fails."""
    families: tuple[Family, ...] = (Family(),)
    extensions: tuple[str, ...] = (
        SHARING_EXTENSION,
        "VK_EXT_external_memory_host",
        "VK_EXT_queue_family_foreign",
    )
    external: tuple[External, ...] = (*shared(image="preferred"), *HOST_POINTERS)
    non_coherent_atom: int = 64
    max_allocations: int = 4096
    host_pointer_alignment: int = 4096
    buffer_alignment: int = 256
    modifiers: tuple[Modifier, ...] = ()
    """DRM format modifiers, where `extensions` has VK_EXT_image_drm_format_modifier and VK_KHR_image_format_list."""
    resource_types: int = 0
    """memoryTypeBits that buffers and images require; 0 for all memory types."""

    def says(self, kind: str, handle_type: int) -> External | None:
        """What it says of a handle type; None for one that it does not know."""
        return next((e for e in self.external if e.kind == kind and e.handle_type == handle_type), None)


DISCRETE = Gpu()
"""A discrete GPU: device memory that the host cannot see, and host memory."""
INTEGRATED = Gpu(
    name="Fake Integrated GPU",
    device_uuid=b"fake gpu 0000002",
    luid=None,
    device_type=int(vk.PhysicalDeviceType.INTEGRATED_GPU),
    memory_types=(MemoryType(_LOCAL | _VISIBLE | _COHERENT | _CACHED),),
    heaps=(16 * _GIB,),
)
"""An integrated GPU: one kind of memory, which everybody sees."""
NON_COHERENT = Gpu(
    name="Fake Mobile GPU",
    device_uuid=b"fake gpu 0000003",
    luid=None,
    device_type=int(vk.PhysicalDeviceType.INTEGRATED_GPU),
    memory_types=(MemoryType(_LOCAL | _VISIBLE | _CACHED),),
    heaps=(4 * _GIB,),
    non_coherent_atom=256,
)
"""A GPU whose memory the host sees through a cache of its own: nothing is seen on the other side without a flush."""


@dataclass(slots=True)
class Manners:
    """How real drivers have been seen to behave where a well-mannered one refuses. All off: a strict driver."""

    lenient_sizes: bool = False
    """An import of a smaller size or of another memory type succeeds."""
    takes_minus_one: bool = False
    """An import of fd -1 succeeds, and gives memory of nobody."""
    bad_fd_poisons: bool = False
    """An import of a bad fd gives VK_ERROR_OUT_OF_DEVICE_MEMORY, and so does every allocation and import of the
    process from then on, on whatever VkDevice, until that VkDevice is destroyed."""
    short_files_pass: bool = False
    """An import of a file that is too small, or empty, or of size 0, succeeds."""
    handle_errors: int = int(vk.Result.ERROR_INVALID_EXTERNAL_HANDLE)
    """What an import of a bad Win32 handle or name gives, and an export under a taken name: a VkResult."""
    gives_null: bool = False
    """vkGetMemoryWin32HandleKHR of a type that the memory was not exported for succeeds, and gives NULL."""
    same_handle_twice: bool = False
    """vkGetMemoryWin32HandleKHR gives the same NT handle when it is asked twice, which it must not be."""
    takes_sparse: bool = False
    """A buffer or image with sparse flags is made although the feature is off."""
    same_planes: bool = False
    """vkGetImageSubresourceLayout answers for memory plane 0 whichever is asked for."""
    any_modifier: bool = False
    """Images with a DRM format modifier that their format does not have are called possible."""
    answers_handle_types: bool = False
    """vkGetMemoryWin32HandlePropertiesKHR answers with bits of handle types instead of memory types."""


def to_plain(gpu: Gpu) -> dict[str, Any]:
    """The GPU as plain Python values, whose `repr` another process can read."""
    return dataclasses.asdict(gpu)


def from_plain(values: Mapping[str, Any]) -> Gpu:
    """The GPU that `to_plain` told of."""
    parts = {"memory_types": MemoryType, "families": Family, "external": External, "modifiers": Modifier}
    told: dict[str, Any] = {
        name: tuple(parts[name](**part) for part in value) if name in parts else value for name, value in values.items()
    }
    return Gpu(**told)
