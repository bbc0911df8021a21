"""The objects of a fake driver: one class for each type of Vulkan object, with the state that its checks need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from extmem import vk

if TYPE_CHECKING:
    from extmem.testing.fake_vulkan.gpus import Gpu
    from extmem.testing.fake_vulkan.payloads import Payload, Shadow
    from extmem.testing.fake_vulkan.sync_pages import SyncPage

__all__ = [
    "Batch",
    "Buffer",
    "CommandBuffer",
    "Device",
    "Fence",
    "Image",
    "Instance",
    "Memory",
    "Physical",
    "Pool",
    "Queue",
    "Resource",
    "Semaphore",
    "Share",
    "Source",
    "SyncObject",
    "Wait",
    "FakeObject",
]


@dataclass(eq=False)
class FakeObject:
    """A Vulkan object. `number` is its handle, `parent` the object that must outlive it."""

    parent: Any
    number: int = field(default=0, kw_only=True)

    def __str__(self) -> str:
        return f"{type(self).__name__} {self.number:#x}"


@dataclass(eq=False)
class Instance(FakeObject):
    """VkInstance."""


@dataclass(eq=False)
class Physical(FakeObject):
    """VkPhysicalDevice: ends with its instance."""

    gpu: Gpu


@dataclass(eq=False)
class Device(FakeObject):
    """VkDevice. `families`: the number of queues of each family."""

    gpu: Gpu
    extensions: frozenset[str]
    families: dict[int, int]
    lost: bool = False
    features: frozenset[str] = frozenset()
    """Names of the enabled features."""


@dataclass(eq=False)
class Queue(FakeObject):
    """VkQueue: ends with its device."""

    family: int
    index: int
    batches: list[Batch] = field(default_factory=list)
    """What was submitted and has not run, in order."""
    pending: list[tuple[CommandBuffer, int]] = field(default_factory=list)
    """Command buffers whose end was not reported, with the number of the submission of each."""


@dataclass(eq=False)
class Share:
    """The parameters of an NT export (VkExportMemoryWin32HandleInfoKHR), read during vkAllocateMemory."""

    stated: bool
    """Whether the call had the struct."""
    name: str | None = None
    access: int = 0
    """dwAccess, unchanged."""
    attributes: bool = False
    """Whether pAttributes was not NULL."""
    inherit: bool = False
    sddl: str | None = None
    """The security descriptor; None for NULL."""
    given: int = 0
    """How often vkGetMemoryWin32HandleKHR was called for its NT handle."""
    first: int = 0
    """The handle that the first call returned."""


@dataclass(eq=False)
class Source:
    """The payload of a new memory object. `kind` is the handle type that it is imported as; 0 for none."""

    payload: Payload
    size: int
    kind: int = 0
    share: Share | None = None
    kmt: int = 0


@dataclass(eq=False)
class Memory(FakeObject):
    """VkDeviceMemory."""

    size: int
    memory_type: int
    payload: Payload
    export_types: int = 0
    import_type: int = 0
    dedicated: Resource | None = None
    mapping: Any = None
    """The object that keeps the mapping; None while it is not mapped."""
    shadow: Shadow | None = None
    """The host's cache of memory that is not coherent."""
    share: Share | None = None
    """How it was exported, on Windows; None where it was not."""
    kmt: int = 0
    """Its KMT number; 0 for none."""
    ours: bool = True
    """Whether a queue family of this device owns it, rather than VK_QUEUE_FAMILY_EXTERNAL."""

    @property
    def external(self) -> bool:
        """Whether it is exported or imported, so that others may use it."""
        return bool(self.export_types or self.import_type)


@dataclass(eq=False)
class Resource(FakeObject):
    """What VkBuffer and VkImage share."""

    size: int
    alignment: int
    type_bits: int
    handle_types: int
    usage: int
    dedicated: Literal["no", "preferred", "required"]
    memory: Memory | None = None
    offset: int = 0


@dataclass(eq=False)
class Buffer(Resource):
    """VkBuffer. `length`: VkBufferCreateInfo::size."""

    length: int = 0


@dataclass(eq=False)
class Image(Resource):
    """VkImage."""

    info: vk.ImageCreateInfo = field(default_factory=vk.ImageCreateInfo)
    layout: int = 0
    modifier: int | None = None
    """The DRM format modifier; None for other tilings."""
    planes: list[vk.SubresourceLayout] = field(default_factory=list)
    """The layouts of its memory planes."""


@dataclass(eq=False)
class Pool(FakeObject):
    """VkCommandPool."""

    family: int
    resettable: bool


@dataclass(eq=False)
class CommandBuffer(FakeObject):
    """VkCommandBuffer. `work` is what was recorded, `uses` the objects that it uses."""

    state: Literal["initial", "recording", "executable", "pending", "invalid"] = "initial"
    once: bool = False
    submissions: int = 0
    """How often it was submitted."""
    work: list[Callable[[], None]] = field(default_factory=list)
    uses: set[FakeObject] = field(default_factory=set)


@dataclass(eq=False)
class SyncObject(FakeObject):
    """What VkSemaphore and VkFence share: the permanent payload, and a temporary one for a while."""

    permanent: SyncPage
    export_types: int = 0
    temporary: SyncPage | None = None
    import_type: int = 0
    """The handle type by which the permanent payload was imported; 0 for its own."""
    waiting: list[tuple[CommandBuffer, int]] = field(default_factory=list)
    """The command buffers that a wait for a fence completes, with the number of the submission of each."""
    share: Share | None = None
    """How it was exported, on Windows; None where it was not."""
    kmt: int = 0
    """Its KMT number; 0 for none."""

    @property
    def running(self) -> list[CommandBuffer]:
        """The command buffers that a wait for a fence completes, and that were not submitted again since."""
        return [one for one, number in self.waiting if one.state == "pending" and one.submissions == number]

    @property
    def page(self) -> SyncPage:
        """The current payload."""
        return self.temporary if self.temporary is not None else self.permanent

    def restore(self) -> None:
        """End a temporary payload."""
        page, self.temporary = self.temporary, None
        if page is not None:
            page.close()

    def replace(self, page: SyncPage, handle_type: int, *, temporary: bool) -> None:
        """Use an imported payload, which is owned from now on."""
        self.restore()
        if temporary:
            self.temporary = page
        else:
            before, self.permanent, self.import_type = self.permanent, page, handle_type
            before.close()

    def close(self) -> None:
        """Release the payloads."""
        self.restore()
        self.permanent.close()


@dataclass(eq=False)
class Semaphore(SyncObject):
    """VkSemaphore."""

    timeline: bool = False


@dataclass(eq=False)
class Fence(SyncObject):
    """VkFence."""

    @property
    def signaled(self) -> bool:
        """Whether it is signaled."""
        return bool(self.page.number)


@dataclass(eq=False)
class Wait:
    """A wait of a batch. `value`: that of a timeline; None for a binary semaphore."""

    page: SyncPage
    value: int | None
    done: bool = False


@dataclass(eq=False)
class Batch:
    """A batch that was submitted and has not run."""

    waits: list[Wait] = field(default_factory=list)
    buffers: list[CommandBuffer] = field(default_factory=list)
    signals: list[tuple[SyncPage, int | None]] = field(default_factory=list)
    copies: list[SyncPage] = field(default_factory=list)
    """sync_files that were exported while its signal was pending."""
    uses: set[FakeObject] = field(default_factory=set)
    """The semaphores and the fence."""

    def pages(self) -> list[SyncPage]:
        """Return what it has to release."""
        return [*(wait.page for wait in self.waits), *(page for page, _ in self.signals), *self.copies]
