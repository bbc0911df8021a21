"""Binding buffers and images to memory: vkBind{Buffer,Image}Memory and their second forms.

Each rule exists twice, once for each form of the command; one check decides both ids. Some checks need the resource,
which is not known when memory is allocated: whether the device exports or imports the handle type for this resource,
and whether it requires a dedicated allocation for it. They are made here.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from extmem import vk
from extmem.rules._conditions import all_of, is_given, is_true, not_index, not_multiple
from extmem.rules._engine import Demand, Finding, Suite, demand
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


class Bind(msgspec.Struct):
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
    def such(self) -> str:
        """ "such a buffer" or "such an image"."""
        return "such an image" if self.resource.kind == "image" else "such a buffer"

    @property
    def external_struct(self) -> str:
        """Name of the struct with the handle types that a resource is created for."""
        return f"ExternalMemory{self.resource.kind.capitalize()}CreateInfo"


BUFFER: Suite[Bind] = Suite("vkBindBufferMemory")
BUFFER2: Suite[Bind] = Suite("vkBindBufferMemory2")
IMAGE: Suite[Bind] = Suite("vkBindImageMemory")
IMAGE2: Suite[Bind] = Suite("vkBindImageMemory2")
_BUFFERS, _IMAGES = (BUFFER, BUFFER2), (IMAGE, IMAGE2)
_EVERY = (*_BUFFERS, *_IMAGES)


class _Traits:
    """Properties of the memory that checks depend on, as single bits."""

    SIZE_IGNORED = 1 << 0
    """It is a Direct3D texture, whose size is that of the resource, not the one that Vulkan reports."""
    IMPORTED = 1 << 1
    EXPORTED = 1 << 2
    """It was allocated for export."""
    DEDICATED = 1 << 3
    """It is dedicated to a buffer or image."""


def _traits(memory: MemoryFacts) -> int:
    traits = 0
    if memory.import_handle_type:
        traits = _Traits.IMPORTED
        if int(memory.import_handle_type) & SIZE_IGNORED_TYPES:
            traits |= _Traits.SIZE_IGNORED
    if memory.export_handle_types:
        traits |= _Traits.EXPORTED
    if memory.dedicated is not None:
        traits |= _Traits.DEDICATED
    return traits


def _ids(buffer_tail: str, image_tail: str, image_info_tail: str = "") -> tuple[str, str, str, str]:
    return (
        f"vkBindBufferMemory-{buffer_tail}",
        f"VkBindBufferMemoryInfo-{buffer_tail}",
        f"vkBindImageMemory-{image_tail}",
        f"VkBindImageMemoryInfo-{image_info_tail or image_tail}",
    )


def _sparse(call: Bind) -> str:
    sparse = type_mask(call.resource.create_info.flags) & _SPARSE
    return flags_text(sparse, _Flag) if sparse else ""


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


def _resource_elsewhere(call: Bind) -> Finding | None:
    return _elsewhere(call, call.resource.device_identity, call.resource_kind)


def _memory_elsewhere(call: Bind) -> Finding | None:
    return _elsewhere(call, call.memory.device_identity, "memory")


def _one_elsewhere(call: Bind) -> Finding | None:
    return _resource_elsewhere(call) or _memory_elsewhere(call)


def _other_memory_type(call: Bind) -> str:
    """Return the memory types in the resource's memory requirements, if the memory's is not one of them."""
    bits = call.resource.memory_type_bits
    if bits >> call.memory.memory_type_index & 1:
        return ""
    return ", ".join(str(bit.bit_length() - 1) for bit in bits_of(bits)) or "none"


def _reaches_past_the_memory(call: Bind) -> str:
    """Return how many bytes follow the offset, if the resource requires more."""
    room = call.memory.size - call.offset
    return size_text(max(room, 0)) if call.resource.size > room else ""


def _created_for(call: Bind) -> str:
    types = int(call.resource.handle_types)
    return types_text(types) if types else "no external memory"


def _exported_otherwise(call: Bind) -> tuple[str, str] | None:
    exported = int(call.memory.export_handle_types)
    if exported & int(call.resource.handle_types):
        return None
    return types_text(exported), _created_for(call)


def _imported_otherwise(call: Bind) -> tuple[str, str] | None:
    imported = int(call.memory.import_handle_type)
    if imported & int(call.resource.handle_types) == imported:
        return None
    return types_text(imported), _created_for(call)


def _is_not_its_own(call: Bind) -> str:
    owner = call.memory.dedicated
    if owner is None:
        return "nothing"
    return "something else" if owner.identity != call.resource.identity else ""


def _dedicated_otherwise(call: Bind) -> Finding | None:
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


def _dedicated_to_other_kind(call: Bind) -> str:
    owner = call.memory.dedicated
    if owner is None or owner.kind == call.resource_kind:
        return ""
    return "an image" if owner.kind == "image" else "a buffer"


def _importable(vuid: str, types: int) -> Demand:
    """Return the row that the device imports the type for this resource; the rule is that of the import struct."""

    def broken(call: Bind) -> str:
        imported = call.memory.import_handle_type
        answer = call.resource.capabilities.get(imported)
        if not imported & types or answer is None or int(answer.features) & _IMPORTABLE:
            return ""
        return types_text(imported)

    return Demand(
        (vuid,) * 4,
        broken,
        "{call.where}.memory",
        "the device cannot import {found} for {call.such}",
        "Query the device for the features of a handle type before creating the resource.",
        needs=_Traits.IMPORTED,
    )


def _unexportable(call: Bind) -> str:
    return unexportable(call.memory.export_handle_types, call.resource.capabilities)


def _exported_without_dedication(call: Bind) -> str:
    """Return the types that the device exports from dedicated allocations only."""
    wanted = dedicated_only(call.memory.export_handle_types, call.resource.capabilities)
    return types_text(wanted) if wanted else ""


demand(
    (BUFFER2, IMAGE2),
    # The structs that extend a binding are for device groups, planes and swapchains, which extmem does not support.
    Demand(
        ("VkBindBufferMemoryInfo-pNext-pNext", "VkBindImageMemoryInfo-pNext-pNext"),
        is_given("chained"),
        "{call.where}.pNext",
        "{call.chained.__class__.__name__} does not extend a binding of extmem",
        "Pass p_next=None.",
    ),
)
demand(
    _EVERY,
    Demand(
        _ids("buffer-07459", "image-07460"),
        is_true("resource.bound"),
        "{call.where}.{call.resource_kind}",
        "the {call.resource_kind} is bound already",
        "Create another {call.resource_kind} for it.",
    ),
    Demand(
        _ids("buffer-01030", "image-01045"),
        _sparse,
        "{call.where}.{call.resource_kind}",
        "the {call.resource_kind} was created with {found}",
        "Create the {call.resource_kind} without sparse flags; extmem has no vkQueueBindSparse.",
    ),
)
demand(
    (BUFFER, IMAGE),
    Demand(("vkBindBufferMemory-buffer-parent", "vkBindImageMemory-image-parent"), _resource_elsewhere),
    Demand(("vkBindBufferMemory-memory-parent", "vkBindImageMemory-memory-parent"), _memory_elsewhere),
)
demand(
    (BUFFER2, IMAGE2),
    Demand(("VkBindBufferMemoryInfo-commonparent", "VkBindImageMemoryInfo-commonparent"), _one_elsewhere),
)
demand(
    _EVERY,
    Demand(
        _ids("memoryOffset-01031", "memoryOffset-01046"),
        not_index("offset", "memory.size"),
        "{call.where}.memory_offset",
        "it is {call.offset}, the memory has {call.memory.size:d} bytes",
        "Bind at an offset inside the memory.",
        never=_Traits.SIZE_IGNORED,
    ),
    Demand(
        _ids("memory-01035", "memory-01047", "pNext-01615"),
        _other_memory_type,
        "{call.where}.memory",
        "it is of memory type {call.memory.memory_type_index}, the {call.resource_kind} allows {found}",
        "Allocate from one of the memory types that the {call.resource_kind} requires.",
    ),
    Demand(
        _ids("None-10739", "None-10735", "pNext-01616"),
        not_multiple("offset", "resource.alignment"),
        "{call.where}.memory_offset",
        "{call.offset} is not a multiple of the {call.resource_kind}'s alignment of {call.resource.alignment}",
        "Bind at {found[1]}, if the memory reaches that far.",
    ),
    Demand(
        _ids("None-10741", "None-10737", "pNext-01617"),
        _reaches_past_the_memory,
        "{call.where}.memory_offset",
        "the {call.resource_kind} requires {call.resource.size:d} bytes, and {found} follow offset {call.offset}",
        "Allocate more memory, or bind at a lower offset.",
        never=_Traits.SIZE_IGNORED,
    ),
    Demand(
        _ids("memory-02726", "memory-02728"),
        _exported_otherwise,
        "{call.where}.memory",
        "it is exportable as {found[0]}, the {call.resource_kind} was created for {found[1]}",
        "Create the {call.resource_kind} with {call.external_struct}.handle_types containing {found[0]}.",
        needs=_Traits.EXPORTED,
    ),
    Demand(
        _ids("memory-02985", "memory-02989"),
        _imported_otherwise,
        "{call.where}.memory",
        "it was imported as {found[0]}, the {call.resource_kind} was created for {found[1]}",
        "Create the {call.resource_kind} with {call.external_struct}.handle_types containing {found[0]}.",
        needs=_Traits.IMPORTED,
    ),
    Demand(
        _ids("buffer-01444", "image-01445"),
        all_of(is_true("resource.requires_dedicated"), _is_not_its_own),
        "{call.where}.memory",
        "the {call.resource_kind} requires memory dedicated to itself, the memory is dedicated to {found}",
        "Allocate with MemoryDedicatedAllocateInfo naming the {call.resource_kind}.",
    ),
    Demand(_ids("memory-01508", "memory-02628"), _dedicated_otherwise, needs=_Traits.DEDICATED),
    Demand(
        _ids("memory-10925", "memory-10926"),
        _dedicated_to_other_kind,
        "{call.where}.memory",
        "it is dedicated to {found}",
        "Allocate other memory for the {call.resource_kind}.",
        needs=_Traits.DEDICATED,
    ),
    _importable("VkImportMemoryWin32HandleInfoKHR-handleType-09861", WIN32_TYPES),
    _importable("VkImportMemoryFdInfoKHR-handleType-09862", FD_TYPES),
    _importable("VkImportMemoryHostPointerInfoEXT-handleType-01747", HOST_TYPES),
    Demand(
        ("VkExportMemoryAllocateInfo-handleTypes-09860",) * 4,
        _unexportable,
        "{call.where}.memory",
        "for {call.such}: {found}",
        "Allocate with the handle types that the device reports as exportable for it.",
        needs=_Traits.EXPORTED,
    ),
    Demand(
        ("VkMemoryAllocateInfo-pNext-00639",) * 4,
        _exported_without_dedication,
        "{call.where}.memory",
        "the device exports {found} for {call.such} from dedicated allocations only",
        "Allocate with MemoryDedicatedAllocateInfo naming the {call.resource_kind}.",
        needs=_Traits.EXPORTED,
        never=_Traits.DEDICATED,
    ),
)


Form = Literal[1, 2]
BindInfo = vk.BindBufferMemoryInfo | vk.BindImageMemoryInfo


def _check(
    name: str, struct: type, info: BindInfo, resource: ResourceFacts, memory: MemoryFacts, form: Form, device: int
) -> list[Violation]:
    """Check the binding of a resource. `name`: "Buffer" or "Image", as in the names of commands."""
    base, command = f"Bind{name}MemoryInfo", f"vkBind{name}Memory"
    violations = wrong_struct(info, struct, f"{command}.info") or malformed([(base, info)])
    if violations:
        return [
            msgspec.structs.replace(v, vuid=v.vuid.replace(f"Vk{base}", command)) if form == 1 else v
            for v in violations
        ]
    call = Bind(int(info.memory_offset), resource, memory, base, device, info.p_next)
    return (_BUFFERS if name == "Buffer" else _IMAGES)[form - 1].run(call, _traits(memory))


def check_bind_buffer_memory(
    info: vk.BindBufferMemoryInfo, buffer: ResourceFacts, memory: MemoryFacts, *, form: Form = 2, device: int = 0
) -> list[Violation]:
    """Return all rules on external and dedicated memory, and on offset and size, that this binding would break.

    `form`: 1 reports the ids of vkBindBufferMemory, 2 those of VkBindBufferMemoryInfo; the rules are the same.
    `device`: `DeviceFacts.identity` of the device that binds; 0 if unknown.
    """
    return _check("Buffer", vk.BindBufferMemoryInfo, info, buffer, memory, form, device)


def check_bind_image_memory(
    info: vk.BindImageMemoryInfo, image: ResourceFacts, memory: MemoryFacts, *, form: Form = 2, device: int = 0
) -> list[Violation]:
    """Return all rules on external and dedicated memory, and on offset and size, that this binding would break.

    `form`: 1 reports the ids of vkBindImageMemory, 2 those of VkBindImageMemoryInfo; the rules are the same.
    `device`: `DeviceFacts.identity` of the device that binds; 0 if unknown.
    """
    return _check("Image", vk.BindImageMemoryInfo, info, image, memory, form, device)
