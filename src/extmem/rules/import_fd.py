"""Importing by file descriptor (VkImportMemoryFdInfoKHR).

A dma-buf may come from any device and driver, so the rules that compare devices do not apply to it; see
docs/design/0001-contradictions-in-the-specification.md.
"""

from __future__ import annotations

from extmem import vk
from extmem.rules._allocation import ALLOCATE, Allocation, Traits, chained
from extmem.rules._conditions import all_of, equals, not_one_of
from extmem.rules._engine import Demand, Finding, demand
from extmem.rules._handle_types import defined_but_not, single_type
from extmem.rules._import_payload import (
    allowed_type,
    exported_otherwise,
    importable,
    same_device,
    same_size_and_type,
    same_uuids,
)
from extmem.rules._text import DMA_BUF, FD_TYPES, OPAQUE_FD, types_text

__all__: list[str] = []

_PATH = chained(vk.ImportMemoryFdInfoKHR)
_STRUCT = "VkImportMemoryFdInfoKHR"
_ELSEWHERE = Traits.IMPORTS_FD | Traits.PAYLOAD | Traits.ELSEWHERE


def _invalid_fd(call: Allocation) -> Finding | None:
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
    return exported_otherwise(call, call.fd_type, f"{_PATH}.fd", "its payload")


_OPAQUE = equals("fd_type", OPAQUE_FD)
_NOT_DMA_BUF = not_one_of("fd_type", (DMA_BUF,))

demand(
    ALLOCATE,
    single_type(
        f"{_STRUCT}-handleType-parameter",
        "fd_type",
        f"{_PATH}.handle_type",
        needs=Traits.IMPORTS_FD | Traits.ODD_TYPE,
    ),
    Demand(
        f"{_STRUCT}-handleType-00669",
        defined_but_not("fd_type", FD_TYPES),
        f"{_PATH}.handle_type",
        "{found} handles are not file descriptors",
        "Use OPAQUE_FD or DMA_BUF, or the import struct for that type.",
        needs=Traits.IMPORTS_FD | Traits.ODD_TYPE,
    ),
    Demand(f"{_STRUCT}-handleType-00670", _invalid_fd, needs=Traits.IMPORTS_FD),
    importable(f"{_STRUCT}-handleType-09862", f"{_PATH}.handle_type", Traits.IMPORTS_FD),
    # dma-bufs are exempt by the specification's compatibility table. The two ids below have the same meaning.
    same_device(f"{_STRUCT}-fd-00668", f"{_PATH}.fd", _ELSEWHERE, _NOT_DMA_BUF),
    same_uuids((f"{_STRUCT}-fd-01746", f"{_STRUCT}-fd-01520"), f"{_PATH}.fd", _ELSEWHERE, _NOT_DMA_BUF),
    # An opaque payload is imported with the size and memory type of its allocation; a dma-buf may differ.
    Demand(
        "VkMemoryAllocateInfo-allocationSize-01742",
        all_of(_OPAQUE, same_size_and_type),
        needs=Traits.IMPORTS_FD | Traits.OUR_PAYLOAD,
    ),
    allowed_type(
        "VkMemoryAllocateInfo-memoryTypeIndex-00648",
        "payload.memory_type_bits",
        "vkGetMemoryFdPropertiesKHR",
        Traits.IMPORTS_FD | Traits.FOREIGN_PAYLOAD,
    ),
)
