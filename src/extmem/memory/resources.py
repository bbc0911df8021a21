"""Buffers and images: what memory is bound to, with the state that the binding and dedicated rules need."""

from __future__ import annotations

import abc
import copy
import dataclasses
import itertools
from collections.abc import Mapping
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Self

from extmem import vk
from extmem.errors import HandleStateError, UnsupportedError
from extmem.memory import tracking, verdicts
from extmem.owning import Held, unsettled
from extmem.rules import Layouts

if TYPE_CHECKING:
    from extmem.devices.resources import NativeResource, Requirements
    from extmem.memory.device import Device
    from extmem.memory.holding import Holding
    from extmem.memory.memory import DeviceMemory
    from extmem.rules import ExternalMemoryFacts, ResourceFacts

__all__ = ["Buffer", "Image", "Resource", "buffer_over"]

_identities = itertools.count(1)
_COPYING = int(vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST)


class Resource(Held, abc.ABC):
    """What `Buffer` and `Image` share. Made by the device; `close()` destroys it.

    Threads: as `DeviceMemory`. A buffer or image that recorded commands use is destroyed when those are done.
    """

    __slots__ = (
        "_bound",
        "_closed",
        "_facts",
        "device",
        "memory",
        "memory_offset",
        "native",
        "requirements",
    )

    _word: str

    def __init__(self, device: Device, native: NativeResource) -> None:
        super().__init__()
        self.device = device
        self.native = native
        """What the device has (for the library itself)."""
        self.requirements: Requirements = native.requirements
        """VkMemoryRequirements2 with VkMemoryDedicatedRequirements: size, alignment, types, dedicated or not."""
        self.memory: DeviceMemory | None = None
        """The memory it is bound to, None before."""
        self.memory_offset = 0
        self._facts: ResourceFacts | None = None
        self._bound = native.bound
        self._closed = False

    @property
    def facts(self) -> ResourceFacts:
        """Its tracked state, as the rules take it (for the library itself)."""
        facts = self._facts
        if facts is None:
            facts = self._facts = self._look()
        if facts.bound != self._bound or facts.alive == self._closed:
            # Made anew only when somebody asks: most resources are bound once and never looked at again.
            facts = self._facts = dataclasses.replace(facts, bound=self._bound, alive=not self._closed)
        return facts

    @abc.abstractmethod
    def _look(self) -> ResourceFacts:
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
        self.device.driver.destroy(self.native)
        self.memory = None

    def gone(self) -> HandleStateError:
        """See `Held`."""
        return HandleStateError(f"this {self._word} is destroyed; make another one")

    @property
    def raw(self) -> int:
        """VkBuffer or VkImage as a number; 0 on the host device, which needs none. HandleStateError once destroyed."""
        if self._closed:
            raise self.gone()
        return self.native.raw

    def __dir__(self) -> list[str]:
        # Completion and debuggers read all that is listed here, and this raises once the resource is destroyed.
        return [name for name in super().__dir__() if not (self._closed and name == "raw")]

    def bind(self, memory: DeviceMemory, offset: int) -> None:
        """Remember the binding, after the device made it (for the library itself)."""
        self.memory = memory
        self.memory_offset = offset
        self._bound = True

    def map(self) -> memoryview:
        """A memoryview of its bytes in the bound memory. HandleStateError before it is bound."""
        if self._closed or self.memory is None:
            raise HandleStateError(
                f"this {self._word} is {'destroyed' if self._closed else 'bound to no memory'}; "
                "bind it with Device.bind_buffer_memory or bind_image_memory first"
            )
        return self.memory.map()[self.memory_offset : self.memory_offset + self.requirements.size]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "destroyed" if self._closed else "bound" if self.memory is not None else "unbound"
        return f"<{type(self).__name__} {self.requirements.size} bytes on {self.device.name}, {state}>"


class Buffer(Resource):
    """A VkBuffer."""

    __slots__ = ("create_info", "verdict")
    _word = "buffer"

    def __init__(
        self,
        device: Device,
        info: vk.BufferCreateInfo,
        verdict: verdicts.Key | None = None,
        *,
        native: NativeResource | None = None,
    ) -> None:
        """verdict: what its creation was remembered by, if it was. native: one that another binding created."""
        super().__init__(device, device.driver.create_buffer(info) if native is None else native)
        self.verdict = verdict
        # Commands are judged by it, whatever the program does to its own.
        self.create_info = vk.BufferCreateInfo(
            info.flags, info.size, info.usage, info.sharing_mode, info.queue_family_indices, info.p_next
        )
        """The VkBufferCreateInfo that it was made from."""
        if verdict is None:  # else its calls are remembered, and its facts are rarely asked for
            self._look_now()

    def _look(self) -> ResourceFacts:
        types = verdicts.buffer_types(self.verdict)
        return tracking.buffer_facts(self.device, self.create_info, self.requirements, next(_identities), types)

    @property
    def size(self) -> int:
        """VkBufferCreateInfo::size in bytes; `requirements.size` may be larger."""
        return int(self.create_info.size)


class Image(Resource):
    """A VkImage."""

    __slots__ = ("_capabilities", "create_info", "layouts")
    _word = "image"

    def __init__(
        self,
        device: Device,
        info: vk.ImageCreateInfo,
        capabilities: Mapping[int, ExternalMemoryFacts] | None = None,
        *,
        native: NativeResource | None = None,
    ) -> None:
        """capabilities: what such images can do with each handle type, where the device was asked already.

        native: one that another binding created.
        """
        super().__init__(device, device.driver.create_image(info) if native is None else native)
        self._capabilities = capabilities
        self.create_info = copy.copy(info)
        """The VkImageCreateInfo that it was made from."""
        self.create_info.extent = copy.copy(info.extent)
        self.layouts: Layouts | None = Layouts(self.create_info)
        """The layouts that submitted commands left it in (for the library itself); None once others have its handle."""
        self._look_now()

    @property
    def raw(self) -> int:
        """See `Resource.raw`. Whoever has it may change the image's layout; so that is not judged any more."""
        self.layouts = None
        return super().raw

    def _look(self) -> ResourceFacts:
        known = self._capabilities
        return tracking.image_facts(self.device, self.create_info, self.requirements, next(_identities), known)

    def subresource_layout(self, subresource: vk.ImageSubresource) -> vk.SubresourceLayout:
        """vkGetImageSubresourceLayout: offset, size and pitches in bytes. UnsupportedError for optimal tiling."""
        return self.device.driver.image_subresource_layout(self.create_info, subresource)


def buffer_over(memory: DeviceMemory) -> Buffer:
    """`DeviceMemory.buffer`."""
    with memory.use() as holding, holding.device.making:
        return _buffer_over(memory, holding)


def _buffer_over(memory: DeviceMemory, holding: Holding) -> Buffer:
    made = holding.resource
    if made is None and holding.dedicated is None:
        types = holding.export_handle_types or holding.import_handle_type
        external = vk.ExternalMemoryBufferCreateInfo(types) if types else None
        usage, size = holding.descriptor.usage or _COPYING, holding.descriptor.payload_size
        made = holding.device.create_buffer(vk.BufferCreateInfo(size=size, usage=usage, p_next=external))
        holding.resource = made
    if not isinstance(made, Buffer):
        raise UnsupportedError(
            f"this memory is dedicated to {'an image' if isinstance(made, Image) else 'a resource of its own'}; bind "
            "and use that (`DeviceMemory.resource` has what `open` made)",
            requires_one_of=["memory that is not dedicated to an image"],
        )
    if made.memory is None:
        holding.device.bind_buffer_memory(made, memory, holding.descriptor.payload_offset)
    elif made.memory.closed:
        made.memory = memory  # another memory object of the same payload, which bound it
    return made
