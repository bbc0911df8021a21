"""`Device`: a device as programs see it. The specification's commands one to one, and the everyday door beside them.

Each command is judged by the rules first and reaches the driver only if it breaks none (`check="raise"`), or with a
RuleWarning for each that it breaks (`check="warn"`), or unjudged (`check="off"`).
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from extmem import rules, vk
from extmem.devices.optional_protocols import FinishesLater, ImportsByDescriptor
from extmem.errors import HandleStateError, RuleViolation
from extmem.handles import FdHandle, KmtHandle, NtHandle
from extmem.handles.here import HERE
from extmem.memory import operations, tracking, verdicts
from extmem.memory.live import Live
from extmem.memory.warning import warn_caller
from extmem.owning import Held, Lock, Uses, unsettled, work_off
from extmem.vk.copies import copied

if TYPE_CHECKING:
    from extmem.devices.backend import Backend
    from extmem.devices.types import DeviceIdentity
    from extmem.memory.commands import Commands
    from extmem.memory.descriptor import Descriptor
    from extmem.memory.holding import Holding
    from extmem.memory.memory import DeviceMemory
    from extmem.memory.resources import Buffer, Image, Resource

__all__ = ["Check", "Device"]

Check = Literal["raise", "warn", "off"]
HandleType = vk.ExternalMemoryHandleTypeFlagBits
_DESCRIBED = 512
_TRANSFER = int(vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST)


class Device(Held):
    """A device that allocates, exports and imports memory. Made by `extmem.open_device`.

    Ownership: memory, buffers and images hold their device; `close()` refuses while any memory is open.
    Threads: every method may be called from any thread, also while another one closes the device.

    Errors of every command: RuleViolation (see `check`), HandleStateError once closed, and in a forked child.
    """

    def __init__(self, backend: Backend, *, check: Check = "raise", strict_kmt: bool = False) -> None:
        if check not in ("raise", "warn", "off"):
            raise ValueError(f'check is {check!r}; it takes "raise", "warn" or "off"')
        super().__init__()
        self.backend = backend
        self._identity = backend.identity
        self._kind = backend.kind
        self.pid = HERE.pid
        """The process that opened it; a forked child of that may not use it."""
        self.check: Check = check
        self.strict_kmt = strict_kmt
        """Whether a KMT number dies with its exporter rather than with the payload's last memory object."""
        self.facts = tracking.device_facts(backend)
        self.described: ImportsByDescriptor | None = backend if isinstance(backend, ImportsByDescriptor) else None
        """The driver of another API than Vulkan, which imports by a payload's descriptor."""
        self.foreign_type: int | None = None
        """The memory type that this device sees foreign memory as, once it was asked."""
        self.max_allocations = backend.max_memory_allocation_count
        self.buffer_answers: dict[tuple[int, int, int], rules.ExternalMemoryFacts] = {}
        """What buffers of these flags and this usage can do with one handle type."""
        self.sharing: dict[int, tracking.Sharing] = {}
        """What transfer buffers can do with these sets of handle types."""
        self.numbered: weakref.WeakValueDictionary[tuple[str, int], Resource] = weakref.WeakValueDictionary()
        """Buffers and images whose VkBuffer or VkImage others know, by kind and number."""
        self.making = Lock(reentrant=True)
        """Held to find out that something of a memory object or resource is not there yet, and to make it."""
        self.holdings: set[weakref.ref[Holding]] = set()
        """The memory objects that are open. Each takes itself out when it is given back, or lost."""
        self.live = Live()
        self.plain: dict[bytes, Descriptor] = {}
        """Descriptors of this device's payloads that leave nothing to judge or to make, parsed, by their bytes."""
        self._described: dict[tuple[int, int, int, int], Descriptor] = {}
        self.verdicts = verdicts.Verdicts()
        """Calls that broke no rule."""

    # What it is.

    @property
    def kind(self) -> str:
        """`host`, `vulkan` or `cuda`."""
        return self._kind

    @property
    def identity(self) -> DeviceIdentity:
        """UUIDs, LUID and names (VkPhysicalDeviceIDProperties)."""
        return self._identity

    @property
    def name(self) -> str:
        """The device's name."""
        return self.facts.name

    @property
    def uuid(self) -> bytes:
        """deviceUUID, 16 bytes."""
        return self.facts.device_uuid

    @property
    def memory_properties(self) -> vk.PhysicalDeviceMemoryProperties:
        """vkGetPhysicalDeviceMemoryProperties; a new struct each time."""
        with self.use():
            return self.backend.memory_properties()

    # Capabilities.

    def get_physical_device_external_buffer_properties(
        self, info: vk.PhysicalDeviceExternalBufferInfo
    ) -> vk.ExternalBufferProperties:
        """What buffers of this use can export and import; no feature bits where the type is unsupported."""
        return operations.asking.external_buffer_properties(self, info)

    def get_physical_device_image_format_properties2(
        self, info: vk.PhysicalDeviceImageFormatInfo2
    ) -> vk.ImageFormatProperties2:
        """What images of this format and use can do, external properties chained when asked for.

        Errors: UnsupportedError for VK_ERROR_FORMAT_NOT_SUPPORTED.
        """
        return operations.asking.image_format_properties(self, info)

    def get_physical_device_format_properties2(self, format: vk.Format | int) -> vk.FormatProperties2:
        """What a format can do, DrmFormatModifierPropertiesListEXT chained where the device has DRM format modifiers.

        Errors: UnsupportedError for a device of another kind than Vulkan's.
        """
        return operations.asking.format_properties(self, format)

    def transfer_capability(self, handle_type: int) -> rules.ExternalMemoryFacts:
        """What transfer buffers can do with one handle type; asked once, it does not change.

        Errors: ValueError for what is not one bit of ExternalMemoryHandleTypeFlagBits.
        """
        self.check_open()
        known = self.buffer_answers.get((0, _TRANSFER, handle_type))
        return known or operations.asking.transfer_capability(self, handle_type)

    # Resources.

    def create_buffer(self, info: vk.BufferCreateInfo) -> Buffer:
        """vkCreateBuffer. The buffer is destroyed by its `close()`."""
        info = copied(info)
        with self.use():
            return operations.creating.create_buffer(self, info)

    def create_image(self, info: vk.ImageCreateInfo) -> Image:
        """vkCreateImage. Errors: UnsupportedError for a format, tiling, usage or modifier that the device lacks."""
        info = copied(info)
        with self.use():
            return operations.creating.create_image(self, info)

    def get_image_drm_format_modifier_properties(self, image: Image) -> vk.ImageDrmFormatModifierPropertiesEXT:
        """vkGetImageDrmFormatModifierPropertiesEXT: the modifier that the driver chose for an image of this device."""
        return operations.creating.modifier_of(self, image)

    def bind_buffer_memory2(self, infos: Sequence[vk.BindBufferMemoryInfo]) -> None:
        """vkBindBufferMemory2: all are judged before any is bound."""
        operations.binding.bind(self, infos, "buffer")

    def bind_image_memory2(self, infos: Sequence[vk.BindImageMemoryInfo]) -> None:
        """vkBindImageMemory2: all are judged before any is bound."""
        operations.binding.bind(self, infos, "image")

    def bind_buffer_memory(self, buffer: Buffer, memory: DeviceMemory, offset: int = 0) -> None:
        """vkBindBufferMemory: from now on the buffer's bytes are the memory's from `offset` (bytes) on."""
        operations.binding.bind_one(self, buffer, memory, offset)

    def bind_image_memory(self, image: Image, memory: DeviceMemory, offset: int = 0) -> None:
        """vkBindImageMemory."""
        operations.binding.bind(self, [vk.BindImageMemoryInfo(image, memory, offset)], "image", form=1)

    # Memory, word for word.

    def allocate_memory(self, info: vk.MemoryAllocateInfo) -> DeviceMemory:
        """vkAllocateMemory: allocate, export or import as the pNext chain says. Always a distinct memory object.

        New host memory contains zeros; a Vulkan or CUDA driver's contains what the driver leaves in it, such as bytes
        of memory that this process has freed. `allocate` zeroes.
        Ownership: an imported fd is consumed when this succeeds and only then; NT handles stay the caller's. After an
        error nothing has changed.
        Errors: RuleViolation; the object manager's refusals (NameNotFoundError, NameTakenError, AccessDeniedError,
        InvalidHandleError, ObjectTypeError) with the rule they decide in `violations`; DescriptorError for a payload
        that lies about itself; OutOfMemoryError; UnsupportedError without an object manager.
        """
        if unsettled:
            work_off()
        return operations.allocating.allocate_memory(self, info)

    def free_memory(self, memory: DeviceMemory) -> None:
        """vkFreeMemory, the same as `memory.close()`."""
        if not isinstance(memory, operations.DeviceMemory):
            raise TypeError(f"memory is {memory!r}: pass a DeviceMemory")
        memory.close()

    def flush_mapped_memory_ranges(self, ranges: Sequence[vk.MappedMemoryRange]) -> None:
        """vkFlushMappedMemoryRanges: the device sees what the host wrote there. Nothing to do for HOST_COHERENT memory.

        Offsets and sizes in bytes, rounded outwards to nonCoherentAtomSize. All are judged before any is flushed.
        Errors: HandleStateError for memory that is not mapped; ValueError for a range outside its memory; DriverError.
        """
        with Uses() as uses:
            uses.add(self)
            for allocation, offset, size in operations.ranges.checked(self, ranges, "vkFlushMappedMemoryRanges", uses):
                self.backend.flush(allocation, offset, size)

    def invalidate_mapped_memory_ranges(self, ranges: Sequence[vk.MappedMemoryRange]) -> None:
        """vkInvalidateMappedMemoryRanges: the host sees what the device wrote there. Else as flushing."""
        with Uses() as uses:
            uses.add(self)
            for allocation, offset, size in operations.ranges.checked(
                self, ranges, "vkInvalidateMappedMemoryRanges", uses
            ):
                self.backend.invalidate(allocation, offset, size)

    def get_memory_win32_handle(self, info: vk.MemoryGetWin32HandleInfoKHR) -> NtHandle | KmtHandle:
        """vkGetMemoryWin32HandleKHR: an NT handle that the caller closes, or a KMT number that owns nothing.

        At most once per memory and NT type (VUID-VkMemoryGetWin32HandleInfoKHR-handleType-00663): duplicate the handle,
        or use `DeviceMemory.export_handle`, which does.
        """
        info = copied(info)
        with self.use(), operations.asking.memory_of(self, info, vk.MemoryGetWin32HandleInfoKHR).use() as holding:
            self.report(
                rules.check_get_memory_win32_handle(info, self.facts, tracking.memory_facts(holding)),
                "vkGetMemoryWin32HandleKHR",
            )
            return operations.exporting.win32_handle(holding, HandleType(info.handle_type))

    def get_memory_fd(self, info: vk.MemoryGetFdInfoKHR) -> FdHandle:
        """vkGetMemoryFdKHR: a new fd at each call, owned by the caller."""
        info = copied(info)
        with self.use(), operations.asking.memory_of(self, info, vk.MemoryGetFdInfoKHR).use() as holding:
            return self.fd_of(holding, info)

    def fd_of(self, holding: Holding, info: vk.MemoryGetFdInfoKHR) -> FdHandle:
        """`get_memory_fd` of memory that is in use (for the library itself)."""
        key = verdicts.of_fd(info, holding) if holding.device is self else None
        if key not in self.verdicts:
            facts = tracking.memory_facts(holding)
            self.judged(key, rules.check_get_memory_fd(info, self.facts, facts), "vkGetMemoryFdKHR")
        return operations.exporting.fd_handle(holding, int(info.handle_type))

    def get_memory_win32_handle_properties(
        self, handle_type: HandleType, handle: NtHandle | KmtHandle | int
    ) -> vk.MemoryWin32HandlePropertiesKHR:
        """vkGetMemoryWin32HandlePropertiesKHR: memory types for a handle made outside Vulkan (never an opaque one)."""
        return operations.asking.win32_handle_properties(self, handle_type, handle)

    def get_memory_fd_properties(self, handle_type: HandleType, fd: FdHandle | int) -> vk.MemoryFdPropertiesKHR:
        """vkGetMemoryFdPropertiesKHR: memory types for an fd made outside Vulkan (never an opaque one)."""
        return operations.asking.fd_properties(self, handle_type, fd)

    def get_memory_host_pointer_properties(
        self, handle_type: HandleType, host_pointer: int
    ) -> vk.MemoryHostPointerPropertiesEXT:
        """vkGetMemoryHostPointerPropertiesEXT: memory types that can import this address."""
        return operations.asking.host_pointer_properties(self, handle_type, host_pointer)

    # The everyday door.

    def allocate(
        self,
        shape: int | Sequence[int],
        dtype: object = "uint8",
        *,
        name: str | None = None,
        access: int | None = None,
        security: str | None = None,
        inherit: bool = False,
        handle_types: int | None = None,
        memory_type: int | None = None,
        dedicated: bool | None = None,
    ) -> DeviceMemory:
        """Memory for an array of `shape` (elements) and `dtype`, shareable. The array is zeroed, on every device.

        name: others `extmem.open` it by this; it lives as long as this memory, or any handle or import of it, does.
        access: rights that others get, `Access.READ` or `Access.READ_WRITE` (default): with READ alone nobody but this
            memory object can write.
        security: SDDL for the shared object, instead of what `access` implies. Default: this user alone.
        inherit: handles of it are inherited by children of `extmem.process`.
        handle_types: external types; default OPAQUE_WIN32 | OPAQUE_FD, as far as the device has them.
        memory_type: index; default the first that the host can see. dedicated: None asks the device.
        Errors: NameTakenError, NameInvalidError, OutOfMemoryError, RuleViolation.
        """
        if security is not None and not isinstance(security, str):
            raise TypeError(f"security is {security!r}, a {type(security).__name__}; give SDDL as a str, or None")
        if unsettled:
            work_off()
        with self.use():
            return operations.allocating_arrays.allocate(
                self,
                shape,
                dtype,
                name=name,
                access=access,
                security=security,
                inherit=inherit,
                handle_types=handle_types,
                memory_type=memory_type,
                dedicated=dedicated,
            )

    def open(self, source: str | NtHandle | KmtHandle | FdHandle, *, access: int | None = None) -> DeviceMemory:
        """Memory that somebody shares, by name or handle; see `extmem.open`."""
        if unsettled:
            work_off()
        self.check_open()
        return operations.opening.open_on(self, source, access)

    # Work on the queue.

    def commands(self) -> Commands:
        """Commands for this device's queue: `with device.commands() as commands:` … submitted and done at its end."""
        self.check_open()
        return operations.Commands(self)

    # Bookkeeping.

    def report(self, violations: Sequence[rules.Violation], command: str) -> None:
        """Raise, warn or let pass what the rules found, as `check` says (for the library itself)."""
        if not violations or self.check == "off":
            return
        error = RuleViolation(violations, command=command)
        if self.check == "raise":
            raise error
        warn_caller(str(error))

    def judged(self, key: verdicts.Key | None, violations: Sequence[rules.Violation], command: str) -> None:
        """`report`, and remember the call by its key where it broke nothing (for the library itself)."""
        if violations:
            self.report(violations, command)
        else:
            self.verdicts.note(key)

    def describe(self, size: int, memory_type: int, handle_types: int, dedicated: Resource | None) -> Descriptor:
        """The descriptor of a payload that this device makes, or of one that came without (for the library itself)."""
        if dedicated is not None:
            return operations.allocating_arrays.describe(self, size, memory_type, handle_types, dedicated)
        # It cannot be changed, so all payloads that are alike share it; a forked child's are its own.
        key = (HERE.pid, size, memory_type, handle_types)
        known = self._described.get(key)
        if known is None:
            if len(self._described) >= _DESCRIBED:
                self._described.clear()
            known = self._described[key] = operations.allocating_arrays.describe(
                self, size, memory_type, handle_types, None
            )
        return known

    @property
    def live_allocations(self) -> int:
        """Memory objects that are open (maxMemoryAllocationCount counts imports too)."""
        return len(self.holdings)

    @property
    def has_room(self) -> bool:
        """Whether maxMemoryAllocationCount allows one more."""
        return not self.max_allocations or len(self.holdings) < self.max_allocations

    def check_open(self) -> None:
        """Raises HandleStateError once closed, and in a forked child (for the library itself)."""
        if self.closing or self.pid != HERE.pid:
            raise self.gone()

    def check_process(self) -> None:
        """Raises HandleStateError in a forked child (for the library itself)."""
        if self.pid != HERE.pid:
            raise self.gone()

    def gone(self) -> HandleStateError:
        """See `Held`."""
        if self.pid != HERE.pid:
            return HandleStateError(
                f"the device {self.name} was opened by process {self.pid}, and this is its forked child {HERE.pid}; "
                "open it there with extmem.open_device(), or start children with spawn"
            )
        return HandleStateError(f"the device {self.name} is closed; open it again with extmem.open_device()")

    def hold(self) -> memoryview:
        """See `Held`."""
        hold = memoryview(self._gate)
        if self.closing or self.pid != HERE.pid or not hold.nbytes:
            raise self.gone()
        return hold

    def close(self) -> None:
        """Give the device back, when no other thread uses it any more. Safe to call twice.

        Errors: HandleStateError while memory of it is open; DriverError while commands run that do not end.
        """
        if self.live_allocations and not self.closing:
            if isinstance(self.backend, FinishesLater):
                self.backend.finish_submitted()
            work_off()
            if self.live_allocations:
                raise operations.in_use(self)
        self.end()

    def give_back(self) -> None:
        """See `Held`."""
        self.backend.close()

    def __enter__(self) -> Self:
        self.check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or not self.live_allocations:
            self.close()

    def __dir__(self) -> list[str]:
        # Completion and debuggers read all that is listed here, and this asks the driver.
        return [name for name in super().__dir__() if not (self.closing and name == "memory_properties")]

    def __repr__(self) -> str:
        return f"<Device {self.kind}: {self.name}, {self.uuid.hex()}>"
