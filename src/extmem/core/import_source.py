"""Importing: from the import struct of a pNext chain to the payload behind it.

How this works. `resolve` looks where the struct points (object manager, file descriptor, host pointer) and returns a
`Source`: what was found, or why nothing was. The rules then check the call with the source's facts. Only after that
is the source used (`allocation`); or abandoned, which gives back the reference that resolving took.

This is the one place that hides an asymmetry of the specification: a successful import consumes an fd, and never an
NT handle (`callers_fd`). A failed import touches neither.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from extmem import vk
from extmem.core.caller_fd import CallersFd
from extmem.devices.types import ImportRequest
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
from extmem.rules import PayloadFacts, Refusal
from extmem.sharing.descriptor import Descriptor
from extmem.sharing.kinds import Backing
from extmem.sharing.payload import Win32Payload
from extmem.vk.handle_types import BY_NUMBER, DMA_BUF, FROM_D3D, OPAQUE_WIN32, OPAQUE_WIN32_KMT, MemoryHandleType
from extmem.vk.value_text import types_text

if TYPE_CHECKING:
    from extmem.devices.backend import Allocation, Backend
    from extmem.devices.resources import NativeResource
    from extmem.devices.types import ExaminedFd
    from extmem.owning import Uses

__all__ = [
    "Source",
    "described",
    "found_object",
    "look_at",
    "resolve",
    "resolve_fd",
    "resolve_object",
    "takes_handles",
]

_ALL_GRANTED = int(Access.MAXIMUM_ALLOWED)
_BY_OBJECT = (OPAQUE_WIN32, OPAQUE_WIN32_KMT)
_STATUSES = {int(status): status.name for status in Status}


class Source:
    """Where an import comes from, and what is known of it."""

    # What most sources have in common stands here once; a source keeps what differs. Imports are many.
    name: str | None = None
    value = 0
    """The NT handle or KMT number asked for, 0 for none."""
    descriptor: Descriptor | None = None
    facts: PayloadFacts | None = None
    """What the rules need of the descriptor."""
    refusal: Refusal | None = None
    """The object manager's answer, where a rule says that the handle or name must be valid."""
    error: ExtmemError | None = None
    """What to raise when no rule forbids the call and yet nothing was found."""
    imported: Imported | None = None
    owner: Manager | None = None
    callers: CallersFd | None = None
    """The caller's fd, held."""
    examined: ExaminedFd | None = None
    """The device's answer to what that fd is."""
    fd_is_valid: bool | None = None
    described_by: bytes = b""
    """The descriptor that the facts are from; empty for other facts."""
    fd_payload: FdPayload | None = None
    """The description that came with the caller's `FdHandle`."""
    host_pointer = 0
    writable = True

    def __init__(self, handle_type: MemoryHandleType) -> None:
        self.handle_type = handle_type

    def allocation(
        self, backend: Backend, size: int, memory_type_index: int, dedicated: NativeResource | None
    ) -> Allocation:
        """The device's allocation on a caller's fd, which is not consumed yet, or pointer."""
        if self.examined is None:
            return backend.import_host_pointer(self.host_pointer, size, memory_type_index)
        return backend.import_fd(ImportRequest(self.examined, size, memory_type_index, dedicated))

    def abandon(self) -> None:
        """Give back what resolving took. The caller's handle or fd was never touched."""
        if self.imported is not None:
            self.imported.give_back()
            self.imported = None


def resolve(backend: Backend, link: vk.ChainStruct, uses: Uses, stated: Descriptor | None = None) -> Source | None:
    """Find what a struct of a vkAllocateMemory's chain imports; None where it imports nothing.

    uses: hold the caller's fd from now on. stated: the descriptor of a foreign payload that carries none.
    Never raises for what the rules or the object manager refuse: the source has the error. Errors: HandleStateError for
    a handle object that is closed; UnsupportedError without an object manager.
    """
    if isinstance(link, vk.ImportMemoryWin32HandleInfoKHR) and link.handle_type:
        handle_type = MemoryHandleType(int(link.handle_type))
        return resolve_object(handle_type, link.handle, link.name, _ALL_GRANTED, stated, backend)
    if isinstance(link, vk.ImportMemoryFdInfoKHR) and link.handle_type:
        callers = CallersFd(link.fd, uses) if isinstance(link.fd, (FdHandle, int)) else None
        return resolve_fd(backend, MemoryHandleType(int(link.handle_type)), callers, stated)
    if isinstance(link, vk.ImportMemoryHostPointerInfoEXT) and link.handle_type:
        source = Source(MemoryHandleType(int(link.handle_type)))
        source.host_pointer = link.host_pointer if isinstance(link.host_pointer, int) else 0
        return source
    return None


def resolve_object(
    handle_type: MemoryHandleType,
    handle: object,
    name: str | None,
    desired: int,
    stated: Descriptor | None = None,
    backend: Backend | None = None,
) -> Source:
    """Ask the object manager what a name, NT handle or KMT number leads to, and pin it. `stated`: as `resolve`.

    driver: whose device imports it; one of Windows's takes what other programs made, Direct3D's textures say.
    """
    native = backend is not None and takes_handles(backend)
    value = int(handle) if isinstance(handle, (int, NtHandle, KmtHandle)) else 0
    source = Source(handle_type)
    source.name, source.value = name, value
    if handle_type in FROM_D3D and not native:
        source.error = _of_direct3d(handle_type)
        return source
    known = handle_type in _BY_OBJECT or handle_type in FROM_D3D
    if not known or (name is None) == (not value) or (name is not None and handle_type in BY_NUMBER):
        # A rule says what is wrong with it; with the rules off, this is what a driver would answer.
        source.error = DriverError(
            f"vkAllocateMemory: an import of {types_text(handle_type)} with handle {handle!r} and name {name!r} "
            "leads nowhere; give one of the two, of the type that the exporter made",
            result=vk.Result.ERROR_INVALID_EXTERNAL_HANDLE,
            command="vkAllocateMemory",
        )
        return source
    owner = handle.table if isinstance(handle, NtHandle) and isinstance(handle.table, Manager) else manager()
    try:
        if name is not None:
            imported = owner.import_by_name(name, desired, Reference(owner), of_a_gpu=native)
        else:
            imported = _by_handle(owner, handle_type, handle, native)
    except ObjectManagerError as error:
        source.error = error
        if not isinstance(error, AccessDeniedError):
            source.refusal = _refusal(error)
        return source
    return _pinned(source, owner, imported, stated, backend)


def _refusal(error: ObjectManagerError) -> Refusal:
    return Refusal(_STATUSES.get(error.ntstatus) or f"{error.ntstatus:#010x}", str(error))


def _of_direct3d(handle_type: MemoryHandleType) -> UnsupportedError:
    """Why a type of Direct3D's cannot be imported on a device that takes no handles of other programs."""
    return UnsupportedError(
        f"vkAllocateMemory: {types_text(handle_type)} is Direct3D's, and a Vulkan or CUDA device on Windows alone "
        "imports it; on other devices import what extmem exported (OPAQUE_WIN32, OPAQUE_WIN32_KMT, OPAQUE_FD), or a "
        "DMA_BUF where the driver has that",
        requires_one_of=["a Vulkan or CUDA device on Windows"],
    )


def takes_handles(backend: Backend) -> bool:
    """Whether the device takes NT handles and KMT numbers of other programs (`ImportsHandles`)."""
    return bool(getattr(backend, "imports_handles", False))


def _by_handle(owner: Manager, handle_type: MemoryHandleType, handle: Any, native: bool) -> Imported:
    """Import by NT handle or KMT number. A number that no memory of extmem has may be another program's.

    native: the driver takes such numbers, and checks them.
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


def look_at(backend: Backend, handle_type: object, handle: object) -> Refusal | None:
    """Why a driver must not be asked about a handle (vkGetMemoryWin32HandlePropertiesKHR); None where it may be."""
    if not takes_handles(backend) or not isinstance(handle, (int, NtHandle, KmtHandle)):
        return None
    if not isinstance(handle_type, int):
        return None  # the rules refuse it
    value = int(handle)
    owner = handle.table if isinstance(handle, NtHandle) and isinstance(handle.table, Manager) else manager()
    try:
        imported = _by_handle(owner, MemoryHandleType(int(handle_type)), handle, True)
    except ObjectManagerError as error:
        return _refusal(error)
    imported.give_back()
    if isinstance(imported.payload, Win32Payload):
        return None
    return Refusal(Status.OBJECT_TYPE_MISMATCH.name, str(_not_a_gpu_s(value or None)))


def found_object(
    owner: Manager, imported: Imported, handle_type: MemoryHandleType, name: str | None, value: int
) -> Source:
    """What the object manager gave for a name, handle or number, as the rules want to see it."""
    source = Source(handle_type)
    source.name, source.value = name, value
    return _pinned(source, owner, imported)


def _pinned(
    source: Source,
    owner: Manager,
    imported: Imported,
    stated: Descriptor | None = None,
    backend: Backend | None = None,
) -> Source:
    source.owner, source.imported = owner, imported
    source.writable = imported.payload.writable
    if isinstance(imported.payload, Win32Payload):
        imported.payload.handle_type = source.handle_type
    if stated is not None and not imported.descriptor:
        source.descriptor, source.facts = stated, stated.payload_facts()
        return source
    if not imported.descriptor and backend is not None and backend.payload_backing is not Backing.HOST_FILE:
        if isinstance(imported.payload, Win32Payload):
            _stranger_s(source, imported.payload, backend)
        else:
            _mismatch(source, _not_a_gpu_s(source.value or source.name))
        return source
    if not imported.descriptor and isinstance(imported.payload, Win32Payload):
        _mismatch(
            source,
            error_for(
                Status.OBJECT_TYPE_MISMATCH,
                f"{_said(source.value or source.name)} is a GPU driver's memory, and this device is the host. Import "
                "it on that GPU's Vulkan device.",
            ),
        )
        return source
    try:
        source.descriptor, source.facts = described(imported.descriptor)
        if stated is not None and (problem := _contradiction(stated, imported.descriptor)) is not None:
            source.error, source.facts = problem, None  # the rules would speak of the call, which is as was stated
    except DescriptorError as error:
        source.error = error
    return source


def _stranger_s(source: Source, payload: Win32Payload, backend: Backend) -> None:
    """What is known of memory that another program exported: for Direct3D's, the memory types that may import it."""
    if source.handle_type not in FROM_D3D:
        return  # nobody but the caller knows its size and type; the driver was asked for neither
    try:
        bits = backend.handle_memory_type_bits(source.handle_type, payload.number or payload.fd)
    except ExtmemError as error:
        source.error = error
        return
    source.facts = PayloadFacts(source.handle_type, made_by_vulkan=False, memory_type_bits=bits)


def _mismatch(source: Source, error: ObjectManagerError) -> None:
    source.error = error
    source.refusal = Refusal(Status.OBJECT_TYPE_MISMATCH.name, str(error))


def _not_a_gpu_s(what: int | str | None) -> ObjectManagerError:
    return error_for(
        Status.OBJECT_TYPE_MISMATCH,
        f"{_said(what)} is a section that nobody describes, and no GPU driver's memory. Pass the handle that the "
        "exporter's driver gave; another program's section is imported with extmem.raw.import_payload.",
    )


def _said(what: int | str | None) -> str:
    return f"The handle {what:#x}" if isinstance(what, int) else f"The name {what!r}"


def resolve_fd(
    backend: Backend, handle_type: MemoryHandleType, callers: CallersFd | None, stated: Descriptor | None
) -> Source:
    """Examine a file descriptor: no unproven fd reaches the device. `callers`: None for what is not one."""
    source = Source(handle_type)
    source.callers = callers
    handle = callers.handle if callers is not None else None
    payload = source.fd_payload = handle.payload if handle is not None else None
    fd = callers.owned.fd if callers is not None else -1
    found = backend.examine_fd(fd, source.handle_type, trusted=payload is not None and payload.trusted)
    source.examined, source.fd_is_valid, source.writable = found, not found.problem, found.writable
    if found.problem:
        source.refusal = Refusal("INVALID_EXTERNAL_HANDLE", found.problem)
        source.error = DriverError(
            f"vkAllocateMemory: {found.problem}",
            result=vk.Result.ERROR_INVALID_EXTERNAL_HANDLE,
            command="vkAllocateMemory",
        )
    elif stated is not None:
        source.descriptor, source.facts = stated, stated.payload_facts()
        if payload is not None:
            source.error = _contradiction(stated, payload.descriptor)
    elif payload is not None:
        source.descriptor, source.facts = described(payload.descriptor)
        source.described_by = payload.descriptor
    elif handle_type == DMA_BUF:
        _dma_buf_s(source, fd, backend)
    elif not found.self_describing:
        pass  # nobody but the caller knows; what the device can find out, it proves
    elif not found.descriptor:
        source.error = DescriptorError(
            f"fd {fd} carries no description of its payload ({found.descriptor_problem}); "
            "state size, memory type and device with extmem.raw.import_payload(device, fd, Descriptor(...))"
        )
    else:
        try:
            source.descriptor, source.facts = described(found.descriptor)
            source.described_by = found.descriptor
        except DescriptorError as error:
            source.error = error
    return source


def _dma_buf_s(source: Source, fd: int, backend: Backend) -> None:
    """What is known of a dma-buf, which any driver may have made: the memory types that the device sees it as."""
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


def _contradiction(stated: Descriptor, own: bytes) -> DescriptorError | None:
    """What to raise where a stated description says another thing than the payload's own, which the handle carries.

    Some drivers import with a wrong size or a wrong dedicated flag in silence.
    """
    if not own:
        return None
    told, _ = described(own)
    for what, wrong, right in (
        ("a size of {} bytes", stated.allocation_size, told.allocation_size),
        ("dedicated: {}", stated.dedicated is not None, told.dedicated is not None),
        ("memory type {}", stated.memory_type_index, told.memory_type_index),
        ("device {}", _uuid_text(stated.device_uuid), _uuid_text(told.device_uuid)),
        ("producer {!r}", stated.producer, told.producer),
    ):
        if wrong != right:
            return DescriptorError(
                f"the stated description says {what.format(wrong)}, and the payload's own {what.format(right)}; "
                "omit it (Device.open takes the handle as it is), or state what is true"
            )
    return None


@lru_cache(maxsize=512)
def described(data: bytes) -> tuple[Descriptor, PayloadFacts]:
    """The descriptor in these bytes, and what the rules need of it: shared by all imports of its payload.

    Errors: DescriptorError.
    """
    descriptor = Descriptor.parse(data)
    return descriptor, descriptor.payload_facts()
