"""`DeviceState`: an open device, as the operations of this layer take it. `extmem.Device` adds the methods."""

from __future__ import annotations

import abc
import weakref
from typing import TYPE_CHECKING, Any, Literal, cast

from extmem import rules, vk
from extmem.arguments import CheckedWhenMade, check_flag
from extmem.core.device_facts import device_facts
from extmem.core.open_payloads import OpenPayloads
from extmem.core.validation_cache import Key, ValidationCache
from extmem.devices.optional_protocols import FinishesLater, ImportsByDescriptor
from extmem.errors import HandleStateError, RuleViolation
from extmem.handles.process_id import current_process
from extmem.owning import Held, Lock, late_imports, work_off
from extmem.sharing.bounded import Bounded
from extmem.vk.handle_types import MemoryHandleType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from extmem.core.deferred import DeferredBackend
    from extmem.devices.backend import Backend
    from extmem.devices.resources import NativeResource
    from extmem.devices.sync import SyncBackend
    from extmem.devices.types import DeviceIdentity
    from extmem.sharing.descriptor.descriptor import Descriptor

__all__ = ["Check", "DeviceState"]

_ROOM = 512
"""Entries of each cache of a device."""
Check = Literal["raise", "warn", "off"]


class DeviceState(CheckedWhenMade, Held, abc.ABC):
    """An open device: its backend, the facts that the backend reported, and the objects that were created on it.

    Ownership: owns the backend, and closes it after the last use of the device.
    """

    backend: Backend
    facts: rules.DeviceFacts
    max_allocations: int
    _made_by = "extmem.open_device(…)"

    @classmethod
    def _is_from_library(cls, given: tuple[Any, ...]) -> bool:
        # Backends have no class in common.
        return len(given) == 1 and (hasattr(given[0], "memory_properties") or hasattr(given[0], "opens_later"))

    def __init__(self, backend: Backend | DeferredBackend, *, check: Check = "raise", strict_kmt: bool = False) -> None:
        if check not in ("raise", "warn", "off"):
            raise ValueError(f'check is {check!r}; it takes "raise", "warn" or "off"')
        check_flag(strict_kmt, "strict_kmt")
        super().__init__()
        self.pid = current_process.pid
        """The process that opened it; a forked child of that process may not use it."""
        self.check: Check = check
        self.strict_kmt = strict_kmt
        """Whether a KMT number ends with its exporter rather than with the payload's last memory object."""
        self.descriptor_importer: ImportsByDescriptor | None = None
        """The backend, if it is of an API other than Vulkan and imports by a payload's descriptor; else None."""
        self.foreign_memory_type: int | None = None
        """The memory type under which this device imports memory of another API; None until the first such import."""
        self.buffer_capabilities: Bounded[tuple[int, int, MemoryHandleType], rules.ExternalMemoryFacts] = Bounded(_ROOM)
        """What the device supports for one handle type, by buffer flags, buffer usage and handle type."""
        self.sharing: Bounded[MemoryHandleType, Any] = Bounded(_ROOM)
        """What the device supports for transfer buffers (`rule_facts.Sharing`), by the set of handle types."""
        self.resources_by_handle: weakref.WeakValueDictionary[tuple[str, int], Any] = weakref.WeakValueDictionary()
        """Buffers and images whose VkBuffer or VkImage was passed in or out, by resource kind and number."""
        self.creation_lock = Lock(reentrant=True)
        """Held while a part of a memory object or resource is looked up and, if it does not exist yet, created."""
        self.records: set[weakref.ref[Held]] = set()
        """References to the open memory objects. Each is removed when its record is released or garbage-collected."""
        self.sync_records: set[weakref.ref[Held]] = set()
        """As `records`, of the semaphores and fences."""
        self.sync_facts: rules.SyncDeviceFacts | None = None
        """What the device supports of semaphores and fences; None until the first of them is created or imported."""
        self.sync_backend: SyncBackend | None = None
        """The backend, if it has semaphores and fences; None until it was asked."""
        self.open_payloads = OpenPayloads()
        self.simple_payloads: Bounded[bytes, tuple[Descriptor, int]] = Bounded(_ROOM)
        """Parsed descriptors and the memory types to import their payloads with, by the descriptors' bytes: of payloads
        for which there is nothing to check and nothing to create."""
        self.descriptors: Bounded[tuple[int, int, int, int], Descriptor] = Bounded(_ROOM)
        """Descriptors of payloads that are not dedicated, by process, size, memory type and handle types."""
        self.validated = ValidationCache(1_024)
        """Calls that passed validation."""
        self.deferred: DeferredBackend | None = None
        """What opens the backend; None once it is open. It is not of an API that imports by descriptor."""
        if hasattr(backend, "opens_later"):
            self.deferred = cast("DeferredBackend", backend)
        else:
            self._opened(backend)

    def _opened(self, backend: Backend) -> None:
        self.facts = device_facts(backend)
        self.max_allocations = backend.max_memory_allocation_count
        self.descriptor_importer = backend if isinstance(backend, ImportsByDescriptor) else None
        self.backend = backend
        self.deferred = None

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            # Called for missing attributes alone: those of a backend that is not open yet.
            if name not in ("backend", "facts", "max_allocations") or "deferred" not in self.__dict__:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            with self.creation_lock:
                if self.deferred is not None:
                    self.check_open()
                    backend = self.deferred.open()
                    try:
                        self._opened(backend)
                    except BaseException:
                        backend.close()
                        raise
            return self.__dict__[name]

    @abc.abstractmethod
    def make_buffer(
        self, info: vk.BufferCreateInfo, validation_key: Key | None = None, *, native: NativeResource | None = None
    ) -> Any:
        """Return the object that represents a buffer to the program: a `BufferObject` with these arguments."""

    @abc.abstractmethod
    def make_image(
        self,
        info: vk.ImageCreateInfo,
        capabilities: Mapping[MemoryHandleType, rules.ExternalMemoryFacts] | None = None,
        *,
        native: NativeResource | None = None,
    ) -> Any:
        """Return the object that represents an image to the program: an `ImageObject` with these arguments."""

    @property
    def kind(self) -> str:
        """`host`, `vulkan` or `cuda`."""
        deferred = self.deferred
        return self.backend.kind if deferred is None else deferred.kind

    @property
    def identity(self) -> DeviceIdentity:
        """UUIDs, LUID and names (VkPhysicalDeviceIDProperties)."""
        return self.backend.identity

    @property
    def name(self) -> str:
        """The device's name."""
        deferred = self.deferred
        return self.facts.name if deferred is None else deferred.name

    @property
    def uuid(self) -> bytes:
        """deviceUUID, 16 bytes."""
        deferred = self.deferred
        return self.facts.device_uuid if deferred is None else deferred.uuid

    @property
    def live_allocations(self) -> int:
        """Number of open memory objects (maxMemoryAllocationCount counts imports too)."""
        return len(self.records)

    @property
    def has_room(self) -> bool:
        """Whether maxMemoryAllocationCount permits one more."""
        return not self.max_allocations or len(self.records) < self.max_allocations

    def report(self, violations: Sequence[rules.Violation], command: str) -> None:
        """Raise the violations, warn of them or ignore them, depending on `check` (for the library itself)."""
        if not violations or self.check == "off":
            return
        error = RuleViolation(violations, command=command)
        if self.check == "raise":
            raise error
        with late_imports():
            from extmem.core.caller_warning import warn_caller

        warn_caller(str(error))

    def report_or_note(self, key: Key | None, violations: Sequence[rules.Violation], command: str) -> None:
        """Report the violations; if there are none, add the call's key to `validated` (for the library itself)."""
        if violations:
            self.report(violations, command)
        else:
            self.validated.note(key)

    def check_open(self) -> None:
        """Raise HandleStateError once closed, and in a forked child (for the library itself)."""
        if self.closing or self.pid != current_process.pid:
            raise self.gone()

    def check_process(self) -> None:
        """Raise HandleStateError in a forked child (for the library itself)."""
        if self.pid != current_process.pid:
            raise self.gone()

    def gone(self) -> HandleStateError:
        """See `Held`."""
        if self.pid != current_process.pid:
            return HandleStateError(
                f"the device {self.name} was opened by process {self.pid}, and this is its forked child "
                f"{current_process.pid}; open it in the child with extmem.open_device(), or start children with spawn"
            )
        return HandleStateError(f"the device {self.name} is closed; open it again with extmem.open_device()")

    def hold(self) -> memoryview:
        """See `Held`."""
        hold = memoryview(self._gate)
        if self.closing or self.pid != current_process.pid or not hold.nbytes:
            raise self.gone()
        return hold

    def close(self) -> None:
        """Release the device, as soon as no other thread uses it. Safe to call twice.

        Errors: HandleStateError while memory, semaphores or fences of it are open; DriverError while commands run that
        do not end.
        """
        if (self.records or self.sync_records) and not self.closing:
            if self.deferred is None and isinstance(self.backend, FinishesLater):
                self.backend.finish_submitted()
            work_off()
            if self.records:
                raise self._in_use()
            if self.sync_records:
                raise self._sync_in_use()
        self.end()

    def _sync_in_use(self) -> HandleStateError:
        held = [record for watch in tuple(self.sync_records) if (record := watch()) is not None]
        count = sum(not record.closing for record in held)
        if count:
            return HandleStateError(f"{count} semaphores or fences of {self.name} are open; close them first")
        return HandleStateError(
            f"{len(held)} semaphores or fences of {self.name} are closed, and still in use; signal what submitted work "
            "and waits of other threads wait for, and close the device afterwards"
        )

    def _in_use(self) -> HandleStateError:
        held = [record for watch in tuple(self.records) if (record := watch()) is not None]
        count = sum(not record.closing for record in held)
        if count:
            return HandleStateError(f"{count} memory objects of {self.name} are open; close them first")
        return HandleStateError(
            f"{len(held)} memory objects of {self.name} are closed, and still in use; end the block of commands that "
            "uses them, and delete the arrays and views of them"
        )

    def give_back(self) -> None:
        """See `Held`."""
        if self.deferred is None:
            self.backend.close()
