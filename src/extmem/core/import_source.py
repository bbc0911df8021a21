"""Importing: from the import struct of a pNext chain to the payload that it refers to.

How this works. `resolve` follows the struct (to the object manager, a file descriptor or a host pointer) and returns a
`Source`: what it found, or the error. The rules then check the call with the source's facts. Only after that is the
source used (`allocation`). Otherwise it is abandoned, which releases the reference that `resolve` took.

The rest of the library does not see an asymmetry of the specification: a successful import consumes an fd, and never an
NT handle (`caller_fd`). A failed import consumes neither.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from extmem import vk
from extmem.core.caller_fd import CallerFd
from extmem.devices.backend import Allocation, Backend
from extmem.devices.resources import NativeResource
from extmem.devices.types import ExaminedFd, ImportRequest
from extmem.errors import (
    AccessDeniedError,
    DescriptorError,
    DriverError,
    ExtmemError,
    InvalidHandleError,
    ObjectManagerError,
    UnsupportedError,
)
from extmem.handles import Access, FdHandle, KmtHandle, NtHandle
from extmem.handles.fd_payload import FdPayload
from extmem.manager import Imported, Manager, Reference, manager
from extmem.objects import Status, error_for
from extmem.owning import LateModule, Uses
from extmem.rules import PayloadFacts, Refusal
from extmem.sharing.descriptor import Descriptor
from extmem.sharing.kinds import Backing
from extmem.sharing.payload import Win32Payload
from extmem.vk.handle_types import BY_NUMBER, DMA_BUF, FROM_D3D, OPAQUE_WIN32, OPAQUE_WIN32_KMT, MemoryHandleType

if TYPE_CHECKING:
    from extmem.vk import value_text
else:
    value_text = LateModule(globals(), "extmem.vk.value_text")

__all__ = [
    "Source",
    "handle_refusal",
    "parse_descriptor",
    "resolve",
    "resolve_fd",
    "set_payload",
    "takes_handles",
]

_ALL_GRANTED = int(Access.MAXIMUM_ALLOWED)
_BY_OBJECT = (OPAQUE_WIN32, OPAQUE_WIN32_KMT)
_STATUSES = {int(status): status.name for status in Status}


class Source:
    """The source of an import, and the facts about it."""

    # The values that most sources have are class attributes, because imports are many; a source stores what differs.
    descriptor: Descriptor | None = None
    facts: PayloadFacts | None = None
    """The facts of the payload for the rules, from its descriptor."""
    refusal: Refusal | None = None
    """The refusal of the object manager, for the rules that require a valid handle or name."""
    error: ExtmemError | None = None
    """The error to raise if no rule forbids the call, but there is nothing to import."""
    imported: Imported | None = None
    owner: Manager | None = None
    caller_fd: CallerFd | None = None
    """The caller's fd, held."""
    examined: ExaminedFd | None = None
    """The result of the device's check of that fd."""
    fd_is_valid: bool | None = None
    descriptor_bytes: bytes = b""
    """The encoded descriptor that the facts are from; empty for other facts."""
    fd_payload: FdPayload | None = None
    """The payload of the caller's `FdHandle`."""
    host_pointer = 0
    writable = True

    def __init__(self, handle_type: MemoryHandleType, name: str | None = None, value: int = 0) -> None:
        self.handle_type = handle_type
        self.name = name
        self.value = value
        """The NT handle or KMT number; 0 for none."""

    def allocation(
        self, backend: Backend, size: int, memory_type_index: int, dedicated: NativeResource | None
    ) -> Allocation:
        """Import a caller's fd, which is not consumed yet, or a host pointer; return the device's allocation."""
        if self.examined is None:
            return backend.import_host_pointer(self.host_pointer, size, memory_type_index)
        return backend.import_fd(ImportRequest(self.examined, size, memory_type_index, dedicated))

    def abandon(self) -> None:
        """Release what resolving took. The caller's handle or fd has not changed."""
        if self.imported is not None:
            self.imported.give_back()
            self.imported = None


def resolve(
    backend: Backend, link: vk.ChainStruct, uses: Uses, stated_descriptor: Descriptor | None = None
) -> Source | None:
    """Find the source of an import struct in the chain of a vkAllocateMemory; return None for any other struct.

    uses: hold the caller's fd from now on. stated_descriptor: the one that the caller states, of a foreign payload that
        carries none.
    What the rules or the object manager refuse is not raised: it is the error of the source. Errors: HandleStateError
    for a handle object that is closed; UnsupportedError without an object manager.
    """
    if isinstance(link, vk.ImportMemoryWin32HandleInfoKHR) and link.handle_type:
        return _resolve_object(backend, link, stated_descriptor)
    if isinstance(link, vk.ImportMemoryFdInfoKHR) and link.handle_type:
        caller_fd = CallerFd(link.fd, uses) if isinstance(link.fd, (FdHandle, int)) else None
        return resolve_fd(backend, MemoryHandleType(int(link.handle_type)), caller_fd, stated_descriptor)
    if isinstance(link, vk.ImportMemoryHostPointerInfoEXT) and link.handle_type:
        source = Source(MemoryHandleType(int(link.handle_type)))
        source.host_pointer = link.host_pointer if isinstance(link.host_pointer, int) else 0
        return source
    return None


def _resolve_object(
    backend: Backend, link: vk.ImportMemoryWin32HandleInfoKHR, stated_descriptor: Descriptor | None
) -> Source:
    """Import a name, NT handle or KMT number through the object manager. Parameters: as for `resolve`."""
    handle_type, handle, name = MemoryHandleType(int(link.handle_type)), link.handle, link.name
    native = takes_handles(backend)
    value = int(handle) if isinstance(handle, (int, NtHandle, KmtHandle)) else 0
    source = Source(handle_type, name, value)
    if handle_type in FROM_D3D and not native:
        source.error = UnsupportedError(
            f"vkAllocateMemory: {value_text.types_text(handle_type)} is a handle type of Direct3D, which only a Vulkan "
            "or CUDA device on Windows imports; on other devices import what extmem exported (OPAQUE_WIN32, "
            "OPAQUE_WIN32_KMT, OPAQUE_FD), or a DMA_BUF if the driver supports that",
            requires_one_of=["a Vulkan or CUDA device on Windows"],
        )
        return source
    importable = handle_type in _BY_OBJECT or handle_type in FROM_D3D
    if not importable or (name is None) == (not value) or (name is not None and handle_type in BY_NUMBER):
        # A rule reports what is wrong with it; with the rules off, this is the result that a driver would return.
        source.error = DriverError(
            f"vkAllocateMemory: handle {handle!r} and name {name!r} do not refer to a payload of type "
            f"{value_text.types_text(handle_type)}; give one of the two, of the type that the exporter made",
            result=vk.Result.ERROR_INVALID_EXTERNAL_HANDLE,
            command="vkAllocateMemory",
        )
        return source
    owner = handle.table if isinstance(handle, NtHandle) and isinstance(handle.table, Manager) else manager()
    try:
        if name is not None:
            imported = owner.import_by_name(name, _ALL_GRANTED, Reference(owner), of_a_gpu=native)
        else:
            imported = _import_handle(owner, handle_type, handle, native)
    except ObjectManagerError as error:
        source.error = error
        if not isinstance(error, AccessDeniedError):
            source.refusal = _refusal(error)
        return source
    set_payload(source, owner, imported, stated_descriptor, backend)
    return source


def _refusal(error: ObjectManagerError) -> Refusal:
    return Refusal(_STATUSES.get(error.ntstatus) or f"{error.ntstatus:#010x}", str(error))


def takes_handles(backend: Backend) -> bool:
    """Return whether the device imports NT handles and KMT numbers of other programs (`ImportsHandles`)."""
    return bool(getattr(backend, "imports_handles", False))


def _import_handle(owner: Manager, handle_type: MemoryHandleType, handle: Any, native: bool) -> Imported:
    """Import by NT handle or KMT number. A number that does not belong to extmem may be another program's.

    native: the driver imports and checks such numbers.
    """
    reference = Reference(owner)
    if handle_type not in BY_NUMBER:
        with owner.lock:
            return owner.import_by_handle(int(handle), reference)
    try:
        return owner.import_by_kmt(int(handle), reference)
    except InvalidHandleError:
        if not native:
            raise
        return owner.import_stranger(int(handle), reference)


def handle_refusal(backend: Backend, handle_type: object, handle: object) -> Refusal | None:
    """Return why a handle must not be passed to the driver (vkGetMemoryWin32HandlePropertiesKHR); None if it may be."""
    if not takes_handles(backend) or not isinstance(handle, (int, NtHandle, KmtHandle)):
        return None
    if not isinstance(handle_type, int):
        return None  # the rules refuse it
    owner = handle.table if isinstance(handle, NtHandle) and isinstance(handle.table, Manager) else manager()
    try:
        imported = _import_handle(owner, MemoryHandleType(int(handle_type)), handle, True)
    except ObjectManagerError as error:
        return _refusal(error)
    imported.give_back()
    if isinstance(imported.payload, Win32Payload):
        return None
    return Refusal(Status.OBJECT_TYPE_MISMATCH.name, str(_not_gpu_memory(int(handle) or None)))


def set_payload(
    source: Source,
    owner: Manager,
    imported: Imported,
    stated_descriptor: Descriptor | None = None,
    backend: Backend | None = None,
) -> None:
    """Set the source to a payload that the object manager returned, with its facts.

    stated_descriptor: as for `resolve`. backend: None if the payload has a descriptor.
    """
    source.owner, source.imported = owner, imported
    source.writable = imported.payload.writable
    payload = imported.payload if isinstance(imported.payload, Win32Payload) else None
    if payload is not None:
        payload.handle_type = source.handle_type
    if imported.descriptor:
        _set_descriptor(source, imported.descriptor)
        if stated_descriptor is not None and source.error is None:
            source.error = _contradiction(stated_descriptor, imported.descriptor)
            if source.error is not None:
                source.facts = None  # the rules would compare the call with a descriptor that it does not state
    elif stated_descriptor is not None:
        source.descriptor, source.facts = stated_descriptor, stated_descriptor.payload_facts()
    elif backend is not None and backend.payload_backing is not Backing.HOST_FILE:
        if payload is not None:
            _set_foreign_facts(source, payload, backend)
        else:
            _set_type_mismatch(source, _not_gpu_memory(source.value or source.name))
    elif payload is not None:
        text = (
            f"{_handle_or_name(source.value or source.name)} is memory of a GPU driver, and this device is the host. "
            "Import it on that GPU's Vulkan device."
        )
        _set_type_mismatch(source, error_for(Status.OBJECT_TYPE_MISMATCH, text))
    else:
        _set_descriptor(source, b"")


def _set_descriptor(source: Source, data: bytes) -> None:
    try:
        source.descriptor, source.facts = parse_descriptor(data)
        source.descriptor_bytes = data
    except DescriptorError as error:
        source.error = error


def _set_foreign_facts(source: Source, payload: Win32Payload, backend: Backend) -> None:
    """Set the facts of memory that another program exported: for Direct3D, the memory types that can import it."""
    if source.handle_type not in FROM_D3D:
        return  # only the caller knows its size and type; the driver has no query for either
    try:
        bits = backend.handle_memory_type_bits(source.handle_type, payload.number or payload.fd)
    except ExtmemError as error:
        source.error = error
        return
    source.facts = PayloadFacts(source.handle_type, made_by_vulkan=False, memory_type_bits=bits)


def _set_type_mismatch(source: Source, error: ObjectManagerError) -> None:
    source.error = error
    source.refusal = Refusal(Status.OBJECT_TYPE_MISMATCH.name, str(error))


def _not_gpu_memory(handle: int | str | None) -> ObjectManagerError:
    return error_for(
        Status.OBJECT_TYPE_MISMATCH,
        f"{_handle_or_name(handle)} is a section without a descriptor, and not memory of a GPU driver. Pass the handle "
        "that the exporter's driver returned; another program's section is imported with extmem.raw.import_payload.",
    )


def _handle_or_name(handle: int | str | None) -> str:
    return f"The handle {handle:#x}" if isinstance(handle, int) else f"The name {handle!r}"


def resolve_fd(
    backend: Backend, handle_type: MemoryHandleType, caller_fd: CallerFd | None, stated_descriptor: Descriptor | None
) -> Source:
    """Examine a file descriptor: no fd reaches the driver unchecked. caller_fd: None for a value that is not an fd."""
    source = Source(handle_type)
    source.caller_fd = caller_fd
    handle = caller_fd.handle if caller_fd is not None else None
    payload = source.fd_payload = handle.payload if handle is not None else None
    fd = caller_fd.owned.fd if caller_fd is not None else -1
    examined = backend.examine_fd(fd, source.handle_type, trusted=payload is not None and payload.trusted)
    source.examined, source.fd_is_valid, source.writable = examined, not examined.problem, examined.writable
    if examined.problem:
        source.refusal = Refusal("INVALID_EXTERNAL_HANDLE", examined.problem)
        source.error = DriverError(
            f"vkAllocateMemory: {examined.problem}",
            result=vk.Result.ERROR_INVALID_EXTERNAL_HANDLE,
            command="vkAllocateMemory",
        )
    elif stated_descriptor is not None:
        source.descriptor, source.facts = stated_descriptor, stated_descriptor.payload_facts()
        if payload is not None:
            source.error = _contradiction(stated_descriptor, payload.descriptor)
    elif payload is not None:
        source.descriptor, source.facts = parse_descriptor(payload.descriptor)
        source.descriptor_bytes = payload.descriptor
    elif handle_type == DMA_BUF:
        _set_dma_buf_facts(source, fd, backend)
    elif not examined.self_describing:
        pass  # only the caller knows its size and type; the device checks what it can
    elif not examined.descriptor:
        source.error = DescriptorError(
            f"fd {fd} carries no description of its payload ({examined.descriptor_problem}); "
            "state size, memory type and device with extmem.raw.import_payload(device, fd, Descriptor(...))"
        )
    else:
        _set_descriptor(source, examined.descriptor)
    return source


def _set_dma_buf_facts(source: Source, fd: int, backend: Backend) -> None:
    """Set the facts of a dma-buf, which any driver may have made: the memory types with which it can be imported."""
    try:
        bits = backend.fd_memory_type_bits(source.handle_type, fd)
    except DriverError as error:
        if error.result != vk.Result.ERROR_INVALID_EXTERNAL_HANDLE:
            raise
        source.fd_is_valid, source.error = False, error
        source.refusal = Refusal("INVALID_EXTERNAL_HANDLE", str(error))
        return
    source.facts = PayloadFacts(source.handle_type, made_by_vulkan=False, memory_type_bits=bits)


def _uuid_text(uuid: bytes | None) -> str:
    return uuid.hex() if uuid else "none"


def _contradiction(stated_descriptor: Descriptor, data: bytes) -> DescriptorError | None:
    """Return the error for a stated descriptor that differs from the payload's own descriptor, if it carries one.

    Some drivers import with a wrong size or a wrong dedicated flag without an error.
    """
    if not data:
        return None
    actual, _ = parse_descriptor(data)
    for field, wrong, right in (
        ("a size of {} bytes", stated_descriptor.allocation_size, actual.allocation_size),
        ("dedicated: {}", stated_descriptor.dedicated is not None, actual.dedicated is not None),
        ("memory type {}", stated_descriptor.memory_type_index, actual.memory_type_index),
        ("device {}", _uuid_text(stated_descriptor.device_uuid), _uuid_text(actual.device_uuid)),
        ("producer {!r}", stated_descriptor.producer, actual.producer),
    ):
        if wrong != right:
            return DescriptorError(
                f"the stated description has {field.format(wrong)}, and the payload's own has {field.format(right)}; "
                "omit it (Device.open needs the handle only), or state the actual values"
            )
    return None


@lru_cache(maxsize=512)
def parse_descriptor(data: bytes) -> tuple[Descriptor, PayloadFacts]:
    """Parse a descriptor. Return it and its facts for the rules; all imports of one payload share the result.

    Errors: DescriptorError.
    """
    descriptor = Descriptor.parse(data)
    return descriptor, descriptor.payload_facts()
