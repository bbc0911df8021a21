"""A wrong and a right example for rules about submissions, host timelines and fences. Data for `extmem explain`.

The names used: device an open device; done and ready binary semaphores of it that are not signaled; frames a timeline
of it with value 10; frame_fence a fence of it; COMPUTE the stages of compute shaders. Tests run every one of them.
"""

from __future__ import annotations

__all__ = ["SUBMIT"]

_SIGNAL_DONE = "device.queue_submit([vk.SubmitInfo(signal_semaphores=[done])])"
_WAIT_DONE = "device.queue_submit([vk.SubmitInfo([done], [COMPUTE])])"
_FENCED = "device.queue_submit([vk.SubmitInfo()], frame_fence)"
_FENCE_AGAIN = f"""\
{_FENCED}
device.wait_for_fences([frame_fence], 10**9)
device.reset_fences([frame_fence])
{_FENCED}"""
_TO_12 = """\
value = vk.TimelineSemaphoreSubmitInfo((), [12])
device.queue_submit([vk.SubmitInfo(signal_semaphores=[frames], p_next=value)])"""
_TO_10 = """\
value = vk.TimelineSemaphoreSubmitInfo((), [10])  # its value already
device.queue_submit([vk.SubmitInfo(signal_semaphores=[frames], p_next=value)])"""
_TWICE = f"{_SIGNAL_DONE}\n{_SIGNAL_DONE}"
_TWICE_WITH_WAIT = f"{_SIGNAL_DONE}\n{_WAIT_DONE}\n{_SIGNAL_DONE}"
_TOO_EARLY = f"{_WAIT_DONE}\n{_SIGNAL_DONE}  # too late"
_IN_ORDER = f"{_SIGNAL_DONE}\n{_WAIT_DONE}"

SUBMIT: dict[str, tuple[str, str]] = {
    "VUID-vkQueueSubmit-fence-00063": (
        f"{_FENCED}\ndevice.wait_for_fences([frame_fence], 10**9)\n{_FENCED}  # it is signaled",
        _FENCE_AGAIN,
    ),
    "VUID-vkQueueSubmit-fence-00064": (f"{_FENCED}\n{_FENCED}  # the first may be unfinished", _FENCE_AGAIN),
    "VUID-vkQueueSubmit-pSignalSemaphores-00067": (_TWICE, _TWICE_WITH_WAIT),
    "VUID-vkQueueSubmit-pWaitSemaphores-03238": (_TOO_EARLY, _IN_ORDER),
    "VUID-VkSubmitInfo-pWaitSemaphores-03239": (
        "device.queue_submit([vk.SubmitInfo(signal_semaphores=[frames])])",
        _TO_12,
    ),
    "VUID-VkSubmitInfo-pNext-03240": (
        """\
values = vk.TimelineSemaphoreSubmitInfo([10])  # one value for two semaphores
device.queue_submit([vk.SubmitInfo(signal_semaphores=[done])])
device.queue_submit([vk.SubmitInfo([done, frames], [COMPUTE, COMPUTE], p_next=values)])""",
        """\
values = vk.TimelineSemaphoreSubmitInfo([0, 10])  # that of the binary semaphore is ignored
device.queue_submit([vk.SubmitInfo(signal_semaphores=[done])])
device.queue_submit([vk.SubmitInfo([done, frames], [COMPUTE, COMPUTE], p_next=values)])""",
    ),
    "VUID-VkSubmitInfo-pNext-03241": (
        """\
values = vk.TimelineSemaphoreSubmitInfo((), [12])  # one value for two semaphores
device.queue_submit([vk.SubmitInfo(signal_semaphores=[done, frames], p_next=values)])""",
        """\
values = vk.TimelineSemaphoreSubmitInfo((), [0, 12])  # that of the binary semaphore is ignored
device.queue_submit([vk.SubmitInfo(signal_semaphores=[done, frames], p_next=values)])""",
    ),
    "VUID-VkSubmitInfo-pSignalSemaphores-03242": (_TO_10, _TO_12),
    "VUID-VkD3D12FenceSubmitInfoKHR-signalSemaphoreValuesCount-00080": (
        """\
values = vk.D3D12FenceSubmitInfoKHR((), [7])
device.queue_submit([vk.SubmitInfo(signal_semaphores=[done, ready], p_next=values)])""",
        """\
values = vk.D3D12FenceSubmitInfoKHR((), [7, 0])  # done has the payload of a Direct3D 12 fence
device.queue_submit([vk.SubmitInfo(signal_semaphores=[done, ready], p_next=values)])""",
    ),
    "VUID-VkSubmitInfo2-semaphore-03881": (
        """\
both = [vk.SemaphoreSubmitInfo(frames, 12)]
device.queue_submit2([vk.SubmitInfo2(wait_semaphore_infos=both, signal_semaphore_infos=both)])""",
        """\
waited, signaled = [vk.SemaphoreSubmitInfo(frames, 12)], [vk.SemaphoreSubmitInfo(frames, 13)]
device.queue_submit2([vk.SubmitInfo2(wait_semaphore_infos=waited, signal_semaphore_infos=signaled)])""",
    ),
    "VUID-VkSemaphoreWaitInfo-pSemaphores-03256": (
        "device.wait_semaphores(vk.SemaphoreWaitInfo(0, [done], [1]), 10**9)",
        "device.wait_semaphores(vk.SemaphoreWaitInfo(0, [frames], [10]), 10**9)",
    ),
    "VUID-VkSemaphoreSignalInfo-semaphore-03257": (
        "device.signal_semaphore(vk.SemaphoreSignalInfo(done, 1))",
        f"{_SIGNAL_DONE}  # an empty batch on a queue",
    ),
    "VUID-VkSemaphoreSignalInfo-value-03258": (
        "device.signal_semaphore(vk.SemaphoreSignalInfo(frames, 10))  # its value already",
        "device.signal_semaphore(vk.SemaphoreSignalInfo(frames, 11))",
    ),
    "VUID-VkSemaphoreSignalInfo-value-03259": (
        f"{_TO_12}\ndevice.signal_semaphore(vk.SemaphoreSignalInfo(frames, 12))",
        f"{_TO_12}\ndevice.signal_semaphore(vk.SemaphoreSignalInfo(frames, 11))",
    ),
    "VUID-vkResetFences-pFences-01123": (
        f"{_FENCED}\ndevice.reset_fences([frame_fence])",
        f"{_FENCED}\ndevice.wait_for_fences([frame_fence], 10**9)\ndevice.reset_fences([frame_fence])",
    ),
}
