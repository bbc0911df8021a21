"""Binding buffers and images to memory: vkBind{Buffer,Image}Memory and their second forms.

Each rule exists twice, once for each form of the command; one check decides both ids. Some checks need the resource,
which is not known when memory is allocated: whether the device exports or imports the handle type for this resource,
and whether it requires a dedicated allocation for it. They are made here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from extmem import vk
from extmem.rules._engine import Check, Finding, Suite, rule
from extmem.rules._field_types import malformed, wrong_struct
from extmem.rules._text import (
    FD_TYPES,
    HOST_TYPES,
    SIZE_IGNORED_TYPES,
    WIN32_TYPES,
    bits_of,
    flags_text,
    size_text,
    type_mask,
    types_text,
)
from extmem.rules.export_allocate_info import dedicated_only, unexportable
from extmem.rules.facts import MemoryFacts, ResourceFacts
from extmem.rules.violation import Violation

__all__ = ["check_bind_buffer_memory", "check_bind_image_memory"]

_Flag = vk.ImageCreateFlagBits
_SPARSE = int(_Flag.SPARSE_BINDING | _Flag.SPARSE_RESIDENCY | _Flag.SPARSE_ALIASED)
"""Buffers have the same values."""
_IMPORTABLE = int(vk.ExternalMemoryFeatureFlagBits.IMPORTABLE)


@dataclass(slots=True)
class Bind:
    """One binding, in either form of the command."""

    offset: int
    resource: ResourceFacts
    memory: MemoryFacts
    where: str
    device: int = 0
    """`DeviceFacts.identity` of the device that the command is called on; 0 where unknown."""
    chained: object = None
    """First struct in the pNext chain; None if the chain is empty."""

    @property
    def resource_kind(self) -> str:
        """ "buffer" or "image"."""
        return self.resource.kind

    @property
    def size_counts(self) -> bool:
        """False for Direct3D textures, whose size is that of the resource, not the one that Vulkan reports."""
        return not int(self.memory.import_handle_type) & SIZE_IGNORED_TYPES


BUFFER: Suite[Bind] = Suite("vkBindBufferMemory")
BUFFER2: Suite[Bind] = Suite("vkBindBufferMemory2")
IMAGE: Suite[Bind] = Suite("vkBindImageMemory")
IMAGE2: Suite[Bind] = Suite("vkBindImageMemory2")


def _buffer(tail: str) -> tuple[str, str]:
    return f"vkBindBufferMemory-{tail}", f"VkBindBufferMemoryInfo-{tail}"


def _image(tail: str, info_tail: str = "") -> tuple[str, str]:
    return f"vkBindImageMemory-{tail}", f"VkBindImageMemoryInfo-{info_tail or tail}"


_BUFFERS, _IMAGES = (BUFFER, BUFFER2), (IMAGE, IMAGE2)
_EVERY = (*_BUFFERS, *_IMAGES)


@rule("VkBindBufferMemoryInfo-pNext-pNext", "VkBindImageMemoryInfo-pNext-pNext", on=(BUFFER2, IMAGE2))
def nothing_is_chained(call: Bind) -> Finding | None:
    """The structs that extend a binding are for device groups, planes and swapchains, which extmem does not support."""
    if call.chained is None:
        return None
    name = type(call.chained).__name__
    return f"{call.where}.pNext", f"{name} does not extend a binding of extmem", "Pass p_next=None."


@rule(*_buffer("buffer-07459"), *_image("image-07460"), on=_EVERY)
def bound_once(call: Bind) -> Finding | None:
    """A resource is bound to memory once, for its whole lifetime."""
    if not call.resource.bound:
        return None
    return (
        f"{call.where}.{call.resource_kind}",
        f"the {call.resource_kind} is bound already",
        f"Create another {call.resource_kind} for it.",
    )


@rule(*_buffer("buffer-01030"), *_image("image-01045"), on=_EVERY)
def not_sparse(call: Bind) -> Finding | None:
    """Sparse resources are bound by vkQueueBindSparse."""
    sparse = type_mask(call.resource.create_info.flags) & _SPARSE
    if not sparse:
        return None
    return (
        f"{call.where}.{call.resource_kind}",
        f"the {call.resource_kind} was created with {flags_text(sparse, _Flag)}",
        f"Create the {call.resource_kind} without sparse flags; extmem has no vkQueueBindSparse.",
    )


def _elsewhere(call: Bind, owner: int, what: str) -> Finding | None:
    """Return the finding if `owner` is another device than the call's."""
    if not owner or not call.device or owner == call.device:
        return None
    made = "allocated" if what == "memory" else "created"
    return (
        f"{call.where}.{what}",
        f"the {what} was {made} on another logical device than the one that binds it",
        "Bind on the device that created both; memory that another device shares must be imported on this one first.",
    )


@rule("vkBindBufferMemory-buffer-parent", "vkBindImageMemory-image-parent", on=(BUFFER, IMAGE))
def resource_is_of_this_device(call: Bind) -> Finding | None:
    """The resource was created on the device that binds it."""
    return _elsewhere(call, call.resource.device_identity, call.resource_kind)


@rule("vkBindBufferMemory-memory-parent", "vkBindImageMemory-memory-parent", on=(BUFFER, IMAGE))
def memory_is_of_this_device(call: Bind) -> Finding | None:
    """The memory was allocated on the device that binds it."""
    return _elsewhere(call, call.memory.device_identity, "memory")


@rule("VkBindBufferMemoryInfo-commonparent", "VkBindImageMemoryInfo-commonparent", on=(BUFFER2, IMAGE2))
def one_device(call: Bind) -> Finding | None:
    """Resource and memory are of the device that the command is called on."""
    return resource_is_of_this_device(call) or memory_is_of_this_device(call)


@rule(*_buffer("memoryOffset-01031"), *_image("memoryOffset-01046"), on=_EVERY)
def offset_is_inside(call: Bind) -> Finding | None:
    """The offset is less than the size of the memory."""
    if not call.size_counts or call.offset < call.memory.size:
        return None
    return (
        f"{call.where}.memory_offset",
        f"it is {call.offset}, the memory has {size_text(call.memory.size)}",
        "Bind at an offset inside the memory.",
    )


@rule(*_buffer("memory-01035"), *_image("memory-01047", "pNext-01615"), on=_EVERY)
def memory_type_is_allowed(call: Bind) -> Finding | None:
    """The memory type is one of those in the resource's memory requirements."""
    index, bits = call.memory.memory_type_index, call.resource.memory_type_bits
    if bits >> index & 1:
        return None
    allowed = ", ".join(str(bit.bit_length() - 1) for bit in bits_of(bits))
    return (
        f"{call.where}.memory",
        f"it is of memory type {index}, the {call.resource_kind} allows {allowed or 'none'}",
        f"Allocate from one of the memory types that the {call.resource_kind} requires.",
    )


@rule(*_buffer("None-10739"), *_image("None-10735", "pNext-01616"), on=_EVERY)
def offset_is_aligned(call: Bind) -> Finding | None:
    """The offset is a multiple of the resource's alignment."""
    alignment = call.resource.alignment
    if not alignment or not call.offset % alignment:
        return None
    return (
        f"{call.where}.memory_offset",
        f"{call.offset} is not a multiple of the {call.resource_kind}'s alignment of {alignment}",
        f"Bind at {-(-call.offset // alignment) * alignment}, if the memory reaches that far.",
    )


@rule(*_buffer("None-10741"), *_image("None-10737", "pNext-01617"), on=_EVERY)
def resource_fits(call: Bind) -> Finding | None:
    """The resource fits in the memory that follows the offset."""
    room = call.memory.size - call.offset
    if not call.size_counts or call.resource.size <= room:
        return None
    return (
        f"{call.where}.memory_offset",
        f"the {call.resource_kind} requires {size_text(call.resource.size)}, and {size_text(max(room, 0))} follow "
        f"offset {call.offset}",
        "Allocate more memory, or bind at a lower offset.",
    )


@rule(*_buffer("memory-02726"), *_image("memory-02728"), on=_EVERY)
def export_types_overlap(call: Bind) -> Finding | None:
    """A resource on exportable memory was created for one of its handle types."""
    exported, types = int(call.memory.export_handle_types), int(call.resource.handle_types)
    if not exported or exported & types:
        return None
    return (
        f"{call.where}.memory",
        f"it is exportable as {types_text(exported)}, the {call.resource_kind} was created for "
        f"{types_text(types) if types else 'no external memory'}",
        f"Create the {call.resource_kind} with {_struct(call)}.handle_types containing {types_text(exported)}.",
    )


@rule(*_buffer("memory-02985"), *_image("memory-02989"), on=_EVERY)
def import_type_is_named(call: Bind) -> Finding | None:
    """A resource on imported memory was created for its handle type. Memory with handle type 0 was not imported."""
    imported, types = int(call.memory.import_handle_type), int(call.resource.handle_types)
    if imported & types == imported:
        return None
    return (
        f"{call.where}.memory",
        f"it was imported as {types_text(imported)}, the {call.resource_kind} was created for "
        f"{types_text(types) if types else 'no external memory'}",
        f"Create the {call.resource_kind} with {_struct(call)}.handle_types containing {types_text(imported)}.",
    )


def _struct(call: Bind) -> str:
    return f"ExternalMemory{call.resource_kind.capitalize()}CreateInfo"


@rule(*_buffer("buffer-01444"), *_image("image-01445"), on=_EVERY)
def dedicated_where_required(call: Bind) -> Finding | None:
    """A resource that requires a dedicated allocation is bound to one."""
    owner = call.memory.dedicated
    if not call.resource.requires_dedicated or (owner is not None and owner.identity == call.resource.identity):
        return None
    return (
        f"{call.where}.memory",
        f"the {call.resource_kind} requires memory dedicated to itself, the memory is dedicated to "
        f"{'nothing' if owner is None else 'something else'}",
        f"Allocate with MemoryDedicatedAllocateInfo naming the {call.resource_kind}.",
    )


@rule(*_buffer("memory-01508"), *_image("memory-02628"), on=_EVERY)
def dedicated_to_this_one(call: Bind) -> Finding | None:
    """Dedicated memory is bound to its own resource, at offset 0.

    extmem never enables the feature dedicatedAllocationImageAliasing, which would allow more.
    """
    owner = call.memory.dedicated
    if owner is None or owner.kind != call.resource_kind:
        return None
    if owner.identity != call.resource.identity:
        return (
            f"{call.where}.{call.resource_kind}",
            f"the memory is dedicated to another {call.resource_kind}",
            f"Bind the {call.resource_kind} that the memory was allocated for.",
        )
    if call.offset:
        return (
            f"{call.where}.memory_offset",
            f"dedicated memory is bound at offset {call.offset}",
            "Bind dedicated memory at offset 0.",
        )
    return None


@rule(*_buffer("memory-10925"), *_image("memory-10926"), on=_EVERY)
def dedicated_to_this_kind(call: Bind) -> Finding | None:
    """Memory dedicated to an image is not bound to a buffer, nor the reverse."""
    owner = call.memory.dedicated
    if owner is None or owner.kind == call.resource_kind:
        return None
    owner_text = "an image" if owner.kind == "image" else "a buffer"
    return (
        f"{call.where}.memory",
        f"it is dedicated to {owner_text}",
        f"Allocate other memory for the {call.resource_kind}.",
    )


def _importable(types: int) -> Check[Bind]:
    """Make the check that the device imports the type for this resource; the rule is that of the import struct."""

    def check(call: Bind) -> Finding | None:
        imported = call.memory.import_handle_type
        answer = call.resource.capabilities.get(imported)
        if not imported & types or answer is None or int(answer.features) & _IMPORTABLE:
            return None
        return (
            f"{call.where}.memory",
            f"the device cannot import {types_text(imported)} for such {_article(call.resource_kind)}",
            "Query the device for the features of a handle type before creating the resource.",
        )

    return check


def _article(resource_kind: str) -> str:
    return "an image" if resource_kind == "image" else "a buffer"


for _suite in _EVERY:
    rule("VkImportMemoryWin32HandleInfoKHR-handleType-09861", on=_suite)(_importable(WIN32_TYPES))
    rule("VkImportMemoryFdInfoKHR-handleType-09862", on=_suite)(_importable(FD_TYPES))
    rule("VkImportMemoryHostPointerInfoEXT-handleType-01747", on=_suite)(_importable(HOST_TYPES))


@rule(*["VkExportMemoryAllocateInfo-handleTypes-09860"] * 4, on=_EVERY)
def exportable(call: Bind) -> Finding | None:
    """The device exports the types that the memory was allocated for, for this resource."""
    types = call.memory.export_handle_types
    problem = unexportable(types, call.resource.capabilities) if types else ""
    if not problem:
        return None
    return (
        f"{call.where}.memory",
        f"for such {_article(call.resource_kind)}: {problem}",
        "Allocate with the handle types that the device reports as exportable for it.",
    )


@rule(*["VkMemoryAllocateInfo-pNext-00639"] * 4, on=_EVERY)
def exported_dedicated(call: Bind) -> Finding | None:
    """A type that the device exports from dedicated allocations only, for this resource, has one."""
    types = call.memory.export_handle_types
    if not types or call.memory.dedicated is not None:
        return None
    wanted = dedicated_only(types, call.resource.capabilities)
    if not wanted:
        return None
    return (
        f"{call.where}.memory",
        f"the device exports {types_text(wanted)} for such {_article(call.resource_kind)} from dedicated allocations "
        "only",
        f"Allocate with MemoryDedicatedAllocateInfo naming the {call.resource_kind}.",
    )


Form = Literal[1, 2]


def _bind(suites: tuple[Suite[Bind], Suite[Bind]], call: Bind, form: Form) -> list[Violation]:
    return suites[form - 1].run(call, 0)


def _malformed(info: object, resource_name: str, form: Form) -> list[Violation]:
    base = f"Bind{resource_name}MemoryInfo"
    struct = vk.BindBufferMemoryInfo if resource_name == "Buffer" else vk.BindImageMemoryInfo
    violations = wrong_struct(info, struct, f"vkBind{resource_name}Memory.info") or malformed([(base, info)])
    if form == 1:
        violations = [replace(v, vuid=v.vuid.replace(f"Vk{base}", f"vkBind{resource_name}Memory")) for v in violations]
    return violations


def check_bind_buffer_memory(
    info: vk.BindBufferMemoryInfo, buffer: ResourceFacts, memory: MemoryFacts, *, form: Form = 2, device: int = 0
) -> list[Violation]:
    """Return all rules on external and dedicated memory, and on offset and size, that this binding would break.

    `form`: 1 reports the ids of vkBindBufferMemory, 2 those of VkBindBufferMemoryInfo; the rules are the same.
    `device`: `DeviceFacts.identity` of the device that binds; 0 if unknown.
    """
    violations = _malformed(info, "Buffer", form)
    if violations:
        return violations
    call = Bind(int(info.memory_offset), buffer, memory, "BindBufferMemoryInfo", device, info.p_next)
    return _bind(_BUFFERS, call, form)


def check_bind_image_memory(
    info: vk.BindImageMemoryInfo, image: ResourceFacts, memory: MemoryFacts, *, form: Form = 2, device: int = 0
) -> list[Violation]:
    """Return all rules on external and dedicated memory, and on offset and size, that this binding would break.

    `form`: 1 reports the ids of vkBindImageMemory, 2 those of VkBindImageMemoryInfo; the rules are the same.
    `device`: `DeviceFacts.identity` of the device that binds; 0 if unknown.
    """
    violations = _malformed(info, "Image", form)
    if violations:
        return violations
    call = Bind(int(info.memory_offset), image, memory, "BindImageMemoryInfo", device, info.p_next)
    return _bind(_IMAGES, call, form)
