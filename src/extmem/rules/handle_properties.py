"""vkGetMemoryWin32HandlePropertiesKHR, vkGetMemoryFdPropertiesKHR and vkGetMemoryHostPointerPropertiesEXT."""

from __future__ import annotations

import msgspec

from extmem.rules._conditions import all_of, equals, has_bits, is_zero, not_multiple
from extmem.rules._engine import Demand, Finding, Suite, demand
from extmem.rules._field_types import is_address, is_fd, is_handle, is_u32, misfit
from extmem.rules._handle_types import defined_but_not, single_type
from extmem.rules._text import (
    DEFINED_TYPES,
    DMA_BUF,
    HOST_ALLOCATION,
    HOST_MAPPED_FOREIGN_MEMORY,
    HOST_TYPES,
    OPAQUE_FD,
    OPAQUE_WIN32_TYPES,
    WIN32_TYPES,
    handle_text,
    is_invalid_handle,
    types_text,
)
from extmem.rules.facts import DeviceFacts, Refusal
from extmem.rules.violation import Violation
from extmem.vk.handle_types import MemoryHandleType

__all__ = ["check_memory_fd_properties", "check_memory_host_pointer_properties", "check_memory_win32_handle_properties"]

_WIN32 = "vkGetMemoryWin32HandlePropertiesKHR"
_FD = "vkGetMemoryFdPropertiesKHR"
_HOST = "vkGetMemoryHostPointerPropertiesEXT"


class Query(msgspec.Struct):
    """One call of any of the three commands. The last two fields have the result of resolving the handle or pointer."""

    command: str
    device: DeviceFacts
    handle_type: MemoryHandleType
    handle: object
    refusal: Refusal | None = None
    usable: bool | None = None

    @property
    def type_text(self) -> str:
        """The handle type as text."""
        return types_text(self.handle_type)

    @property
    def pointer(self) -> int:
        """The handle as an address; 0 if it is not one."""
        return int(self.handle) if isinstance(self.handle, int) else 0


WIN32: Suite[Query] = Suite(_WIN32)
FD: Suite[Query] = Suite(_FD)
HOST: Suite[Query] = Suite(_HOST)
_ALL = (WIN32, FD, HOST)
_OPAQUE = OPAQUE_WIN32_TYPES | OPAQUE_FD


def _all(tail: str) -> tuple[str, str, str]:
    return f"{_WIN32}-{tail}", f"{_FD}-{tail}", f"{_HOST}-{tail}"


def _wrong_system(call: Query, types: int, what: str) -> Finding | None:
    """Return a finding if the type belongs to another system.

    No rule states that directly, but a handle of another system's type is not valid.
    """
    if call.handle_type & (types | _OPAQUE) or call.handle_type not in DEFINED_TYPES:
        return None
    return (
        f"{call.command}.handle_type",
        f"{call.type_text} is not a type that {what} can have",
        f"Query one of {types_text(types & ~_OPAQUE)}.",
    )


def _invalid_handle(call: Query) -> Finding | None:
    """The handle is open in this process and refers to memory."""
    if is_invalid_handle(call.handle):
        return f"{_WIN32}.handle", f"{handle_text(call.handle)} is not a handle", "Give an open Win32 memory handle."
    if call.refusal is not None:
        return (
            f"{_WIN32}.handle",
            f"{handle_text(call.handle)} is not a memory handle of this process: {call.refusal.status}: "
            f"{call.refusal.detail.rstrip('.')}",
            "Give a memory handle that is open in this process.",
        )
    return _wrong_system(call, WIN32_TYPES, "a Windows handle")


def _invalid_fd(call: Query) -> Finding | None:
    """The fd is open in this process and refers to memory."""
    fd = call.handle
    if isinstance(fd, int) and fd < 0:
        return f"{_FD}.fd", f"{int(fd)} is not a file descriptor", "Give an open file descriptor."
    if call.usable is False:
        return f"{_FD}.fd", f"{fd!r} is closed, or is not an fd of memory", "Give an open memory fd, such as a dma-buf."
    return _wrong_system(call, OPAQUE_FD | DMA_BUF, "a file descriptor")


def _not_opaque(vuid: str) -> Demand:
    """Return the row that the handle type is not opaque. Opaque types of any system are invalid."""
    return Demand(
        vuid,
        has_bits("handle_type", _OPAQUE),
        "{call.command}.handle_type",
        "{call.type_text} is opaque and has no properties to query",
        "Import it with the size and memory type that the exporter used; its descriptor has them.",
    )


def _mapped(vuid: str, handle_type: MemoryHandleType, what: str) -> Demand:
    """Return the row that an address for this handle type is mapped."""
    return Demand(
        vuid,
        all_of(equals("handle_type", handle_type), equals("usable", False)),
        f"{_HOST}.host_pointer",
        f"{{call.pointer:#x}} does not point to {what} that this process has mapped for reading and writing",
        "Give an address that is mapped for both.",
    )


demand(
    _ALL,
    Demand(
        _all("device-parameter"),
        is_zero("device.alive"),
        "{call.command}.device",
        "the device {call.device.name!r} is closed",
        "Query before closing the device.",
    ),
    single_type(_all("handleType-parameter"), "handle_type", "{call.command}.handle_type", zero=False),
)
demand(WIN32, _not_opaque(f"{_WIN32}-handleType-00666"), Demand(f"{_WIN32}-handle-00665", _invalid_handle))
demand(FD, _not_opaque(f"{_FD}-handleType-00674"), Demand(f"{_FD}-fd-00673", _invalid_fd))
demand(
    HOST,
    Demand(
        f"{_HOST}-handleType-01752",
        defined_but_not("handle_type", HOST_TYPES),
        f"{_HOST}.handle_type",
        "{found} is not a type of host memory",
        "Use HOST_ALLOCATION or HOST_MAPPED_FOREIGN_MEMORY.",
    ),
    Demand(
        f"{_HOST}-pHostPointer-01753",
        not_multiple("pointer", "device.min_imported_host_pointer_alignment"),
        f"{_HOST}.host_pointer",
        "{call.pointer:#x} is not a multiple of the device's alignment of "
        "{call.device.min_imported_host_pointer_alignment}",
        "Query memory that starts on a boundary of {call.device.min_imported_host_pointer_alignment} bytes.",
    ),
    _mapped(f"{_HOST}-handleType-01754", HOST_ALLOCATION, "host memory"),
    _mapped(f"{_HOST}-handleType-01755", HOST_MAPPED_FOREIGN_MEMORY, "foreign memory"),
)


_TYPE = "a value of ExternalMemoryHandleTypeFlagBits"


def _handle_type_misfit(command: str, handle_type: object) -> list[Violation]:
    if is_u32(handle_type):
        return []
    return [misfit(f"VUID-{command}-handleType-parameter", f"{command}.handle_type", handle_type, _TYPE)]


def check_memory_win32_handle_properties(
    handle_type: int, handle: object, device: DeviceFacts, *, refusal: Refusal | None = None
) -> list[Violation]:
    """Return all rules that querying this handle would break. `refusal`: why it does not refer to a payload."""
    violations = _handle_type_misfit(_WIN32, handle_type)
    if not is_handle(handle):
        violations.append(misfit(f"VUID-{_WIN32}-handle-00665", f"{_WIN32}.handle", handle, "a Win32 handle"))
    return violations or WIN32.run(Query(_WIN32, device, MemoryHandleType(int(handle_type)), handle, refusal), 0)


def check_memory_fd_properties(
    handle_type: int, fd: object, device: DeviceFacts, *, fd_is_valid: bool | None = None
) -> list[Violation]:
    """Return all rules that querying this fd would break. `fd_is_valid`: whether it is an open memory fd."""
    violations = _handle_type_misfit(_FD, handle_type)
    if not is_fd(fd):
        violations.append(misfit(f"VUID-{_FD}-fd-00673", f"{_FD}.fd", fd, "a file descriptor number or an FdHandle"))
    return violations or FD.run(Query(_FD, device, MemoryHandleType(int(handle_type)), fd, usable=fd_is_valid), 0)


def check_memory_host_pointer_properties(
    handle_type: int, pointer: int, device: DeviceFacts, *, mapped: bool | None = None
) -> list[Violation]:
    """Return all rules that querying this address would break. `mapped`: whether memory is mapped there."""
    violations = _handle_type_misfit(_HOST, handle_type)
    if not is_address(pointer):
        vuid = f"VUID-{_HOST}-pHostPointer-parameter"
        violations.append(misfit(vuid, f"{_HOST}.host_pointer", pointer, "an address as an integer"))
    return violations or HOST.run(Query(_HOST, device, MemoryHandleType(int(handle_type)), pointer, usable=mapped), 0)
