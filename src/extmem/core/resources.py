"""Buffers and images, with the state that the rules of bindings, dedicated memory and commands need."""

from __future__ import annotations

import abc
import itertools
from collections.abc import Mapping
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from extmem import rules, vk
from extmem.arguments import CheckedWhenMade
from extmem.core import validation_cache
from extmem.core.device_state import DeviceState
from extmem.errors import HandleStateError
from extmem.owning import Held, LateModule, late_imports, unsettled
from extmem.vk.handle_types import MemoryHandleType

if TYPE_CHECKING:
    from extmem.core.memory_object import MemoryObject
    from extmem.core.memory_record import MemoryRecord
    from extmem.devices.resources import NativeResource, Requirements
    from extmem.vk import struct_copies
else:
    struct_copies = LateModule(globals(), "extmem.vk.struct_copies")

__all__ = ["BufferObject", "ImageObject", "ResourceObject", "keep_resource"]

_identities = itertools.count(1)


class ResourceObject(CheckedWhenMade, Held, abc.ABC):
    """Base class of buffers and images. Made by the device; `close()` destroys it.

    Threads: as `DeviceMemory`. A buffer or image that recorded commands use is destroyed when they have completed.
    """

    __slots__ = (
        "_bound",
        "_closed",
        "_device",
        "_facts",
        "_info",
        "_memory",
        "_memory_offset",
        "_native",
        "submitted_state",
    )

    _word: str
    _made_of = DeviceState

    def __init__(self, device: DeviceState, native: NativeResource) -> None:
        super().__init__()
        self._device = device
        self._native = native
        self._memory: MemoryObject | None = None
        self._memory_offset = 0
        self._facts: rules.ResourceFacts | None = None
        self._bound = native.bound
        self._closed = False
        self.submitted_state: rules.Layouts | rules.Ownership | None = None
        """The layouts of an image, or the ownership of a buffer, after the submitted commands; None if unknown, because
        other code created it or has its raw handle (for the library itself)."""

    @property
    def device(self) -> DeviceState:
        """The device that it belongs to."""
        return self._device

    @property
    def native(self) -> NativeResource:
        """The resource of the backend (for the library itself)."""
        return self._native

    @property
    def requirements(self) -> Requirements:
        """VkMemoryRequirements2 with VkMemoryDedicatedRequirements; size and alignment are in bytes."""
        return self._native.requirements

    @property
    def memory(self) -> MemoryObject | None:
        """The memory that it is bound to; None before the binding."""
        return self._memory

    @property
    def memory_offset(self) -> int:
        """Offset of its first byte in the allocation, in bytes."""
        return self._memory_offset

    @property
    def facts(self) -> rules.ResourceFacts:
        """The tracked state, as the rules take it (for the library itself)."""
        facts = self._facts or self._query_facts()
        if facts.bound != self._bound or facts.alive == self._closed:
            # A binding does not update the facts, because the facts of most resources are not read after it.
            facts = msgspec.structs.replace(facts, bound=self._bound, alive=not self._closed)
        self._facts = facts
        return facts

    @abc.abstractmethod
    def _query_facts(self) -> rules.ResourceFacts:
        """Return new facts."""

    def _store_facts(self) -> None:
        """Query the facts during the construction. After an error the resource is closed."""
        try:
            self._facts = self._query_facts()
        except BaseException:
            self.close()
            raise

    @property
    def closed(self) -> bool:
        """True after `close()`."""
        return self._closed

    @property
    def fresh(self) -> bool:
        """Whether it is neither bound nor closed (for the library itself)."""
        return not self._bound and not self._closed

    def close(self) -> None:
        """vkDestroyBuffer, vkDestroyImage. Safe to call twice; the memory is not closed."""
        # No call, and so no signal handler, runs between the two: a resource that is marked as closed is released.
        this_thread = get_ident()
        unsettled[self] = this_thread
        self._closed = True
        self.end()

    def give_back(self) -> None:
        """See `Held`."""
        self._native.destroy()
        self._memory = None

    def gone(self) -> HandleStateError:
        """See `Held`."""
        return HandleStateError(f"this {self._word} is destroyed; create another one")

    @property
    def bound_elsewhere(self) -> bool:
        """Whether another Python binding bound it, to memory that extmem does not track (for the library itself)."""
        return self._bound and self.memory is None and not self._closed

    @property
    def raw(self) -> int:
        """VkBuffer or VkImage as a number; 0 on the host device, which has no such handles.

        The caller may change the layout of an image, or the owner of a buffer, so these are no longer checked.
        Errors: HandleStateError after `close()`, and in a forked child.
        """
        self.submitted_state = None
        if self._closed:
            raise self.gone()
        self._device.check_process()
        number = self._native.raw
        if number:
            self._device.resources_by_handle[self._native.kind, number] = self
        return number

    def __dir__(self) -> list[str]:
        # Completion and debuggers read every listed attribute, and `raw` raises once the resource is destroyed.
        return [name for name in super().__dir__() if not (self._closed and name == "raw")]

    @property
    def _map_size(self) -> int:
        """Size of the memoryview that `map` returns, in bytes."""
        return self.requirements.size

    def bind(self, memory: MemoryObject, offset: int) -> None:
        """Record a binding that the device has made (for the library itself)."""
        self._memory = memory
        self._memory_offset = offset
        self._bound = True

    def map(self) -> memoryview:
        """Return a memoryview (format "B") of its bytes in the bound memory, in the layout of the device.

        It has `size` bytes for a buffer, and `requirements.size` bytes for an image.
        Errors: HandleStateError before it is bound; as `DeviceMemory.map`.
        """
        memory, offset = self.memory, self.memory_offset  # another thread that closes it forgets its memory
        if self._closed:
            raise self.gone()
        if memory is None:
            raise HandleStateError(
                f"another Python binding bound this {self._word}, to memory that extmem does not track; map it there"
                if self._bound
                else f"this {self._word} is not bound to memory; bind it with Device.bind_{self._word}_memory first"
            )
        return memory.map_part(offset, self._map_size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "destroyed" if self._closed else "bound" if self._bound else "unbound"
        return f"<{type(self).__name__} {self.requirements.size} bytes on {self.device.name}, {state}>"


class BufferObject(ResourceObject):
    """A VkBuffer."""

    __slots__ = ("transfers", "validation_key")
    _info: vk.BufferCreateInfo
    _word = "buffer"
    _made_by = "Device.create_buffer(…)"

    def __init__(
        self,
        device: DeviceState,
        info: vk.BufferCreateInfo,
        validation_key: validation_cache.Key | None = None,
        *,
        native: NativeResource | None = None,
    ) -> None:
        """info: the caller does not change it afterwards; it is used for the creation and for all checks.

        validation_key: the key of the creation in the validation cache; None if the call is not cached.
        native: a resource that another Python binding created.
        """
        super().__init__(device, device.backend.create_buffer(info) if native is None else native)
        self.validation_key = validation_key
        """The part of the keys of calls with this buffer, in the validation cache (for the library itself)."""
        self._info = info
        self.submitted_state = rules.Ownership() if native is None else None
        self.transfers: dict[tuple[int, int], Any] = {}
        """The barriers that have transferred its ownership, by both owners (for the library itself)."""
        if validation_key is None:  # calls with a key are cached, so the facts are rarely needed
            self._store_facts()

    def _query_facts(self) -> rules.ResourceFacts:
        with late_imports():
            from extmem.core import rule_facts  # imports the rules, which most buffers do not need

        types = validation_cache.buffer_types(self.validation_key)
        return rule_facts.buffer_facts(self.device, self._info, self.requirements, next(_identities), types)

    @property
    def create_info(self) -> vk.BufferCreateInfo:
        """The VkBufferCreateInfo that it was created from, chain included; a new copy at each access."""
        return struct_copies.copy_struct(self._info)

    @property
    def size(self) -> int:
        """VkBufferCreateInfo::size in bytes; `requirements.size` may be larger."""
        return int(self._info.size)

    @property
    def _map_size(self) -> int:
        return self.size


class ImageObject(ResourceObject):
    """A VkImage."""

    __slots__ = ("_capabilities",)
    _info: vk.ImageCreateInfo
    _word = "image"
    _made_by = "Device.create_image(…)"

    def __init__(
        self,
        device: DeviceState,
        info: vk.ImageCreateInfo,
        capabilities: Mapping[MemoryHandleType, rules.ExternalMemoryFacts] | None = None,
        *,
        native: NativeResource | None = None,
    ) -> None:
        """info, native: as for `BufferObject`. capabilities: support of such images, by handle type; None: query it."""
        super().__init__(device, device.backend.create_image(info) if native is None else native)
        self._capabilities = capabilities
        self._info = info
        self.submitted_state = rules.Layouts(info) if native is None else None
        self._store_facts()

    def _query_facts(self) -> rules.ResourceFacts:
        with late_imports():
            from extmem.core import rule_facts

        return rule_facts.image_facts(
            self.device, self._exact, self.requirements, next(_identities), self._capabilities
        )

    @property
    def _exact(self) -> vk.ImageCreateInfo:
        """The create info of an identical image: `create_info`, with the modifier if the driver chose one."""
        info = self._native.create_info
        return info if self._native.planes and isinstance(info, vk.ImageCreateInfo) else self._info

    @property
    def create_info(self) -> vk.ImageCreateInfo:
        """The VkImageCreateInfo that it was created from, chain included; a new copy at each access."""
        return struct_copies.copy_struct(self._info)

    def subresource_layout(self, subresource: vk.ImageSubresource) -> vk.SubresourceLayout:
        """vkGetImageSubresourceLayout: return offset, size and pitches in bytes, of an image with LINEAR tiling.

        The aspects of an image with a DRM format modifier are its memory planes, `MEMORY_PLANE_0_EXT` to `_3_EXT`.

        Errors: RuleViolation for a level, layer or aspect that the image lacks, and for OPTIMAL tiling
        (UnsupportedError with check="off"); HandleStateError after `close()`, and if the device is closed.
        """
        subresource = struct_copies.copy_struct(subresource)
        with self._device.use() as device, self.use():
            violations = rules.check_get_image_subresource_layout(subresource, self._exact)
            device.report(violations, "vkGetImageSubresourceLayout")
            return device.backend.image_subresource_layout(self._exact, subresource)


def keep_resource(record: MemoryRecord, resource: ResourceObject) -> None:
    """Store the dedicated buffer or image that extmem created for a memory object; it ends with the memory.

    The copies of the backend bind it, unless the binding breaks a rule. It does, for example, if the descriptor of the
    payload states a resource that was not created for external memory.
    """
    resource.native.private = record.device.check == "off" or not _binding_breaks_rule(record, resource)
    record.resource = resource


def _binding_breaks_rule(record: MemoryRecord, resource: ResourceObject) -> bool:
    facts, memory = resource.facts, record.facts()
    if facts.kind == "buffer":
        return bool(rules.check_bind_buffer_memory(vk.BindBufferMemoryInfo(), facts, memory))
    return bool(rules.check_bind_image_memory(vk.BindImageMemoryInfo(), facts, memory))
