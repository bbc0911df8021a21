"""vkGetMemoryWin32HandleKHR and vkGetMemoryFdKHR."""

from __future__ import annotations

from dataclasses import dataclass

from extmem import vk
from extmem.rules import _import_payload
from extmem.rules._engine import Check, Finding, Suite, rule
from extmem.rules._field_types import malformed, wrong_struct
from extmem.rules._text import DEFINED_TYPES, FD_TYPES, NT_TYPES, WIN32_TYPES, types_text
from extmem.rules.facts import DeviceFacts, MemoryFacts
from extmem.rules.violation import Violation
from extmem.vk.handle_types import MemoryHandleType

__all__ = ["check_get_memory_fd", "check_get_memory_win32_handle", "wrong_get_info"]


@dataclass(slots=True)
class GetHandle:
    """One call of either command."""

    info: vk.MemoryGetWin32HandleInfoKHR | vk.MemoryGetFdInfoKHR
    device: DeviceFacts
    memory: MemoryFacts
    handle_type: MemoryHandleType
    where: str


GET_WIN32: Suite[GetHandle] = Suite("vkGetMemoryWin32HandleKHR")
GET_FD: Suite[GetHandle] = Suite("vkGetMemoryFdKHR")
_BOTH = (GET_WIN32, GET_FD)
_WIN32, _FD = "VkMemoryGetWin32HandleInfoKHR", "VkMemoryGetFdInfoKHR"


@rule("vkGetMemoryWin32HandleKHR-device-parameter", "vkGetMemoryFdKHR-device-parameter", on=_BOTH)
def device_is_alive(call: GetHandle) -> Finding | None:
    """The device was not closed."""
    if call.device.alive:
        return None
    return f"{call.where}.memory", f"its device {call.device.name!r} is closed", "Export before closing the device."


@rule(f"{_WIN32}-memory-parameter", f"{_FD}-memory-parameter", on=_BOTH)
def memory_is_alive(call: GetHandle) -> Finding | None:
    """The memory was not freed."""
    if call.memory.alive:
        return None
    return f"{call.where}.memory", "the memory is freed", "Export handles before freeing the memory."


@rule(f"{_WIN32}-pNext-pNext", f"{_FD}-pNext-pNext", on=_BOTH)
def nothing_is_chained(call: GetHandle) -> Finding | None:
    """No struct extends the two structs."""
    if call.info.p_next is None:
        return None
    return f"{call.where}.pNext", f"{type(call.info.p_next).__name__} is chained", "Pass p_next=None."


@rule(f"{_WIN32}-handleType-parameter", f"{_FD}-handleType-parameter", on=_BOTH)
def type_is_defined(call: GetHandle) -> Finding | None:
    """The handle type is exactly one bit that the registry defines."""
    return _import_payload.single_type(call.handle_type, f"{call.where}.handle_type", zero=False)


def _type_in(types: int, other: str) -> Check[GetHandle]:
    def check(call: GetHandle) -> Finding | None:
        if call.handle_type & types or call.handle_type not in DEFINED_TYPES:
            return None
        return (
            f"{call.where}.handle_type",
            f"{types_text(call.handle_type)} is not one of {types_text(types)}",
            f"Use {other} for that type.",
        )

    return check


rule(f"{_WIN32}-handleType-00664", on=GET_WIN32)(_type_in(WIN32_TYPES, "MemoryGetFdInfoKHR"))
rule(f"{_FD}-handleType-00672", on=GET_FD)(_type_in(FD_TYPES, "MemoryGetWin32HandleInfoKHR"))


@rule(f"{_WIN32}-handleType-00662", f"{_FD}-handleType-00671", on=_BOTH)
def type_was_asked_for(call: GetHandle) -> Finding | None:
    """The memory was allocated for export as this type."""
    types = int(call.memory.export_handle_types)
    if call.handle_type & types or call.handle_type not in DEFINED_TYPES:
        return None
    if not types and int(call.memory.import_handle_type):
        return (
            f"{call.where}.handle_type",
            f"the memory was imported, and not for export as {types_text(call.handle_type)}",
            "Pass on the handle or name that it was imported by, or import it with ExportMemoryAllocateInfo chained.",
        )
    export_text = f"for export as {types_text(types)}" if types else "not for export"
    return (
        f"{call.where}.handle_type",
        f"the memory was allocated {export_text}, not as {types_text(call.handle_type)}",
        f"Chain ExportMemoryAllocateInfo with {types_text(call.handle_type)} when allocating.",
    )


@rule(f"{_WIN32}-handleType-00663", on=GET_WIN32)
def nt_handle_is_asked_once(call: GetHandle) -> Finding | None:
    """vkGetMemoryWin32HandleKHR is called once for each NT handle type; KMT types may be repeated."""
    if not call.handle_type & NT_TYPES & int(call.memory.exported_nt_types):
        return None
    return (
        f"{call.where}.handle_type",
        f"an {types_text(call.handle_type)} handle of this memory was already exported by the device",
        "Duplicate the existing handle: NtHandle.duplicate().",
    )


def wrong_get_info(info: object, struct: type) -> list[Violation]:
    """Return the violation if `info` is not of this struct type. The memory cannot be checked then."""
    word = "Fd" if struct is vk.MemoryGetFdInfoKHR else "Win32Handle"
    return wrong_struct(info, struct, f"vkGetMemory{word}KHR.info")


def check_get_memory_win32_handle(
    info: vk.MemoryGetWin32HandleInfoKHR, device: DeviceFacts, memory: MemoryFacts
) -> list[Violation]:
    """Return all rules that this vkGetMemoryWin32HandleKHR would break."""
    violations = wrong_struct(info, vk.MemoryGetWin32HandleInfoKHR, "vkGetMemoryWin32HandleKHR.info") or malformed(
        [("MemoryGetWin32HandleInfoKHR", info)]
    )
    if violations:
        return violations
    call = GetHandle(info, device, memory, MemoryHandleType(int(info.handle_type)), "MemoryGetWin32HandleInfoKHR")
    return GET_WIN32.run(call, 0)


def check_get_memory_fd(info: vk.MemoryGetFdInfoKHR, device: DeviceFacts, memory: MemoryFacts) -> list[Violation]:
    """Return all rules that this vkGetMemoryFdKHR would break."""
    violations = wrong_struct(info, vk.MemoryGetFdInfoKHR, "vkGetMemoryFdKHR.info") or malformed(
        [("MemoryGetFdInfoKHR", info)]
    )
    if violations:
        return violations
    call = GetHandle(info, device, memory, MemoryHandleType(int(info.handle_type)), "MemoryGetFdInfoKHR")
    return GET_FD.run(call, 0)
