"""Buffers and images: what memory is bound to, with the state that the binding and dedicated rules need."""

from __future__ import annotations

import abc
import dataclasses
import itertools
from collections.abc import Mapping
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Self

from extmem import rules, vk
from extmem.core import validation_cache
from extmem.errors import HandleStateError
from extmem.owning import Held, late_imports, unsettled
from extmem.vk.copies import copied

if TYPE_CHECKING:
    from extmem.core.device_state import DeviceState
    from extmem.core.memory_object import MemoryObject
    from extmem.core.memory_record import MemoryRecord
    from extmem.devices.resources import NativeResource, Requirements

__all__ = ["BufferObject", "ImageObject", "ResourceObject", "keep_resource"]

_identities = itertools.count(1)


class ResourceObject(Held, abc.ABC):
    """What buffers and images share. Made by the device; `close()` destroys it.

    Threads: as `DeviceMemory`. A buffer or image that recorded commands use is destroyed when those are done.
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
    )

    _word: str

    def __init__(self, device: DeviceState, native: NativeResource) -> None:
        super().__init__()
        self._device = device
        self._native = native
        self._memory: MemoryObject | None = None
        self._memory_offset = 0
        self._facts: rules.ResourceFacts | None = None
        self._bound = native.bound
        self._closed = False

    @property
    def device(self) -> DeviceState:
        """The device that it belongs to."""
        return self._device

    @property
    def native(self) -> NativeResource:
        """What the device has (for the library itself)."""
        return self._native

    @property
    def requirements(self) -> Requirements:
        """VkMemoryRequirements2 with VkMemoryDedicatedRequirements: size, alignment, types, dedicated or not."""
        return self._native.requirements

    @property
    def memory(self) -> MemoryObject | None:
        """The memory it is bound to, None before."""
        return self._memory

    @property
    def memory_offset(self) -> int:
        """Where in the allocation it begins, in bytes."""
        return self._memory_offset

    @property
    def facts(self) -> rules.ResourceFacts:
        """Its tracked state, as the rules take it (for the library itself)."""
        facts = self._facts
        if facts is None:
            facts = self._facts = self._look()
        if facts.bound != self._bound or facts.alive == self._closed:
            # Made anew only when somebody asks: most resources are bound once and never looked at again.
            facts = self._facts = dataclasses.replace(facts, bound=self._bound, alive=not self._closed)
        return facts

    @abc.abstractmethod
    def _look(self) -> rules.ResourceFacts:
        """Its facts, gathered anew."""

    def _look_now(self) -> None:
        """Gather the facts while it is made; where that fails, nothing was made."""
        try:
            self._facts = self._look()
        except BaseException:
            self.close()
            raise

    @property
    def closed(self) -> bool:
        """True once destroyed."""
        return self._closed

    @property
    def fresh(self) -> bool:
        """Whether it was never bound, and lives (for the library itself)."""
        return not self._bound and not self._closed

    def close(self) -> None:
        """vkDestroyBuffer, vkDestroyImage. Safe to call twice; the memory is not closed."""
        # No call between the two, so no signal handler either: what is marked as closed, somebody gives back.
        here = get_ident()
        unsettled[self] = here
        self._closed = True
        self.end()

    def give_back(self) -> None:
        """See `Held`."""
        self._device.backend.destroy(self._native)
        self._memory = None

    def gone(self) -> HandleStateError:
        """See `Held`."""
        return HandleStateError(f"this {self._word} is destroyed; make another one")

    @property
    def bound_elsewhere(self) -> bool:
        """Whether another binding bound it, to memory that is not known here (for the library itself)."""
        return self._bound and self.memory is None and not self._closed

    @property
    def raw(self) -> int:
        """VkBuffer or VkImage as a number; 0 on the host device, which needs none.

        Errors: HandleStateError once destroyed, and in a forked child.
        """
        if self._closed:
            raise self.gone()
        self._device.check_process()
        number = self._native.raw
        if number:
            self._device.resources_by_handle[self._native.kind, number] = self
        return number

    def __dir__(self) -> list[str]:
        # Completion and debuggers read all that is listed here, and this raises once the resource is destroyed.
        return [name for name in super().__dir__() if not (self._closed and name == "raw")]

    @property
    def _map_size(self) -> int:
        """How many bytes `map` shows."""
        return self.requirements.size

    def bind(self, memory: MemoryObject, offset: int) -> None:
        """Remember the binding, after the device made it (for the library itself)."""
        self._memory = memory
        self._memory_offset = offset
        self._bound = True

    def rejoin(self, memory: MemoryObject) -> None:
        """Another memory object of the payload that it is bound to has it from now on (for the library itself)."""
        self._memory = memory

    def map(self) -> memoryview:
        """A memoryview (format "B") of its bytes in the bound memory, as the device has them.

        Of a buffer `size` bytes, of an image `requirements.size`. Errors: HandleStateError before it is bound; as
        `DeviceMemory.map`.
        """
        if self._closed or self.memory is None:
            if self._closed:
                state = "destroyed; make another one"
            elif self._bound:
                state = "bound by another binding, to memory that is not known here; map that memory there"
            else:
                state = f"bound to no memory; bind it with Device.bind_{self._word}_memory first"
            raise HandleStateError(f"this {self._word} is {state}")
        return self.memory.map_part(self.memory_offset, self._map_size)

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

    __slots__ = ("ownership", "verdict")
    _info: vk.BufferCreateInfo
    _word = "buffer"

    def __init__(
        self,
        device: DeviceState,
        info: vk.BufferCreateInfo,
        verdict: validation_cache.Key | None = None,
        *,
        native: NativeResource | None = None,
    ) -> None:
        """info: nobody else changes it from now on: it is made and checked by this, as is what is done with it.

        verdict: what its creation was remembered by, if it was. native: one that another binding created.
        """
        super().__init__(device, device.backend.create_buffer(info) if native is None else native)
        self.verdict = verdict
        """What calls with it are remembered by (for the library itself)."""
        self._info = info
        self.ownership: rules.Ownership | None = rules.Ownership() if native is None else None
        """Whether submitted commands released it (for the library itself); None once others have its handle."""
        if verdict is None:  # else its calls are remembered, and its facts are rarely asked for
            self._look_now()

    @property
    def raw(self) -> int:
        """See `Resource.raw`. Whoever has it may acquire the buffer; so its owner is not checked any more."""
        self.ownership = None
        return super().raw

    def _look(self) -> rules.ResourceFacts:
        with late_imports():
            from extmem.core import rule_facts  # with the rules, which most buffers do not need

        types = validation_cache.buffer_types(self.verdict)
        return rule_facts.buffer_facts(self.device, self._info, self.requirements, next(_identities), types)

    @property
    def create_info(self) -> vk.BufferCreateInfo:
        """The VkBufferCreateInfo that it was made from, chain included; a new copy each time."""
        return copied(self._info)

    @property
    def size(self) -> int:
        """VkBufferCreateInfo::size in bytes; `requirements.size` may be larger."""
        return int(self._info.size)

    @property
    def _map_size(self) -> int:
        return self.size


class ImageObject(ResourceObject):
    """A VkImage."""

    __slots__ = ("_capabilities", "layouts")
    _info: vk.ImageCreateInfo
    _word = "image"

    def __init__(
        self,
        device: DeviceState,
        info: vk.ImageCreateInfo,
        capabilities: Mapping[int, rules.ExternalMemoryFacts] | None = None,
        *,
        native: NativeResource | None = None,
    ) -> None:
        """info: as for `Buffer`. capabilities: what such images can do with each handle type, where the device was
        asked already. native: one that another binding created.
        """
        super().__init__(device, device.backend.create_image(info) if native is None else native)
        self._capabilities = capabilities
        self._info = info
        self.layouts: rules.Layouts | None = rules.Layouts(info) if native is None else None
        """The layouts that submitted commands left it in (for the library itself); None once others have its handle."""
        self._look_now()

    @property
    def raw(self) -> int:
        """See `Resource.raw`. Whoever has it may change the image's layout; so that is not checked any more."""
        self.layouts = None
        return super().raw

    def _look(self) -> rules.ResourceFacts:
        with late_imports():
            from extmem.core import rule_facts

        known = self._capabilities
        return rule_facts.image_facts(self.device, self._exact, self.requirements, next(_identities), known)

    @property
    def _exact(self) -> vk.ImageCreateInfo:
        """What makes the identical image: `create_info`, or where a driver chose the modifier, with its choice."""
        made = self._native.create_info
        return made if self._native.planes and isinstance(made, vk.ImageCreateInfo) else self._info

    @property
    def create_info(self) -> vk.ImageCreateInfo:
        """The VkImageCreateInfo that it was made from, chain included; a new copy each time."""
        return copied(self._info)

    def subresource_layout(self, subresource: vk.ImageSubresource) -> vk.SubresourceLayout:
        """vkGetImageSubresourceLayout: offset, size and pitches in bytes, of an image that was created LINEAR.

        Of an image with a DRM format modifier the aspects are its memory planes, `MEMORY_PLANE_0_EXT` to `_3_EXT`.

        Errors: RuleViolation for a level, layer or aspect that the image lacks, and for OPTIMAL tiling (unchecked:
        UnsupportedError); HandleStateError once destroyed, and where its device is closed.
        """
        subresource = copied(subresource)
        with self._device.use() as device, self.use():
            found = rules.check_get_image_subresource_layout(subresource, self._exact)
            device.report(found, "vkGetImageSubresourceLayout")
            return device.backend.image_subresource_layout(self._exact, subresource)


def keep_resource(record: MemoryRecord, resource: ResourceObject) -> None:
    """The dedicated buffer or image of a memory object, which extmem made for it: it ends with the memory.

    Copies bind it by themselves, unless the caller would break a rule by binding it, as where the payload's description
    states a resource that was not made for external memory.
    """
    resource.native.private = record.device.check == "off" or not _breaks(record, resource)
    record.resource = resource


def _breaks(record: MemoryRecord, resource: ResourceObject) -> bool:
    facts, memory = resource.facts, record.facts()
    if facts.kind == "buffer":
        return bool(rules.check_bind_buffer_memory(vk.BindBufferMemoryInfo(), facts, memory))
    return bool(rules.check_bind_image_memory(vk.BindImageMemoryInfo(), facts, memory))
