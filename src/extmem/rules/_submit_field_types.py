"""Types of the fields of submissions and of operations on semaphores, for the first step of their checks.

The tables are those of `_field_types`; this module adds its rows to them.
"""

from __future__ import annotations

from extmem import vk
from extmem.rules._engine import CHECKED
from extmem.rules._field_types import (
    _EXPECTED,
    FieldTypes,
    is_handle,
    is_handles,
    is_indices,
    is_numbers,
    is_sequence,
    is_u32,
    is_u64,
    misfit,
    register,
)

__all__ = ["is_one_handle", "is_semaphores", "misfit_rules"]


def is_semaphores(value: object) -> bool:
    """Return whether it is a sequence of semaphores without NULL."""
    return is_handles(value)


def is_command_buffers(value: object) -> bool:
    """Return whether it is a sequence of command buffers without NULL."""
    return is_handles(value)


def is_one_handle(value: object) -> bool:
    """Return whether it is a handle that is not NULL."""
    return value is not None and value != 0 and is_handle(value)


_EXPECTED[is_semaphores] = "a sequence of semaphores"
_EXPECTED[is_command_buffers] = "a sequence of command buffers"
_EXPECTED[is_one_handle] = "a handle value or one of extmem's objects"

_SUBMIT, _SUBMIT2 = "VUID-VkSubmitInfo-", "VUID-VkSubmitInfo2-"
_SEMAPHORE = "VUID-VkSemaphoreSubmitInfo-"
_TIMELINE, _D3D12 = "VUID-VkTimelineSemaphoreSubmitInfo-", "VUID-VkD3D12FenceSubmitInfoKHR-"
_GROUP = "VUID-VkDeviceGroupSubmitInfo-"
_WAIT, _SIGNAL = "VUID-VkSemaphoreWaitInfo-", "VUID-VkSemaphoreSignalInfo-"


def _values(struct: str) -> FieldTypes:
    """Return the rows of a struct with values of waits and signals."""
    return (
        ("wait_semaphore_values", is_numbers, f"{struct}pWaitSemaphoreValues-parameter"),
        ("signal_semaphore_values", is_numbers, f"{struct}pSignalSemaphoreValues-parameter"),
    )


register(
    {
        vk.SubmitInfo: (
            ("wait_semaphores", is_semaphores, _SUBMIT + "pWaitSemaphores-parameter"),
            ("wait_dst_stage_mask", is_indices, _SUBMIT + "pWaitDstStageMask-parameter"),
            ("command_buffers", is_command_buffers, _SUBMIT + "pCommandBuffers-parameter"),
            ("signal_semaphores", is_semaphores, _SUBMIT + "pSignalSemaphores-parameter"),
        ),
        vk.SubmitInfo2: (
            ("flags", is_u32, _SUBMIT2 + "flags-parameter"),
            ("wait_semaphore_infos", is_sequence, _SUBMIT2 + "pWaitSemaphoreInfos-parameter"),
            ("command_buffer_infos", is_sequence, _SUBMIT2 + "pCommandBufferInfos-parameter"),
            ("signal_semaphore_infos", is_sequence, _SUBMIT2 + "pSignalSemaphoreInfos-parameter"),
        ),
        vk.SemaphoreSubmitInfo: (
            ("semaphore", is_one_handle, _SEMAPHORE + "semaphore-parameter"),
            ("value", is_u64, _SUBMIT2 + "pWaitSemaphoreInfos-parameter"),
            ("stage_mask", is_u64, _SEMAPHORE + "stageMask-parameter"),
            ("device_index", is_u32, _SEMAPHORE + "device-03888"),
        ),
        vk.CommandBufferSubmitInfo: (
            ("command_buffer", is_one_handle, "VUID-VkCommandBufferSubmitInfo-commandBuffer-parameter"),
            ("device_mask", is_u32, _SUBMIT2 + "pCommandBufferInfos-parameter"),
        ),
        vk.TimelineSemaphoreSubmitInfo: _values(_TIMELINE),
        vk.D3D12FenceSubmitInfoKHR: _values(_D3D12),
        vk.DeviceGroupSubmitInfo: (
            ("wait_semaphore_device_indices", is_indices, _GROUP + "pWaitSemaphoreDeviceIndices-parameter"),
            ("command_buffer_device_masks", is_indices, _GROUP + "pCommandBufferDeviceMasks-parameter"),
            ("signal_semaphore_device_indices", is_indices, _GROUP + "pSignalSemaphoreDeviceIndices-parameter"),
        ),
        vk.SemaphoreWaitInfo: (
            ("flags", is_u32, _WAIT + "flags-parameter"),
            ("semaphores", is_semaphores, _WAIT + "pSemaphores-parameter"),
            ("values", is_numbers, _WAIT + "pValues-parameter"),
        ),
        vk.SemaphoreSignalInfo: (
            ("semaphore", is_one_handle, _SIGNAL + "semaphore-parameter"),
            ("value", is_u64, _SIGNAL + "value-03258"),
        ),
    },
    {
        vk.SubmitInfo: "VUID-vkQueueSubmit-pSubmits-parameter",
        vk.SubmitInfo2: "VUID-vkQueueSubmit2-pSubmits-parameter",
        vk.SemaphoreSubmitInfo: _SUBMIT2 + "pWaitSemaphoreInfos-parameter",
        vk.CommandBufferSubmitInfo: _SUBMIT2 + "pCommandBufferInfos-parameter",
        vk.SemaphoreWaitInfo: "VUID-vkWaitSemaphores-pWaitInfo-parameter",
        vk.SemaphoreSignalInfo: "VUID-vkSignalSemaphore-pSignalInfo-parameter",
    },
)


def misfit_rules(*vuids: str) -> None:
    """Enter rules as checked that are reported by `_field_types.misfit` for arguments that are no structs."""
    for vuid in vuids:
        CHECKED.setdefault(vuid, []).append(f"{misfit.__module__}.misfit")


misfit_rules(
    _SUBMIT2 + "pSignalSemaphoreInfos-parameter",
    "VUID-vkQueueSubmit-fence-parameter",
    "VUID-vkQueueSubmit2-fence-parameter",
)
