"""Importing by file descriptor (VkImportMemoryFdInfoKHR).

A dma-buf may come from any device and driver, so every rule that compares devices leaves it alone; see the notes on
the specification's contradictions.
"""

from __future__ import annotations

from extmem import vk
from extmem.rules import _import_payload
from extmem.rules._allocation import ALLOCATE, Allocation, Traits, chained
from extmem.rules._engine import Finding, rule
from extmem.rules._text import DEFINED_TYPES, DMA_BUF, FD_TYPES, OPAQUE_FD, types_text

__all__: list[str] = []

_HERE = chained(vk.ImportMemoryFdInfoKHR)
_STRUCT = "VkImportMemoryFdInfoKHR"
_ELSEWHERE = Traits.IMPORTS_FD | Traits.PAYLOAD | Traits.ELSEWHERE


@rule(f"{_STRUCT}-handleType-parameter", on=ALLOCATE, needs=Traits.IMPORTS_FD | Traits.ODD_TYPE)
def type_is_defined(call: Allocation) -> Finding | None:
    """Exactly one bit that the registry knows."""
    return _import_payload.single_type(call.fd_type, f"{_HERE}.handle_type")


@rule(f"{_STRUCT}-handleType-00669", on=ALLOCATE, needs=Traits.IMPORTS_FD | Traits.ODD_TYPE)
def type_is_fd(call: Allocation) -> Finding | None:
    """OPAQUE_FD or DMA_BUF; values that are no type at all are the `-parameter` rule's."""
    kind = call.fd_type
    if kind & FD_TYPES == kind or kind not in DEFINED_TYPES:
        return None
    return (
        f"{_HERE}.handle_type",
        f"{types_text(kind)} handles are not file descriptors",
        "Use OPAQUE_FD or DMA_BUF, or the import struct made for that type.",
    )


@rule(f"{_STRUCT}-handleType-00670", on=ALLOCATE, needs=Traits.IMPORTS_FD)
def fd_is_valid(call: Allocation) -> Finding | None:
    """Open, and of the kind that the type asks for."""
    fd = call.fd.fd if call.fd is not None else None
    if isinstance(fd, int) and fd < 0:
        return f"{_HERE}.fd", f"{int(fd)} is no file descriptor", "Give an open file descriptor."
    refusal = call.facts.refusal
    if refusal is not None:
        return (
            f"{_HERE}.fd",
            f"{fd!r} leads to no payload: {refusal.status}: {refusal.detail.rstrip('.')}",
            f"Give an fd that was exported as {types_text(call.fd_type)}.",
        )
    if call.facts.fd_is_valid is False:
        return (
            f"{_HERE}.fd",
            f"{fd!r} is closed, or is not an {types_text(call.fd_type)} descriptor",
            "Give an fd that is open in this process. A successful import consumes it: import a duplicate to keep one.",
        )
    payload = call.payload
    if payload is None or not payload.made_by_vulkan or not payload.handle_types:
        return None
    if int(payload.handle_types) & call.fd_type:
        return None
    return (
        f"{_HERE}.fd",
        f"its payload was exported as {types_text(int(payload.handle_types))}, not {types_text(call.fd_type)}",
        f"Import it as {types_text(int(payload.handle_types))}.",
    )


@rule(f"{_STRUCT}-handleType-09862", on=ALLOCATE, needs=Traits.IMPORTS_FD)
def type_is_importable(call: Allocation) -> Finding | None:
    """As the device answered for the dedicated resource, else for a transfer buffer."""
    return _import_payload.importable(call, f"{_HERE}.handle_type")


@rule(f"{_STRUCT}-fd-00668", on=ALLOCATE, needs=_ELSEWHERE)
def same_physical_device(call: Allocation) -> Finding | None:
    """The sentence has no exception for dma-bufs, the table of compatibility has; the table wins."""
    return None if call.fd_type == DMA_BUF else _import_payload.same_device(call, f"{_HERE}.fd")


@rule(f"{_STRUCT}-fd-01746", f"{_STRUCT}-fd-01520", on=ALLOCATE, needs=_ELSEWHERE)
def uuids_match(call: Allocation) -> Finding | None:
    """Two rules with one meaning: OPAQUE_FD wants both UUIDs to match, DMA_BUF neither."""
    return None if call.fd_type == DMA_BUF else _import_payload.same_uuids(call, f"{_HERE}.fd")


@rule("VkMemoryAllocateInfo-allocationSize-01742", on=ALLOCATE, needs=Traits.IMPORTS_FD | Traits.OUR_PAYLOAD)
def size_and_type_are_the_exporters(call: Allocation) -> Finding | None:
    """Opaque payloads keep the size and memory type of their allocation; a dma-buf may be seen otherwise."""
    return _import_payload.same_size_and_type(call) if call.fd_type == OPAQUE_FD else None


@rule("VkMemoryAllocateInfo-memoryTypeIndex-00648", on=ALLOCATE, needs=Traits.IMPORTS_FD | Traits.FOREIGN_PAYLOAD)
def memory_type_suits_the_fd(call: Allocation) -> Finding | None:
    """Foreign descriptors come with a set of memory types that the device can see them as."""
    return _import_payload.allowed_type(call, "vkGetMemoryFdPropertiesKHR")
