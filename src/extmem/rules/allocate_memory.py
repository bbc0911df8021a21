"""The entry point of vkAllocateMemory's checks, which are in many modules.

The imports below are in the order in which violations are reported.
"""

from __future__ import annotations

from extmem import vk
from extmem.rules import (  # noqa: F401  # they register
    allocate_info,
    chained_structs,
    dedicated_allocate_info,
    export_allocate_info,
    import_fd,
    import_host_pointer,
    import_win32,
)
from extmem.rules._allocation import ALLOCATE, contents, read
from extmem.rules._field_types import malformed, misfit, wrong_struct
from extmem.rules.facts import AllocateFacts, DeviceFacts
from extmem.rules.violation import Violation

__all__ = ["check_allocate_memory", "check_allocate_memory_fields"]

_CHAIN = "VUID-VkMemoryAllocateInfo-pNext-pNext"


def check_allocate_memory(info: vk.MemoryAllocateInfo, facts: AllocateFacts) -> list[Violation]:
    """Return all rules that this vkAllocateMemory would break. Fields of the wrong type are reported alone."""
    if type(info) is not vk.MemoryAllocateInfo:
        return wrong_struct(info, vk.MemoryAllocateInfo, "vkAllocateMemory.info")
    call, traits = read(info, facts)
    violations = malformed(call.nodes)
    if violations:
        return violations
    return ALLOCATE.run(call, contents(call, traits))


def check_allocate_memory_fields(info: vk.MemoryAllocateInfo, device: DeviceFacts) -> list[Violation]:
    """Return the violations of fields and chained objects that are of the wrong type.

    A device cannot be queried about a call that has such fields.
    """
    if type(info) is not vk.MemoryAllocateInfo:
        return wrong_struct(info, vk.MemoryAllocateInfo, "vkAllocateMemory.info")
    call, _ = read(info, AllocateFacts(device))
    strange = [node for node in call.foreign if not isinstance(node, vk.ChainStruct)]
    return malformed(call.nodes) + [
        misfit(_CHAIN, "MemoryAllocateInfo.pNext", node, "a struct of extmem.vk, or None") for node in strange[:1]
    ]
