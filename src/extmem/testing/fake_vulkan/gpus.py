"""What a fake GPU is: plain values that a test chooses, and that are sent to other processes as text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from extmem import vk
from extmem.devices.host import HAS_FDS

__all__ = [
    "BINARY_SYNC",
    "DISCRETE",
    "HOST_POINTERS",
    "INTEGRATED",
    "NON_COHERENT",
    "PAYLOAD_NAME",
    "SHARED_SYNC",
    "SHARING_EXTENSION",
    "SYNC_EXTENSIONS",
    "SYNC_FILES",
    "External",
    "ExternalSync",
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
"""The name of a fake driver's memory files, equal for all as a real driver's; and of the sections of KMT numbers."""

HandleType = vk.ExternalMemoryHandleTypeFlagBits
_Feature = vk.ExternalMemoryFeatureFlagBits
_Property = vk.MemoryPropertyFlagBits
_FD, _HOST = int(HandleType.OPAQUE_FD), int(HandleType.HOST_ALLOCATION)
_NT, _KMT = int(HandleType.OPAQUE_WIN32), int(HandleType.OPAQUE_WIN32_KMT)
_BOTH = int(_Feature.EXPORTABLE | _Feature.IMPORTABLE)
_IMPORT = int(_Feature.IMPORTABLE)
_SYNC_BOTH = int(vk.ExternalSemaphoreFeatureFlagBits.EXPORTABLE | vk.ExternalSemaphoreFeatureFlagBits.IMPORTABLE)
"""The bits of semaphores, and of fences."""
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
    """The alignment of rows and planes in bytes."""
    shared: int | None = None
    """Handle types that images with it can be shared as; None for all that the GPU shares images as."""


@dataclass(frozen=True, slots=True)
class External:
    """The driver's properties of one handle type for buffers or images (VkExternalMemoryProperties)."""

    kind: Literal["buffer", "image"]
    handle_type: int
    features: int = _BOTH
    export_from_imported: int = _FD
    compatible: int = _FD
    dedicated: Literal["no", "preferred", "required"] = "no"
    """VkMemoryDedicatedRequirements of such a resource; "required" adds DEDICATED_ONLY to the features."""


@dataclass(frozen=True, slots=True)
class ExternalSync:
    """The driver's properties of one handle type for semaphores or fences (VkExternalSemaphoreProperties, …Fence…)."""

    kind: Literal["binary", "timeline", "fence"]
    handle_type: int
    features: int = _SYNC_BOTH
    export_from_imported: int = _FD
    compatible: int = _FD


_SEMAPHORE_SYNC_FD = int(vk.ExternalSemaphoreHandleTypeFlagBits.SYNC_FD)
_FENCE_SYNC_FD = int(vk.ExternalFenceHandleTypeFlagBits.SYNC_FD)
_D3D12 = int(vk.ExternalSemaphoreHandleTypeFlagBits.D3D12_FENCE)
_SYNC_IMPORT = int(vk.ExternalSemaphoreFeatureFlagBits.IMPORTABLE)
SHARED_SYNC: tuple[ExternalSync, ...] = (
    (ExternalSync("binary", _FD), ExternalSync("timeline", _FD), ExternalSync("fence", _FD))
    if HAS_FDS
    else (
        ExternalSync("binary", _NT, _SYNC_BOTH, 0, _NT),
        ExternalSync("timeline", _NT, _SYNC_BOTH, 0, _NT | _D3D12),
        ExternalSync("fence", _NT, _SYNC_BOTH, 0, _NT),
        ExternalSync("binary", _KMT, _SYNC_BOTH, 0, _KMT),
        ExternalSync("timeline", _KMT, _SYNC_BOTH, 0, _KMT),
        ExternalSync("fence", _KMT, _SYNC_BOTH, 0, _KMT),
        ExternalSync("binary", _D3D12, _SYNC_IMPORT, 0, _D3D12),
        ExternalSync("timeline", _D3D12, _SYNC_BOTH, 0, _NT | _D3D12),
    )
)
"""What a driver of this system shares of semaphores and fences: opaque fds of all kinds, as NVIDIA's; on Windows NT
handles, KMT numbers and fences of Direct3D 12. Timelines by KMT number are listed, and crash the driver."""
BINARY_SYNC = tuple(one for one in SHARED_SYNC if one.kind == "binary")
"""Binary semaphores alone, as ARM's driver and SwiftShader share them."""
SYNC_FILES: tuple[ExternalSync, ...] = (
    (
        ExternalSync("binary", _SEMAPHORE_SYNC_FD, _SYNC_BOTH, 0, _SEMAPHORE_SYNC_FD),
        ExternalSync("fence", _FENCE_SYNC_FD, _SYNC_BOTH, 0, _FENCE_SYNC_FD),
    )
    if HAS_FDS
    else ()
)
"""SYNC_FD, as Mesa's drivers share it."""
SYNC_EXTENSIONS = (
    *(f"VK_KHR_external_{kind}_{'fd' if HAS_FDS else 'win32'}" for kind in ("semaphore", "fence")),
    "VK_KHR_timeline_semaphore",
    "VK_KHR_synchronization2",
)
"""The extensions of semaphores and fences."""


def shared(
    *, buffer: Literal["no", "preferred", "required"] = "no", image: Literal["no", "preferred", "required"] = "no"
) -> tuple[External, ...]:
    """Return what a driver of this system shares: opaque fds; or NT handles and KMT numbers, never together (B86).

    buffer, image: whether such resources require dedicated memory.
    """
    required: tuple[tuple[Literal["buffer", "image"], Literal["no", "preferred", "required"]], ...]
    required = (("buffer", buffer), ("image", image))
    if HAS_FDS:
        return tuple(External(kind, _FD, dedicated=dedicated) for kind, dedicated in required)
    opaque = [External(kind, bit, _BOTH, 0, bit, dedicated) for kind, dedicated in required for bit in (_NT, _KMT)]
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
"""VK_EXT_external_memory_host, which every fake GPU supports."""
SHARING_EXTENSION = "VK_KHR_external_memory_fd" if HAS_FDS else "VK_KHR_external_memory_win32"
"""The extension by which drivers of this system share."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A physical device. The default is a discrete GPU whose own memory is not visible to the host."""

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
    """The size of each heap in bytes. Heap 0 is device-local. Allocating more than a heap has fails."""
    families: tuple[Family, ...] = (Family(),)
    extensions: tuple[str, ...] = (
        SHARING_EXTENSION,
        "VK_EXT_external_memory_host",
        "VK_EXT_queue_family_foreign",
        *SYNC_EXTENSIONS,
    )
    external: tuple[External, ...] = (*shared(image="preferred"), *HOST_POINTERS)
    sync: tuple[ExternalSync, ...] = SHARED_SYNC
    """What is shared of semaphores and fences."""
    max_timeline_difference: int = (1 << 31) - 1
    non_coherent_atom: int = 64
    max_allocations: int = 4096
    host_pointer_alignment: int = 4096
    buffer_alignment: int = 256
    modifiers: tuple[Modifier, ...] = ()
    """DRM format modifiers, where `extensions` has VK_EXT_image_drm_format_modifier and VK_KHR_image_format_list."""
    resource_types: int = 0
    """memoryTypeBits that buffers and images require; 0 for all memory types."""

    def says(self, kind: str, handle_type: int) -> External | None:
        """Return the properties of a handle type; None for one that it does not support."""
        return next((e for e in self.external if e.kind == kind and e.handle_type == handle_type), None)

    def says_of_sync(self, kind: str, handle_type: int) -> ExternalSync | None:
        """Return the properties of a handle type of semaphores or fences; None for one that it does not support."""
        return next((e for e in self.sync if e.kind == kind and e.handle_type == handle_type), None)


DISCRETE = Gpu()
"""A discrete GPU: device memory that is not visible to the host, and host memory."""
INTEGRATED = Gpu(
    name="Fake Integrated GPU",
    device_uuid=b"fake gpu 0000002",
    luid=None,
    device_type=int(vk.PhysicalDeviceType.INTEGRATED_GPU),
    memory_types=(MemoryType(_LOCAL | _VISIBLE | _COHERENT | _CACHED),),
    heaps=(16 * _GIB,),
)
"""An integrated GPU: one memory type, which is device-local and visible to the host."""
NON_COHERENT = Gpu(
    name="Fake Mobile GPU",
    device_uuid=b"fake gpu 0000003",
    luid=None,
    device_type=int(vk.PhysicalDeviceType.INTEGRATED_GPU),
    memory_types=(MemoryType(_LOCAL | _VISIBLE | _CACHED),),
    heaps=(4 * _GIB,),
    non_coherent_atom=256,
)
"""A GPU whose memory the host accesses through a cache: no write is visible to the other side without a flush."""


@dataclass(slots=True)
class Manners:
    """Invalid calls that real drivers were observed to accept. With all of them off the driver is strict."""

    lenient_sizes: bool = False
    """An import of a smaller size or of another memory type succeeds."""
    takes_minus_one: bool = False
    """An import of fd -1 succeeds, and makes new memory."""
    bad_fd_poisons: bool = False
    """An import of a bad fd returns VK_ERROR_OUT_OF_DEVICE_MEMORY, and so does every later allocation and import of
    the process, on any VkDevice, until that VkDevice is destroyed."""
    bad_semaphore_fd_poisons: bool = False
    """An import of a bad fd into a semaphore returns VK_ERROR_INITIALIZATION_FAILED, and so does every later
    vkCreateSemaphore of the process, on any VkDevice, until that VkDevice is destroyed."""
    any_semaphore_type: bool = False
    """A binary semaphore's fd is imported into a timeline, and the reverse, without an error."""
    short_files_pass: bool = False
    """An import of a file that is too small, or empty, or of size 0, succeeds."""
    handle_errors: int = int(vk.Result.ERROR_INVALID_EXTERNAL_HANDLE)
    """The VkResult of an import of a bad Win32 handle or name, and of an export under a taken name."""
    gives_null: bool = False
    """vkGetMemoryWin32HandleKHR of a type that the memory was not exported for succeeds, and returns NULL."""
    same_handle_twice: bool = False
    """A second call of vkGetMemoryWin32HandleKHR, which is invalid, returns the same NT handle."""
    takes_sparse: bool = False
    """A buffer or image with sparse flags is created although the feature is not enabled."""
    same_planes: bool = False
    """vkGetImageSubresourceLayout returns the layout of memory plane 0 for every plane."""
    any_modifier: bool = False
    """Images with a DRM format modifier that their format does not have are reported as supported."""
    answers_handle_types: bool = False
    """vkGetMemoryWin32HandlePropertiesKHR returns bits of handle types instead of memory types."""


def to_plain(gpu: Gpu) -> dict[str, Any]:
    """Return the GPU as plain Python values, whose `repr` another process can evaluate."""
    return dataclasses.asdict(gpu)


def from_plain(values: Mapping[str, Any]) -> Gpu:
    """Return the GPU from the values of `to_plain`."""
    parts: dict[str, Any] = {"memory_types": MemoryType, "families": Family, "external": External}
    parts |= {"modifiers": Modifier, "sync": ExternalSync}
    fields: dict[str, Any] = {
        name: tuple(parts[name](**part) for part in value) if name in parts else value for name, value in values.items()
    }
    return Gpu(**fields)
