"""What a scenario works with: one or two devices, one family of handles, and the steps that every scenario is made of.

How this works. A scenario is a function of a `Case`. The case makes resources and memory as the Vulkan conformance
tests do (1024-byte buffers, 64×64 R8G8B8A8 images, transfer usage, the lowest allowed memory type), releases everything
at the end, and hides only what differs between the families: how a handle is obtained, copied, imported and closed.
Every requirement is an `expect` with a sentence, so that a failure states what the device did.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Literal, Self, TypeAlias

from extmem import vk
from extmem.api import Buffer, Device, DeviceMemory, Image
from extmem.errors import UnsupportedError
from extmem.handles import FdHandle, KmtHandle, NtHandle

__all__ = [
    "Case",
    "ConformanceError",
    "Family",
    "Group",
    "Handle",
    "MakeDevice",
    "NotSupportedError",
    "Variant",
    "expect",
]

Handle: TypeAlias = NtHandle | KmtHandle | FdHandle
MakeDevice: TypeAlias = Callable[[], Device]
HandleType = vk.ExternalMemoryHandleTypeFlagBits
Group = Literal["device_only", "host_visible", "buffer", "image", "misc"]

BUFFER_SIZE = 1024
READ_WRITE = 0x8000_0001
"""DXGI_SHARED_RESOURCE_READ | DXGI_SHARED_RESOURCE_WRITE."""
_BUFFER_USAGE = vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST
_IMAGE_USAGE = vk.ImageUsageFlagBits.TRANSFER_SRC | vk.ImageUsageFlagBits.TRANSFER_DST
_Feature = vk.ExternalMemoryFeatureFlagBits
_NEEDED = _Feature.EXPORTABLE | _Feature.IMPORTABLE


class ConformanceError(AssertionError):
    """The device does not do what the specification requires, or what programs rely on."""


class NotSupportedError(Exception):
    """The device's capabilities do not include this variant. The caller of the suite decides which are acceptable."""


def expect(condition: object, problem: str) -> None:
    """Raise ConformanceError with the problem unless the condition is true."""
    if not condition:
        raise ConformanceError(problem)


class Family(Enum):
    """The handle families, by the name that the Vulkan conformance tests use."""

    FD = "fd"
    WIN32 = "win32"
    WIN32_KMT = "win32_kmt"

    @property
    def handle_type(self) -> vk.ExternalMemoryHandleTypeFlagBits:
        """The external handle type."""
        return {
            Family.FD: HandleType.OPAQUE_FD,
            Family.WIN32: HandleType.OPAQUE_WIN32,
            Family.WIN32_KMT: HandleType.OPAQUE_WIN32_KMT,
        }[self]


@dataclass(frozen=True, slots=True)
class Variant:
    """A family of handles, a group of resources, and whether memory is dedicated: what a scenario is run with."""

    family: Family
    group: Group
    dedicated: bool
    two_devices: bool = False
    """Export from one `Device` and import to another of the same physical device."""

    def __str__(self) -> str:
        parts = [self.family.value, "dedicated" if self.dedicated else "suballocated", self.group]
        return "-".join([*parts, "two_devices"] if self.two_devices else parts)


class Case:
    """One run of one scenario. It is a context manager, which at its end releases everything that it made."""

    def __init__(
        self, make_device: MakeDevice, variant: Variant, *, repeats: int = 4096, remote: str = "extmem.open_device()"
    ) -> None:
        self.variant = variant
        self.family = variant.family
        self.handle_type = variant.family.handle_type
        self.repeats = repeats
        """How often the `…_multiple_times` scenarios repeat; in the Vulkan conformance tests 4096 times."""
        self.remote = remote
        """A Python expression that opens the device in another process, where `extmem` is imported."""
        self._stack = contextlib.ExitStack()
        self._dedicated_only = False
        self._make_device = make_device
        self._random = random.Random(str(variant))

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.exporter = stack.enter_context(self._make_device())
            self.importer = stack.enter_context(self._make_device()) if self.variant.two_devices else self.exporter
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    # Resources.

    def buffer(self, device: Device) -> Buffer:
        """Create a buffer; all are equal."""
        return self.sized_buffer(device, BUFFER_SIZE)

    def sized_buffer(self, device: Device, size: int) -> Buffer:
        """Create a buffer of another size."""
        info = vk.BufferCreateInfo(
            size=size, usage=_BUFFER_USAGE, p_next=vk.ExternalMemoryBufferCreateInfo(self.handle_type)
        )
        return self._stack.enter_context(device.create_buffer(info))

    def buffer_facts(self) -> dict[str, int]:
        """Return the variables with which another process creates a buffer equal to `buffer`."""
        return {"size": BUFFER_SIZE, "usage": int(_BUFFER_USAGE)}

    def image(self, device: Device) -> Image:
        """Create an image; all are equal."""
        info = vk.ImageCreateInfo(
            image_type=vk.ImageType.TYPE_2D,
            format=vk.Format.R8G8B8A8_UNORM,
            extent=vk.Extent3D(64, 64, 1),
            mip_levels=1,
            array_layers=1,
            samples=vk.SampleCountFlagBits.COUNT_1,
            tiling=vk.ImageTiling.OPTIMAL,
            usage=_IMAGE_USAGE,
            p_next=vk.ExternalMemoryImageCreateInfo(self.handle_type),
        )
        return self._stack.enter_context(device.create_image(info))

    def resource(self, device: Device) -> Buffer | Image:
        """Create what this group's scenarios allocate memory for: an image in the image group, a buffer otherwise."""
        return self.image(device) if self.variant.group == "image" else self.buffer(device)

    def require_support(self) -> None:
        """Raise NotSupportedError unless such resources can be exported and imported as the variant requires."""
        if self.variant.group == "image":
            try:
                answer = self.exporter.get_physical_device_image_format_properties2(
                    vk.PhysicalDeviceImageFormatInfo2(
                        vk.Format.R8G8B8A8_UNORM,
                        vk.ImageType.TYPE_2D,
                        vk.ImageTiling.OPTIMAL,
                        _IMAGE_USAGE,
                        p_next=vk.PhysicalDeviceExternalImageFormatInfo(self.handle_type),
                    )
                )
            except UnsupportedError as error:  # VK_ERROR_FORMAT_NOT_SUPPORTED: there are no such images
                raise NotSupportedError(str(error)) from None
            chained = vk.find(answer, vk.ExternalImageFormatProperties)
            properties = chained.external_memory_properties if chained is not None else vk.ExternalMemoryProperties()
        else:
            properties = self.exporter.get_physical_device_external_buffer_properties(
                vk.PhysicalDeviceExternalBufferInfo(usage=_BUFFER_USAGE, handle_type=self.handle_type)
            ).external_memory_properties
        features = int(properties.external_memory_features)
        self._dedicated_only = bool(features & _Feature.DEDICATED_ONLY)
        if features & _NEEDED != _NEEDED:
            raise NotSupportedError(f"{self.exporter.name} does not export and import {self.handle_type!r} here")
        if features & _Feature.DEDICATED_ONLY and not self.variant.dedicated:
            raise NotSupportedError(f"{self.exporter.name} shares {self.handle_type!r} as dedicated allocations alone")

    def memory_type(self, resource: Buffer | Image) -> int:
        """Return the lowest allowed memory type; in the host_visible group the lowest that is visible to the host."""
        bits = resource.requirements.memory_type_bits
        types = self.exporter.memory_properties.memory_types
        for index, kind in enumerate(types):
            visible = kind.property_flags & vk.MemoryPropertyFlagBits.HOST_VISIBLE
            if bits >> index & 1 and (visible or self.variant.group != "host_visible"):
                return index
        raise NotSupportedError(f"no memory type that the host sees among {bits:#b}")

    # Memory.

    def allocate(
        self, resource: Buffer | Image, *, win32: vk.ExportMemoryWin32HandleInfoKHR | None = None, alone: bool = True
    ) -> DeviceMemory:
        """Allocate exportable memory for the resource.

        alone: dedicate it to the resource, in the dedicated variant or where the device requires it.
        """
        export = vk.ExportMemoryAllocateInfo(self.handle_type, win32)
        return self._allocate(self.exporter, resource, export, alone=alone)

    def import_memory(
        self, resource: Buffer | Image, handle: Handle | None, *, name: str | None = None, alone: bool = True
    ) -> DeviceMemory:
        """Import from a handle or name, with the exporter's size and memory type. An fd is consumed, nothing else."""
        source: vk.ChainStruct
        if isinstance(handle, FdHandle):
            source = vk.ImportMemoryFdInfoKHR(self.handle_type, handle)
        else:
            source = vk.ImportMemoryWin32HandleInfoKHR(self.handle_type, handle, name)
        memory = self._allocate(self.importer, resource, source, alone=alone)
        if isinstance(handle, FdHandle):
            expect(handle.closed, f"a successful import must consume the fd, and {handle!r} is still open")
        elif isinstance(handle, NtHandle):
            expect(not handle.closed, f"an import must not take an NT handle over, and {handle!r} is closed")
        return memory

    def _allocate(
        self, device: Device, resource: Buffer | Image, chain: vk.ChainStruct, *, alone: bool
    ) -> DeviceMemory:
        if self.variant.dedicated and (alone or self._dedicated_only):
            image = resource if isinstance(resource, Image) else None
            buffer = resource if isinstance(resource, Buffer) else None
            chain = vk.MemoryDedicatedAllocateInfo(image, buffer, chain)
        info = vk.MemoryAllocateInfo(resource.requirements.size, self.memory_type(resource), chain)
        return self._stack.enter_context(device.allocate_memory(info))

    def bind(self, resource: Buffer | Image, memory: DeviceMemory) -> None:
        """Bind the resource at offset 0."""
        if isinstance(resource, Image):
            resource.device.bind_image_memory(resource, memory)
        else:
            resource.device.bind_buffer_memory(resource, memory)
        expect(resource.memory is memory, f"{resource!r} is not bound to the memory that it was bound to")

    # Handles.

    def handle(self, memory: DeviceMemory) -> Handle:
        """Export the memory as the family's handle. Win32: once for each memory, as the specification requires."""
        handle: Handle
        if self.family is Family.FD:
            handle = self.exporter.get_memory_fd(vk.MemoryGetFdInfoKHR(memory, self.handle_type))
            expect(int(handle) >= 0, f"vkGetMemoryFdKHR gave fd {int(handle)}")
        else:
            handle = self.exporter.get_memory_win32_handle(vk.MemoryGetWin32HandleInfoKHR(memory, self.handle_type))
            expect(int(handle) != 0, "vkGetMemoryWin32HandleKHR gave a NULL handle")
        return self._kept(handle)

    def another_handle(self, memory: DeviceMemory) -> Handle:
        """Return one more handle of memory that was exported already."""
        if self.family is Family.FD:
            return self.handle(memory)
        return self._kept(memory.export_handle(self.handle_type))

    def copy(self, handle: Handle) -> Handle:
        """Copy the handle: by dup, by DuplicateHandle (same access, inheritable), or as the same number."""
        return self._kept(handle.duplicate(inherit=True) if isinstance(handle, NtHandle) else handle.duplicate())

    def _kept(self, handle: Handle) -> Handle:
        self._stack.callback(handle.close)
        return handle

    # Bytes.

    def data(self, size: int) -> bytes:
        """Return random bytes, seeded by the variant and different at every call."""
        return self._random.randbytes(size)

    def can_look(self, *memories: DeviceMemory) -> bool:
        """Return whether all the memory is visible to the host. Scenarios compare bytes where it is."""
        types = self.exporter.memory_properties.memory_types
        flags = [types[memory.memory_type_index].property_flags for memory in memories]
        return all(flag & vk.MemoryPropertyFlagBits.HOST_VISIBLE for flag in flags)

    def write(self, memory: DeviceMemory, data: bytes) -> None:
        """Map the memory, write the data at its start, and unmap it."""
        with memory.map() as view:
            view[: len(data)] = data

    def expect_bytes(self, data: bytes, **memories: DeviceMemory) -> None:
        """Map each of the memories and compare its first bytes with the data."""
        for role, memory in memories.items():
            with memory.map() as view:
                content = bytes(view[: len(data)])
            expect(content == data, f"the {role} reads {difference(content, data)}")

    def keep(self, *closing: contextlib.AbstractContextManager[object]) -> None:
        """Close these at the end of the case, too."""
        for manager in closing:
            self._stack.enter_context(manager)

    def name(self) -> str:
        """Return a name that no other process uses."""
        return f"extmem conformance {self.variant} {os.getpid()}"


def difference(actual: Sequence[int], expected: Sequence[int]) -> str:
    """Return a text of the first difference between two byte strings."""
    if len(actual) != len(expected):
        return f"{len(actual)} bytes, not {len(expected)}"
    at = next((i for i, (a, b) in enumerate(zip(actual, expected, strict=True)) if a != b), None)
    if at is None:
        return "the same bytes"
    return f"other bytes than were written: {actual[at]:#04x} instead of {expected[at]:#04x} at {at} of {len(expected)}"
