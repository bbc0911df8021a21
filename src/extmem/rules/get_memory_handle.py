"""vkGetMemoryWin32HandleKHR and vkGetMemoryFdKHR."""

from __future__ import annotations

import msgspec

from extmem import vk
from extmem.rules._conditions import is_given, is_zero
from extmem.rules._engine import Demand, Finding, Suite, demand
from extmem.rules._field_types import malformed, wrong_struct
from extmem.rules._handle_types import defined_but_not, single_type
from extmem.rules._text import DEFINED_TYPES, FD_TYPES, NT_TYPES, WIN32_TYPES, types_text
from extmem.rules.facts import DeviceFacts, MemoryFacts
from extmem.rules.violation import Violation
from extmem.vk.handle_types import MemoryHandleType

__all__ = ["check_get_memory_fd", "check_get_memory_win32_handle", "wrong_get_info"]


GetInfo = vk.MemoryGetWin32HandleInfoKHR | vk.MemoryGetFdInfoKHR


class GetHandle(msgspec.Struct):
    """One call of either command."""

    info: GetInfo
    device: DeviceFacts
    memory: MemoryFacts
    handle_type: MemoryHandleType
    where: str


GET_WIN32: Suite[GetHandle] = Suite("vkGetMemoryWin32HandleKHR")
GET_FD: Suite[GetHandle] = Suite("vkGetMemoryFdKHR")
_BOTH = (GET_WIN32, GET_FD)
_WIN32, _FD = "VkMemoryGetWin32HandleInfoKHR", "VkMemoryGetFdInfoKHR"


def _type_in(vuid: str, types: int, other: str) -> Demand:
    """Return the row that the command returns handles of the type."""
    return Demand(
        vuid,
        defined_but_not("handle_type", types),
        "{call.where}.handle_type",
        f"{{found}} is not one of {types_text(types)}",
        f"Use {other} for that type.",
    )


def _not_allocated_for(call: GetHandle) -> Finding | None:
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


def _exported_before(call: GetHandle) -> str:
    """vkGetMemoryWin32HandleKHR is called once for each NT handle type; KMT types may be repeated."""
    again = call.handle_type & NT_TYPES & int(call.memory.exported_nt_types)
    return types_text(call.handle_type) if again else ""


demand(
    _BOTH,
    Demand(
        ("vkGetMemoryWin32HandleKHR-device-parameter", "vkGetMemoryFdKHR-device-parameter"),
        is_zero("device.alive"),
        "{call.where}.memory",
        "its device {call.device.name!r} is closed",
        "Export before closing the device.",
    ),
    Demand(
        (f"{_WIN32}-memory-parameter", f"{_FD}-memory-parameter"),
        is_zero("memory.alive"),
        "{call.where}.memory",
        "the memory is freed",
        "Export handles before freeing the memory.",
    ),
    Demand(
        (f"{_WIN32}-pNext-pNext", f"{_FD}-pNext-pNext"),
        is_given("info.p_next"),
        "{call.where}.pNext",
        "{call.info.p_next.__class__.__name__} is chained",
        "Pass p_next=None.",
    ),
    single_type(
        (f"{_WIN32}-handleType-parameter", f"{_FD}-handleType-parameter"),
        "handle_type",
        "{call.where}.handle_type",
        zero=False,
    ),
)
demand(GET_WIN32, _type_in(f"{_WIN32}-handleType-00664", WIN32_TYPES, "MemoryGetFdInfoKHR"))
demand(GET_FD, _type_in(f"{_FD}-handleType-00672", FD_TYPES, "MemoryGetWin32HandleInfoKHR"))
demand(_BOTH, Demand((f"{_WIN32}-handleType-00662", f"{_FD}-handleType-00671"), _not_allocated_for))
demand(
    GET_WIN32,
    Demand(
        f"{_WIN32}-handleType-00663",
        _exported_before,
        "{call.where}.handle_type",
        "an {found} handle of this memory was already exported by the device",
        "Duplicate the existing handle: NtHandle.duplicate().",
    ),
)


def wrong_get_info(info: object, struct: type) -> list[Violation]:
    """Return the violation if `info` is not of this struct type. The memory cannot be checked then."""
    word = "Fd" if struct is vk.MemoryGetFdInfoKHR else "Win32Handle"
    return wrong_struct(info, struct, f"vkGetMemory{word}KHR.info")


def check_get_memory_win32_handle(
    info: vk.MemoryGetWin32HandleInfoKHR, device: DeviceFacts, memory: MemoryFacts
) -> list[Violation]:
    """Return all rules that this vkGetMemoryWin32HandleKHR would break."""
    where = "MemoryGetWin32HandleInfoKHR"
    return (
        wrong_struct(info, vk.MemoryGetWin32HandleInfoKHR, "vkGetMemoryWin32HandleKHR.info")
        or malformed([(where, info)])
        or GET_WIN32.run(GetHandle(info, device, memory, MemoryHandleType(int(info.handle_type)), where), 0)
    )


def check_get_memory_fd(info: vk.MemoryGetFdInfoKHR, device: DeviceFacts, memory: MemoryFacts) -> list[Violation]:
    """Return all rules that this vkGetMemoryFdKHR would break."""
    where = "MemoryGetFdInfoKHR"
    return (
        wrong_struct(info, vk.MemoryGetFdInfoKHR, "vkGetMemoryFdKHR.info")
        or malformed([(where, info)])
        or GET_FD.run(GetHandle(info, device, memory, MemoryHandleType(int(info.handle_type)), where), 0)
    )
