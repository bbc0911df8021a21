"""Importing by file descriptor (VkImportMemoryFdInfoKHR).

A dma-buf may come from any device and driver, so the rules that compare devices do not apply to it; see
docs/design/0001-contradictions-in-the-specification.md.
"""

from __future__ import annotations

from extmem import vk
from extmem.rules import _import_payload
from extmem.rules._allocation import ALLOCATE, Allocation, Traits, chained
from extmem.rules._engine import Finding, rule
from extmem.rules._text import DEFINED_TYPES, DMA_BUF, FD_TYPES, OPAQUE_FD, types_text

__all__: list[str] = []

_PATH = chained(vk.ImportMemoryFdInfoKHR)
_STRUCT = "VkImportMemoryFdInfoKHR"
_ELSEWHERE = Traits.IMPORTS_FD | Traits.PAYLOAD | Traits.ELSEWHERE


@rule(f"{_STRUCT}-handleType-parameter", on=ALLOCATE, needs=Traits.IMPORTS_FD | Traits.ODD_TYPE)
def type_is_defined(call: Allocation) -> Finding | None:
    """The handle type is exactly one bit that the registry defines."""
    return _import_payload.single_type(call.fd_type, f"{_PATH}.handle_type")


@rule(f"{_STRUCT}-handleType-00669", on=ALLOCATE, needs=Traits.IMPORTS_FD | Traits.ODD_TYPE)
def type_is_fd(call: Allocation) -> Finding | None:
    """The handle type is OPAQUE_FD or DMA_BUF. Values that are not a handle type break the `-parameter` rule."""
    handle_type = call.fd_type
    if handle_type & FD_TYPES == handle_type or handle_type not in DEFINED_TYPES:
        return None
    return (
        f"{_PATH}.handle_type",
        f"{types_text(handle_type)} handles are not file descriptors",
        "Use OPAQUE_FD or DMA_BUF, or the import struct for that type.",
    )


@rule(f"{_STRUCT}-handleType-00670", on=ALLOCATE, needs=Traits.IMPORTS_FD)
def fd_is_valid(call: Allocation) -> Finding | None:
    """The fd is open and refers to a payload of the handle type."""
    fd = call.fd.fd if call.fd is not None else None
    if isinstance(fd, int) and fd < 0:
        return f"{_PATH}.fd", f"{int(fd)} is not a file descriptor", "Give an open file descriptor."
    refusal = call.facts.refusal
    if refusal is not None:
        return (
            f"{_PATH}.fd",
            f"{fd!r} does not refer to a payload: {refusal.status}: {refusal.detail.rstrip('.')}",
            f"Give an fd that was exported as {types_text(call.fd_type)}.",
        )
    if call.facts.fd_is_valid is False:
        return (
            f"{_PATH}.fd",
            f"{fd!r} is closed, or is not an {types_text(call.fd_type)} descriptor",
            "Give an fd that is open in this process. A successful import consumes it: import a duplicate to keep one.",
        )
    payload = call.payload
    if payload is None or not payload.made_by_vulkan or not payload.handle_types:
        return None
    if int(payload.handle_types) & call.fd_type:
        return None
    return (
        f"{_PATH}.fd",
        f"its payload was exported as {types_text(int(payload.handle_types))}, not {types_text(call.fd_type)}",
        f"Import it as {types_text(int(payload.handle_types))}.",
    )


@rule(f"{_STRUCT}-handleType-09862", on=ALLOCATE, needs=Traits.IMPORTS_FD)
def type_is_importable(call: Allocation) -> Finding | None:
    """The device imports the type, for the dedicated resource or else for a transfer buffer."""
    return _import_payload.importable(call, f"{_PATH}.handle_type")


@rule(f"{_STRUCT}-fd-00668", on=ALLOCATE, needs=_ELSEWHERE)
def same_physical_device(call: Allocation) -> Finding | None:
    """The payload is on the importing device. dma-bufs are exempt by the specification's compatibility table."""
    return None if call.fd_type == DMA_BUF else _import_payload.same_device(call, f"{_PATH}.fd")


@rule(f"{_STRUCT}-fd-01746", f"{_STRUCT}-fd-01520", on=ALLOCATE, needs=_ELSEWHERE)
def uuids_match(call: Allocation) -> Finding | None:
    """Both UUIDs match for OPAQUE_FD; neither has to match for DMA_BUF. Two rules have this meaning."""
    return None if call.fd_type == DMA_BUF else _import_payload.same_uuids(call, f"{_PATH}.fd")


@rule("VkMemoryAllocateInfo-allocationSize-01742", on=ALLOCATE, needs=Traits.IMPORTS_FD | Traits.OUR_PAYLOAD)
def size_and_type_are_the_exporters(call: Allocation) -> Finding | None:
    """An opaque payload is imported with the size and memory type of its allocation; a dma-buf may differ."""
    return _import_payload.same_size_and_type(call) if call.fd_type == OPAQUE_FD else None


@rule("VkMemoryAllocateInfo-memoryTypeIndex-00648", on=ALLOCATE, needs=Traits.IMPORTS_FD | Traits.FOREIGN_PAYLOAD)
def memory_type_suits_the_fd(call: Allocation) -> Finding | None:
    """The memory type is one of those that the device reports for an fd from outside Vulkan."""
    return _import_payload.allowed_type(call, "vkGetMemoryFdPropertiesKHR")
