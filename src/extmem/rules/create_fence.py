"""vkCreateFence, and the query of which fences a device can share."""

from __future__ import annotations

from extmem import vk
from extmem.rules import _sync_field_types  # noqa: F401  # it registers
from extmem.rules._conditions import undefined_bits
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
from extmem.rules._sync_types import FENCE, defined_sync_types, one_sync_type
from extmem.rules.device_facts import DeviceFacts
from extmem.rules.sync_facts import SyncDeviceFacts
from extmem.rules.violation import Violation
from extmem.vk.handle_types import FENCE_OPAQUE_WIN32

__all__ = ["check_create_fence", "check_external_fence_info"]

CREATE_FENCE: Suite[CreateSync] = Suite("vkCreateFence")
FENCE_QUERY: Suite[CreateSync] = Suite("vkGetPhysicalDeviceExternalFenceProperties")

_EXPORT = "VkExportFenceCreateInfo"

demand(
    CREATE_FENCE,
    closed_device("vkCreateFence-device-parameter", "vkCreateFence"),
    *chain_rows("VkFenceCreateInfo"),
    Demand(
        "VkFenceCreateInfo-flags-parameter",
        undefined_bits("info.flags", vk.FenceCreateFlagBits.SIGNALED),
        "{call.where}.flags",
        "the bits {found:#x} are not defined",
        "Pass FenceCreateFlagBits.SIGNALED or 0.",
    ),
    defined_sync_types(
        FENCE,
        f"{_EXPORT}-handleTypes-parameter",
        "export_types",
        "{call.where}.pNext<ExportFenceCreateInfo>.handle_types",
    ),
    exportable(FENCE, f"{_EXPORT}-handleTypes-01446", "ExportFenceCreateInfo"),
    attributes_without_export(
        "VkExportFenceWin32HandleInfoKHR-handleTypes-01447",
        vk.ExportFenceWin32HandleInfoKHR,
        FENCE_OPAQUE_WIN32,
        FENCE,
    ),
)
demand(
    FENCE_QUERY,
    *chain_rows("VkPhysicalDeviceExternalFenceInfo", unique=False),
    one_sync_type(FENCE, "VkPhysicalDeviceExternalFenceInfo-handleType-parameter"),
)


def check_create_fence(info: vk.FenceCreateInfo, facts: SyncDeviceFacts) -> list[Violation]:
    """Return all rules that creating this fence would break."""
    violations = wrong_struct(info, vk.FenceCreateInfo, "vkCreateFence.info")
    if violations:
        return violations
    call = CreateSync(info, FENCE, facts, "FenceCreateInfo", chained_structs(info))
    return malformed(call.nodes()) or CREATE_FENCE.run(call, 0)


_NOTHING = SyncDeviceFacts(DeviceFacts("", b"", b"", ()))


def check_external_fence_info(info: vk.PhysicalDeviceExternalFenceInfo) -> list[Violation]:
    """Return all rules that vkGetPhysicalDeviceExternalFenceProperties would break."""
    where = "vkGetPhysicalDeviceExternalFenceProperties.info"
    violations = wrong_struct(info, vk.PhysicalDeviceExternalFenceInfo, where)
    if violations:
        return violations
    call = CreateSync(info, FENCE, _NOTHING, "PhysicalDeviceExternalFenceInfo", chained_structs(info))
    return malformed(call.nodes()) or FENCE_QUERY.run(call, 0)
