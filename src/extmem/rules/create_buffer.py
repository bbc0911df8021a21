"""VkBufferCreateInfo, and the query about such buffers: the rules that hold whether or not the memory is external."""

from __future__ import annotations

from extmem import vk
from extmem.rules._conditions import all_of, is_zero
from extmem.rules._creation import (
    BUFFER_QUERY,
    CREATE_BUFFER,
    Create,
    chain_demands,
    enabled_bits,
    flag_needs_feature,
    sharing_mode,
)
from extmem.rules._enabled import BUFFER_FLAGS, BUFFER_USAGES, CHAINED, lacks
from extmem.rules._engine import Demand, demand
from extmem.rules._handle_types import single_type

__all__: list[str] = []

_Flag, _Usage2 = vk.BufferCreateFlagBits, vk.BufferUsageFlags2CreateInfo
_QUERY = "VkPhysicalDeviceExternalBufferInfo"
_QUERY_PATH = "PhysicalDeviceExternalBufferInfo"
_EITHER = (CREATE_BUFFER, BUFFER_QUERY)


def _ids(tail: str) -> tuple[str, str]:
    return f"VkBufferCreateInfo-{tail}", f"{_QUERY}-{tail}"


def _foreign_in_query(call: Create) -> tuple[str, str] | None:
    """Only VkBufferUsageFlags2CreateInfo extends the query, if the device supports it."""
    needs = CHAINED[_Usage2]
    lacking = lacks(needs, call.device)
    foreign = [type(n).__name__ for n in call.chain if lacking or not isinstance(n, _Usage2)]
    why = f"needs {needs.text}, which is not enabled" if lacking else "does not extend a buffer query"
    return (", ".join(dict.fromkeys(foreign)), why) if foreign else None


def _usage_is_repeated(call: Create) -> bool:
    return sum(isinstance(n, _Usage2) for n in call.chain) > 1


demand(
    CREATE_BUFFER,
    *chain_demands("VkBufferCreateInfo"),
    Demand(
        "VkBufferCreateInfo-size-00912",
        is_zero("info.size"),
        "BufferCreateInfo.size",
        "it is 0",
        "Give the number of bytes, at least 1.",
    ),
)
demand(
    BUFFER_QUERY,
    Demand(
        f"{_QUERY}-pNext-pNext",
        _foreign_in_query,
        f"{_QUERY_PATH}.pNext",
        "{found[0]} {found[1]}",
        "Take {found[0]} out of the chain.",
    ),
    Demand(
        f"{_QUERY}-sType-unique",
        _usage_is_repeated,
        f"{_QUERY_PATH}.pNext",
        "BufferUsageFlags2CreateInfo is in the chain more than once",
        "Keep one struct of each type.",
    ),
)
demand(_EITHER, enabled_bits(_ids("flags-parameter"), "flags", _Flag, BUFFER_FLAGS))
demand(
    BUFFER_QUERY,
    single_type(f"{_QUERY}-handleType-parameter", "handle_types", f"{_QUERY_PATH}.handle_type", zero=False),
)
demand(
    _EITHER,
    enabled_bits(_ids("None-09499"), "usage", vk.BufferUsageFlagBits, BUFFER_USAGES, is_zero("usage_is_chained")),
    Demand(
        _ids("None-09500"),
        all_of(is_zero("info.usage"), is_zero("usage_is_chained")),
        "{call.struct}.usage",
        "it is 0",
        "State what the buffer is for, such as BufferUsageFlagBits.TRANSFER_SRC.",
    ),
)
demand(
    CREATE_BUFFER,
    sharing_mode("VkBufferCreateInfo-sharingMode-parameter"),
    flag_needs_feature(
        "VkBufferCreateInfo-flags-03338", _Flag.DEVICE_ADDRESS_CAPTURE_REPLAY, "bufferDeviceAddressCaptureReplay"
    ),
)
