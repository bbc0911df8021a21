"""vkCreateSemaphore, and the query of which semaphores a device can share.

The query of the export types is about the semaphore's own type, binary or timeline: drivers export one and not the
other.
"""

from __future__ import annotations

from extmem import vk
from extmem.rules import _sync_field_types  # noqa: F401  # it registers
from extmem.rules._engine import Demand, Suite, demand
from extmem.rules._field_types import malformed, wrong_struct
from extmem.rules._sync_create import (
    CreateSync,
    attributes_without_export,
    chain_rows,
    chained_structs,
    closed_device,
    exportable,
)
from extmem.rules._sync_types import SEMAPHORE, defined_sync_types, one_sync_type
from extmem.rules.device_facts import DeviceFacts
from extmem.rules.sync_facts import SyncDeviceFacts
from extmem.rules.violation import Violation
from extmem.vk.handle_types import SEMAPHORE_NT_TYPES

__all__ = ["check_create_semaphore", "check_external_semaphore_info"]

CREATE_SEMAPHORE: Suite[CreateSync] = Suite("vkCreateSemaphore")
SEMAPHORE_QUERY: Suite[CreateSync] = Suite("vkGetPhysicalDeviceExternalSemaphoreProperties")

_EXPORT = "VkExportSemaphoreCreateInfo"
_TYPE = "{call.where}.pNext<SemaphoreTypeCreateInfo>"


def _flags(call: CreateSync) -> int:
    return int(call.info.flags)


def _unknown_type(call: CreateSync) -> str:
    info = call.type_info
    return str(int(info.semaphore_type)) if info is not None and info.semaphore_type not in (0, 1) else ""


def _without_feature(call: CreateSync) -> bool:
    return call.timeline and call.facts.timeline_semaphore is False


def _binary_with_value(call: CreateSync) -> str:
    info = call.type_info
    if info is None or info.semaphore_type != vk.SemaphoreType.BINARY or not info.initial_value:
        return ""
    return str(int(info.initial_value))


_TYPE_PARAMETER = Demand(
    "VkSemaphoreTypeCreateInfo-semaphoreType-parameter",
    _unknown_type,
    f"{_TYPE}.semaphore_type",
    "{found} is not a semaphore type",
    "Give SemaphoreType.BINARY or TIMELINE.",
)

demand(
    CREATE_SEMAPHORE,
    closed_device("vkCreateSemaphore-device-parameter", "vkCreateSemaphore"),
    *chain_rows("VkSemaphoreCreateInfo"),
    Demand(
        "VkSemaphoreCreateInfo-flags-zerobitmask",
        _flags,
        "{call.where}.flags",
        "it is {found:#x}, and no flags are defined",
        "Pass flags=0.",
    ),
    _TYPE_PARAMETER,
    Demand(
        "VkSemaphoreTypeCreateInfo-timelineSemaphore-03252",
        _without_feature,
        f"{_TYPE}.semaphore_type",
        "it is TIMELINE, which needs the feature timelineSemaphore, and {call.device.name!r} has not enabled it",
        "Use a binary semaphore, or a device with timeline semaphores; the host device always has them.",
    ),
    Demand(
        "VkSemaphoreTypeCreateInfo-semaphoreType-03279",
        _binary_with_value,
        f"{_TYPE}.initial_value",
        "it is {found} for a binary semaphore, which has no value",
        "Pass initial_value=0, or semaphore_type=SemaphoreType.TIMELINE.",
    ),
    defined_sync_types(
        SEMAPHORE,
        f"{_EXPORT}-handleTypes-parameter",
        "export_types",
        "{call.where}.pNext<ExportSemaphoreCreateInfo>.handle_types",
    ),
    exportable(SEMAPHORE, f"{_EXPORT}-handleTypes-01124", "ExportSemaphoreCreateInfo"),
    attributes_without_export(
        "VkExportSemaphoreWin32HandleInfoKHR-handleTypes-01125",
        vk.ExportSemaphoreWin32HandleInfoKHR,
        SEMAPHORE_NT_TYPES,
        SEMAPHORE,
    ),
)
demand(
    SEMAPHORE_QUERY,
    *chain_rows("VkPhysicalDeviceExternalSemaphoreInfo"),
    one_sync_type(SEMAPHORE, "VkPhysicalDeviceExternalSemaphoreInfo-handleType-parameter"),
    _TYPE_PARAMETER,
)


def check_create_semaphore(info: vk.SemaphoreCreateInfo, facts: SyncDeviceFacts) -> list[Violation]:
    """Return all rules that creating this semaphore would break."""
    violations = wrong_struct(info, vk.SemaphoreCreateInfo, "vkCreateSemaphore.info")
    if violations:
        return violations
    call = CreateSync(info, SEMAPHORE, facts, "SemaphoreCreateInfo", chained_structs(info))
    return malformed(call.nodes()) or CREATE_SEMAPHORE.run(call, 0)


_NOTHING = SyncDeviceFacts(DeviceFacts("", b"", b"", ()))


def check_external_semaphore_info(info: vk.PhysicalDeviceExternalSemaphoreInfo) -> list[Violation]:
    """Return all rules that vkGetPhysicalDeviceExternalSemaphoreProperties would break."""
    where = "vkGetPhysicalDeviceExternalSemaphoreProperties.info"
    violations = wrong_struct(info, vk.PhysicalDeviceExternalSemaphoreInfo, where)
    if violations:
        return violations
    call = CreateSync(info, SEMAPHORE, _NOTHING, "PhysicalDeviceExternalSemaphoreInfo", chained_structs(info))
    return malformed(call.nodes()) or SEMAPHORE_QUERY.run(call, 0)
