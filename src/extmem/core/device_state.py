"""`DeviceState`: an open device, as the operations of this layer take it. `extmem.Device` adds the verbs to it."""

from __future__ import annotations

import abc
import weakref
from typing import TYPE_CHECKING, Any, Literal

from extmem import rules, vk
from extmem.core.caller_warning import warn_caller
from extmem.core.device_facts import device_facts
from extmem.core.open_payloads import Live
from extmem.core.validation_cache import Key, ValidationCache
from extmem.devices.optional_protocols import FinishesLater, ImportsByDescriptor
from extmem.errors import HandleStateError, RuleViolation
from extmem.handles.process_id import current_process
from extmem.owning import Held, Lock, work_off
from extmem.sharing.bounded import Bounded
from extmem.vk.handle_types import MemoryHandleType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from extmem.devices.backend import Backend
    from extmem.devices.resources import NativeResource
    from extmem.devices.types import DeviceIdentity
    from extmem.sharing.descriptor.descriptor import Descriptor

__all__ = ["Check", "DeviceState"]

_ROOM = 512
"""Entries of each cache of a device."""
Check = Literal["raise", "warn", "off"]


class DeviceState(Held, abc.ABC):
    """A device that is open: its backend, what is known of it, and what has been made of it so far.

    Ownership: owns the backend, and closes it when nobody uses the device any more.
    """

    def __init__(self, backend: Backend, *, check: Check = "raise", strict_kmt: bool = False) -> None:
        if check not in ("raise", "warn", "off"):
            raise ValueError(f'check is {check!r}; it takes "raise", "warn" or "off"')
        super().__init__()
        self.backend = backend
        self._kind = backend.kind
        self.pid = current_process.pid
        """The process that opened it; a forked child of that may not use it."""
        self.check: Check = check
        self.strict_kmt = strict_kmt
        """Whether a KMT number dies with its exporter rather than with the payload's last memory object."""
        self.facts = device_facts(backend)
        self.described: ImportsByDescriptor | None = backend if isinstance(backend, ImportsByDescriptor) else None
        """The driver of another API than Vulkan, which imports by a payload's descriptor."""
        self.foreign_type: int | None = None
        """The memory type that this device sees foreign memory as, once it was asked."""
        self.max_allocations = backend.max_memory_allocation_count
        self.buffer_answers: Bounded[tuple[int, int, MemoryHandleType], rules.ExternalMemoryFacts] = Bounded(_ROOM)
        """What buffers of these flags and this usage can do with one handle type."""
        self.sharing: Bounded[MemoryHandleType, Any] = Bounded(_ROOM)
        """What transfer buffers can do with a set of handle types (`rule_facts.Sharing`), by the set."""
        self.numbered: weakref.WeakValueDictionary[tuple[str, int], Any] = weakref.WeakValueDictionary()
        """Buffers and images whose VkBuffer or VkImage others know, by kind and number."""
        self.making = Lock(reentrant=True)
        """Held to find out that something of a memory object or resource is not there yet, and to make it."""
        self.records: set[weakref.ref[Held]] = set()
        """The memory objects that are open. Each takes itself out when it is given back, or lost."""
        self.live = Live()
        self.plain: Bounded[bytes, tuple[Descriptor, int]] = Bounded(_ROOM)
        """Descriptors of this device's payloads that leave nothing to check or to create, parsed, with the memory type
        that it sees such a payload as, by the descriptors' bytes."""
        self.described_payloads: Bounded[tuple[int, int, int, int], Descriptor] = Bounded(_ROOM)
        """Descriptors of its payloads that are not dedicated, by process, size, memory type and handle types."""
        self.validated = ValidationCache(1_024)
        """Calls that broke no rule."""

    @abc.abstractmethod
    def make_buffer(
        self, info: vk.BufferCreateInfo, verdict: Key | None = None, *, native: NativeResource | None = None
    ) -> Any:
        """The object that a program holds of a buffer: a `core.resources.BufferObject` with these arguments."""

    @abc.abstractmethod
    def make_image(
        self,
        info: vk.ImageCreateInfo,
        capabilities: Mapping[MemoryHandleType, rules.ExternalMemoryFacts] | None = None,
        *,
        native: NativeResource | None = None,
    ) -> Any:
        """The object that a program holds of an image: a `core.resources.ImageObject` with these arguments."""

    @property
    def kind(self) -> str:
        """`host`, `vulkan` or `cuda`."""
        return self._kind

    @property
    def identity(self) -> DeviceIdentity:
        """UUIDs, LUID and names (VkPhysicalDeviceIDProperties)."""
        return self.backend.identity

    @property
    def name(self) -> str:
        """The device's name."""
        return self.facts.name

    @property
    def uuid(self) -> bytes:
        """deviceUUID, 16 bytes."""
        return self.facts.device_uuid

    @property
    def live_allocations(self) -> int:
        """Memory objects that are open (maxMemoryAllocationCount counts imports too)."""
        return len(self.records)

    @property
    def has_room(self) -> bool:
        """Whether maxMemoryAllocationCount allows one more."""
        return not self.max_allocations or len(self.records) < self.max_allocations

    def report(self, violations: Sequence[rules.Violation], command: str) -> None:
        """Raise, warn or let pass what the rules found, as `check` says (for the library itself)."""
        if not violations or self.check == "off":
            return
        error = RuleViolation(violations, command=command)
        if self.check == "raise":
            raise error
        warn_caller(str(error))

    def report_or_note(self, key: Key | None, violations: Sequence[rules.Violation], command: str) -> None:
        """`report`, and remember the call by its key where it broke nothing (for the library itself)."""
        if violations:
            self.report(violations, command)
        else:
            self.validated.note(key)

    def check_open(self) -> None:
        """Raises HandleStateError once closed, and in a forked child (for the library itself)."""
        if self.closing or self.pid != current_process.pid:
            raise self.gone()

    def check_process(self) -> None:
        """Raises HandleStateError in a forked child (for the library itself)."""
        if self.pid != current_process.pid:
            raise self.gone()

    def gone(self) -> HandleStateError:
        """See `Held`."""
        if self.pid != current_process.pid:
            return HandleStateError(
                f"the device {self.name} was opened by process {self.pid}, and this is its forked child "
                f"{current_process.pid}; open it there with extmem.open_device(), or start children with spawn"
            )
        return HandleStateError(f"the device {self.name} is closed; open it again with extmem.open_device()")

    def hold(self) -> memoryview:
        """See `Held`."""
        hold = memoryview(self._gate)
        if self.closing or self.pid != current_process.pid or not hold.nbytes:
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
                raise self._in_use()
        self.end()

    def _in_use(self) -> HandleStateError:
        held = [record for watch in tuple(self.records) if (record := watch()) is not None]
        count = sum(not record.closing for record in held)
        if count:
            return HandleStateError(f"{count} memory objects of {self.name} are open; close them first")
        return HandleStateError(
            f"{len(held)} memory objects of {self.name} are closed, and still in use; end the block of commands, or "
            "let go of the arrays and views, that use them first"
        )

    def give_back(self) -> None:
        """See `Held`."""
        self.backend.close()
