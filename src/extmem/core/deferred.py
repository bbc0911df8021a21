"""Payloads that are opened before they are imported, or before their device is: `DeferredImport`, `DeferredBackend`.

How this works. To open a VkDevice takes a tenth of a second and more, and a program that wants a tensor of CUDA never
uses it. So `extmem.open`, which chooses the device itself, makes a `DeviceState` that knows the UUID and the name of
the device from the descriptor of the payload, and how to open it. Its memory record has the payload, and no allocation.
The first use of `DeviceState.backend` opens the device, and the first use of `MemoryRecord.allocation` imports the
payload: both attributes are missing until then, so that neither costs anything afterwards. CUDA imports the payload by
its handle and its descriptor (`interop.gpu_arrays`), without either.

A payload of a CUDA device is imported at its first use, too, on a device that is open: for the driver, mapping takes
longer than all else that opening does, and who only waits for the memory, reads its table or passes it on does not need
it. Nothing is left to be checked then but what the driver finds.

What opening would refuse, a device that this machine does not have or a descriptor that cannot be true, is raised by
that first use, and by each further one.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from extmem import rules
from extmem.devices.types import ImportRequest
from extmem.sharing.payload import Win32Payload
from extmem.vk.handle_types import OPAQUE_FD, MemoryHandleType

if TYPE_CHECKING:
    from extmem.devices.backend import Backend
    from extmem.manager import Imported
    from extmem.sharing.descriptor import Descriptor
    from extmem.sharing.payload import PayloadFd

__all__ = ["DeferredBackend", "DeferredByDescriptor", "DeferredCheck", "DeferredImport"]


class Dedicated(Protocol):
    """A buffer or image that memory is dedicated to (`resources.ResourceObject`)."""

    @property
    def native(self) -> Any:
        """The device's object."""

    @property
    def facts(self) -> rules.ResourceFacts:
        """Its facts, for the rules."""

    @property
    def closed(self) -> bool:
        """Whether it is destroyed."""

    def close(self) -> None:
        """Destroy it."""


class Incomplete(Protocol):
    """A memory record without an allocation (`memory_record.MemoryRecord`)."""

    device: Any
    descriptor: Descriptor
    size: int
    deferred: DeferredImport | None

    def imported_as(self, allocation: Any, dedicated: Dedicated | None) -> None:
        """Set what it lacks. It owns both from then on."""


class DeferredBackend:
    """A device that is opened when something needs it."""

    __slots__ = ("kind", "name", "open", "uuid")
    opens_later = True
    """By which a `DeviceState` tells it from a backend, without the import of this module."""

    def __init__(self, kind: str, uuid: bytes, name: str, opens: Callable[[], Backend]) -> None:
        self.kind = kind
        self.uuid = uuid
        self.name = name
        self.open = opens
        """Opens it. Errors: UnsupportedError, DriverError."""


class DeferredImport(abc.ABC):
    """The import of a payload at its first use. Ownership: the record owns the payload until it is imported."""

    __slots__ = ("_imported",)

    def __init__(self, imported: Imported) -> None:
        self._imported = imported

    @property
    def payload(self) -> PayloadFd:
        """The payload."""
        return self._imported.payload

    @property
    def handle(self) -> tuple[int, MemoryHandleType]:
        """A handle of the payload, borrowed, and its handle type."""
        payload = self.payload
        if isinstance(payload, Win32Payload):
            return payload.number or payload.fd, payload.handle_type
        return payload.fd, OPAQUE_FD

    def complete(self, record: Incomplete) -> None:
        """Import the payload; set what the record lacks. Errors: as the import; nothing has changed then."""
        with record.device.creation_lock:
            if record.deferred is not None:  # else another thread has just imported it
                self._complete(record)

    @abc.abstractmethod
    def _complete(self, record: Incomplete) -> None:
        """Import it, for `complete`."""


class DeferredByDescriptor(DeferredImport):
    """The import of a payload at its first use, on an open device that imports by descriptor."""

    __slots__ = ("_import_object",)

    def __init__(self, imported: Imported, import_object: Callable[[Any, Imported, Descriptor], Any]) -> None:
        """import_object: `cross_api.import_object`."""
        self._imported = imported  # without `super()`: each open creates one
        self._import_object = import_object

    def _complete(self, record: Incomplete) -> None:
        importer = record.device.descriptor_importer
        record.imported_as(self._import_object(importer, self._imported, record.descriptor), None)


class DeferredCheck(DeferredImport):
    """The check and the import of a payload at its first use, on a device that has memory types and is not open."""

    __slots__ = ("_check", "_keep")

    def __init__(
        self, imported: Imported, check: Callable[[], tuple[int, Any]], keep: Callable[[Any, Any], None]
    ) -> None:
        """check: checks the payload on its device. Returns the memory type, and the recreated dedicated resource.

        keep: stores that resource in the record.
        """
        super().__init__(imported)
        self._check = check
        self._keep = keep

    def _complete(self, record: Incomplete) -> None:
        memory_type, dedicated = self._check()
        native = dedicated.native if dedicated is not None else None
        request = ImportRequest(self.payload, record.size, memory_type, native, identity=self._imported.identity)
        try:
            allocation = record.device.backend.import_payload(request)
        except BaseException:
            if dedicated is not None:
                dedicated.close()
            raise
        record.imported_as(allocation, dedicated)
        if dedicated is not None:
            self._keep(record, dedicated)
