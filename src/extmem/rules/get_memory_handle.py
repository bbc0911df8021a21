"""Asking for a handle: vkGetMemoryWin32HandleKHR and vkGetMemoryFdKHR."""

from __future__ import annotations

from dataclasses import dataclass

from extmem import vk
from extmem.rules import _import_payload
from extmem.rules._engine import Check, Finding, Suite, rule
from extmem.rules._field_types import malformed, wrong_struct
from extmem.rules._text import DEFINED_TYPES, FD_TYPES, NT_TYPES, WIN32_TYPES, types_text
from extmem.rules.facts import DeviceFacts, MemoryFacts
from extmem.rules.violation import Violation

__all__ = ["check_get_memory_fd", "check_get_memory_win32_handle", "wrong_get_info"]


@dataclass(slots=True)
class GetHandle:
    """One call, in either form."""

    info: vk.MemoryGetWin32HandleInfoKHR | vk.MemoryGetFdInfoKHR
    device: DeviceFacts
    memory: MemoryFacts
    kind: int
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
    return f"{call.where}.memory", "the memory is freed", "Ask for handles before freeing the memory."


@rule(f"{_WIN32}-pNext-pNext", f"{_FD}-pNext-pNext", on=_BOTH)
def nothing_is_chained(call: GetHandle) -> Finding | None:
    """No struct extends these two."""
    if call.info.p_next is None:
        return None
    return f"{call.where}.pNext", f"{type(call.info.p_next).__name__} is chained", "Leave p_next at None."


@rule(f"{_WIN32}-handleType-parameter", f"{_FD}-handleType-parameter", on=_BOTH)
def type_is_defined(call: GetHandle) -> Finding | None:
    """Exactly one bit that the registry knows."""
    return _import_payload.single_type(call.kind, f"{call.where}.handle_type", zero=False)


def _type_in(types: int, other: str) -> Check[GetHandle]:
    def check(call: GetHandle) -> Finding | None:
        if call.kind & types or call.kind not in DEFINED_TYPES:
            return None
        return (
            f"{call.where}.handle_type",
            f"{types_text(call.kind)} is not one of {types_text(types)}",
            f"Use {other} where that is the type you want.",
        )

    return check


rule(f"{_WIN32}-handleType-00664", on=GET_WIN32)(_type_in(WIN32_TYPES, "MemoryGetFdInfoKHR"))
rule(f"{_FD}-handleType-00672", on=GET_FD)(_type_in(FD_TYPES, "MemoryGetWin32HandleInfoKHR"))


@rule(f"{_WIN32}-handleType-00662", f"{_FD}-handleType-00671", on=_BOTH)
def type_was_asked_for(call: GetHandle) -> Finding | None:
    """At allocation: no handle can be had that was not planned for."""
    types = int(call.memory.export_handle_types)
    if call.kind & types or call.kind not in DEFINED_TYPES:
        return None
    if not types and int(call.memory.import_handle_type):
        return (
            f"{call.where}.handle_type",
            f"the memory was imported, and not to be exported again as {types_text(call.kind)}",
            "Pass on the handle or name that it was imported by, or import it with ExportMemoryAllocateInfo chained.",
        )
    planned = f"for export as {types_text(types)}" if types else "not for export"
    return (
        f"{call.where}.handle_type",
        f"the memory was allocated {planned}, not as {types_text(call.kind)}",
        f"Chain ExportMemoryAllocateInfo with {types_text(call.kind)} when allocating.",
    )


@rule(f"{_WIN32}-handleType-00663", on=GET_WIN32)
def nt_handle_is_asked_once(call: GetHandle) -> Finding | None:
    """KMT numbers may be asked for any number of times."""
    if not call.kind & NT_TYPES & int(call.memory.exported_nt_types):
        return None
    return (
        f"{call.where}.handle_type",
        f"an {types_text(call.kind)} handle of this memory was asked of the device before",
        "Duplicate the handle you have: NtHandle.duplicate().",
    )


def wrong_get_info(info: object, struct: type) -> list[Violation]:
    """The violation of asking for a handle with anything else than this struct; there is no memory to judge then."""
    word = "Fd" if struct is vk.MemoryGetFdInfoKHR else "Win32Handle"
    return wrong_struct(info, struct, f"vkGetMemory{word}KHR.info")


def check_get_memory_win32_handle(
    info: vk.MemoryGetWin32HandleInfoKHR, device: DeviceFacts, memory: MemoryFacts
) -> list[Violation]:
    """All rules that asking the device for this Win32 handle would break."""
    found = wrong_struct(info, vk.MemoryGetWin32HandleInfoKHR, "vkGetMemoryWin32HandleKHR.info") or malformed(
        [("MemoryGetWin32HandleInfoKHR", info)]
    )
    if found:
        return found
    call = GetHandle(info, device, memory, int(info.handle_type), "MemoryGetWin32HandleInfoKHR")
    return GET_WIN32.run(call, 0)


def check_get_memory_fd(info: vk.MemoryGetFdInfoKHR, device: DeviceFacts, memory: MemoryFacts) -> list[Violation]:
    """All rules that asking the device for this fd would break."""
    found = wrong_struct(info, vk.MemoryGetFdInfoKHR, "vkGetMemoryFdKHR.info") or malformed(
        [("MemoryGetFdInfoKHR", info)]
    )
    if found:
        return found
    call = GetHandle(info, device, memory, int(info.handle_type), "MemoryGetFdInfoKHR")
    return GET_FD.run(call, 0)
