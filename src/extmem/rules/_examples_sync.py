"""A wrong and a right example for rules about creating, importing and exporting semaphores. Data for `extmem explain`.

The names used: S is vk.ExternalSemaphoreHandleTypeFlagBits, F is vk.ExternalFenceHandleTypeFlagBits; device an open
device, other_device one of another GPU, updated_device the same GPU with another driver, old_device one without
timeline semaphores; done a binary semaphore, frames a timeline and frame_fence a fence of device, each exportable;
plain and plain_fence are not; done_fd, frames_fd and fence_fd are their fds, done_handle, frames_handle and
fence_handle their NT handles; names of shared objects are 'done', 'frames' and 'frame fence'. What is called flagged
was exported with create flags. Tests run every one of them.
"""

from __future__ import annotations

__all__ = ["SYNC"]

_FD, _WIN32 = "VUID-VkImportSemaphoreFdInfoKHR-", "VUID-VkImportSemaphoreWin32HandleInfoKHR-"
_FENCE_FD, _FENCE_WIN32 = "VUID-VkImportFenceFdInfoKHR-", "VUID-VkImportFenceWin32HandleInfoKHR-"
_GET_FD, _GET_WIN32 = "VUID-VkSemaphoreGetFdInfoKHR-", "VUID-VkSemaphoreGetWin32HandleInfoKHR-"
_GET_FENCE_FD, _GET_FENCE_WIN32 = "VUID-VkFenceGetFdInfoKHR-", "VUID-VkFenceGetWin32HandleInfoKHR-"


def _fd(arguments: str, device: str = "device") -> str:
    return f"{device}.import_semaphore_fd(vk.ImportSemaphoreFdInfoKHR({arguments}))"


def _win32(arguments: str, device: str = "device") -> str:
    return f"{device}.import_semaphore_win32_handle(vk.ImportSemaphoreWin32HandleInfoKHR({arguments}))"


def _fence_fd(arguments: str, device: str = "device") -> str:
    return f"{device}.import_fence_fd(vk.ImportFenceFdInfoKHR({arguments}))"


def _fence_win32(arguments: str, device: str = "device") -> str:
    return f"{device}.import_fence_win32_handle(vk.ImportFenceWin32HandleInfoKHR({arguments}))"


def _create(chain: str) -> str:
    return f"chain = {chain}\ndevice.create_semaphore(vk.SemaphoreCreateInfo(0, chain))"


def _create_fence(chain: str) -> str:
    return f"chain = {chain}\ndevice.create_fence(vk.FenceCreateInfo(0, chain))"


def _get_fd(arguments: str) -> str:
    return f"device.get_semaphore_fd(vk.SemaphoreGetFdInfoKHR({arguments}))"


def _get_win32(arguments: str) -> str:
    return f"device.get_semaphore_win32_handle(vk.SemaphoreGetWin32HandleInfoKHR({arguments}))"


def _get_fence_fd(arguments: str) -> str:
    return f"device.get_fence_fd(vk.FenceGetFdInfoKHR({arguments}))"


def _get_fence_win32(arguments: str) -> str:
    return f"device.get_fence_win32_handle(vk.FenceGetWin32HandleInfoKHR({arguments}))"


_TIMELINE = "vk.SemaphoreTypeCreateInfo(vk.SemaphoreType.TIMELINE{})"
_SUBMITTED = "device.queue_submit([vk.SubmitInfo(signal_semaphores=[done])], frame_fence)"
_FINISHED = f"{_SUBMITTED}\ndevice.wait_for_fences([frame_fence], 10**9)"
_SYNC_FD = "vk.SemaphoreImportFlagBits.TEMPORARY, S.SYNC_FD, -1"
_FENCE_SYNC_FD = "vk.FenceImportFlagBits.TEMPORARY, F.SYNC_FD, -1"
_OPAQUE = _fd("done, 0, S.OPAQUE_FD, done_fd")
_NAMED = _win32("done, 0, S.OPAQUE_WIN32, name='done'")
_BY_HANDLE = _win32("done, 0, S.OPAQUE_WIN32, done_handle")
_FENCE_OPAQUE = _fence_fd("frame_fence, 0, F.OPAQUE_FD, fence_fd")
_FENCE_NAMED = _fence_win32("frame_fence, 0, F.OPAQUE_WIN32, name='frame fence'")
_FENCE_BY_HANDLE = _fence_win32("frame_fence, 0, F.OPAQUE_WIN32, fence_handle")
_NT_FENCE = _get_fence_win32("frame_fence, F.OPAQUE_WIN32")
_NT = _get_win32("done, S.OPAQUE_WIN32")
_SIGNALED = "device.queue_submit([vk.SubmitInfo(signal_semaphores=[done])])"
_COPIED = _get_fd("done, S.SYNC_FD")
_WAITED = "device.queue_submit([vk.SubmitInfo([done], [vk.PipelineStageFlagBits.TRANSFER])])"
_SHARED_NAME = "vk.ExportSemaphoreWin32HandleInfoKHR(name='new')"
_SHARED_FENCE_NAME = "vk.ExportFenceWin32HandleInfoKHR(name='new')"

SYNC: dict[str, tuple[str, str]] = {
    # Creating.
    "VUID-VkSemaphoreTypeCreateInfo-timelineSemaphore-03252": (
        "chain = vk.SemaphoreTypeCreateInfo(vk.SemaphoreType.TIMELINE)  # the feature is not enabled\n"
        "old_device.create_semaphore(vk.SemaphoreCreateInfo(0, chain))",
        _create(_TIMELINE.format("")),
    ),
    "VUID-VkSemaphoreTypeCreateInfo-semaphoreType-03279": (
        _create("vk.SemaphoreTypeCreateInfo(vk.SemaphoreType.BINARY, 1)  # to create it signaled"),
        _create(_TIMELINE.format(", 1")),
    ),
    "VUID-VkExportSemaphoreCreateInfo-handleTypes-01124": (
        _create(_TIMELINE.format(", 0, vk.ExportSemaphoreCreateInfo(S.SYNC_FD)")),
        _create(_TIMELINE.format(", 0, vk.ExportSemaphoreCreateInfo(S.OPAQUE_FD)")),
    ),
    "VUID-VkExportSemaphoreWin32HandleInfoKHR-handleTypes-01125": (
        _create(f"vk.ExportSemaphoreCreateInfo(S.OPAQUE_FD, {_SHARED_NAME})"),
        _create(f"vk.ExportSemaphoreCreateInfo(S.OPAQUE_WIN32, {_SHARED_NAME})"),
    ),
    "VUID-VkExportFenceCreateInfo-handleTypes-01446": (
        _create_fence("vk.ExportFenceCreateInfo(F.OPAQUE_WIN32 | F.OPAQUE_WIN32_KMT)"),
        _create_fence("vk.ExportFenceCreateInfo(F.OPAQUE_WIN32)"),
    ),
    "VUID-VkExportFenceWin32HandleInfoKHR-handleTypes-01447": (
        _create_fence(_SHARED_FENCE_NAME),
        _create_fence(f"vk.ExportFenceCreateInfo(F.OPAQUE_WIN32, {_SHARED_FENCE_NAME})"),
    ),
    # Importing semaphores.
    "VUID-vkImportSemaphoreFdKHR-semaphore-01142": (f"{_SUBMITTED}\n{_OPAQUE}", f"{_FINISHED}\n{_OPAQUE}"),
    _FD + "handleType-01143": (_fd("done, 0, S.OPAQUE_WIN32, done_fd"), _OPAQUE),
    _FD + "fd-01544": (
        "# Same GPU, but its driver was updated since the exporter started.\n"
        + _fd("done, 0, S.OPAQUE_FD, done_fd", "updated_device"),
        _OPAQUE,
    ),
    _FD + "handleType-03263": (_fd("done, 0, S.OPAQUE_FD, flagged_fd"), _OPAQUE),
    _FD + "handleType-03264": (_fd("done, 0, S.OPAQUE_FD, frames_fd"), _fd("frames, 0, S.OPAQUE_FD, frames_fd")),
    _FD + "handleType-07307": (_fd("done, 0, S.SYNC_FD, -1"), _fd(f"done, {_SYNC_FD}")),
    _FD + "flags-03323": (
        _fd("frames, vk.SemaphoreImportFlagBits.TEMPORARY, S.OPAQUE_FD, frames_fd"),
        _fd("frames, 0, S.OPAQUE_FD, frames_fd"),
    ),
    _WIN32 + "handleType-01140": (_win32("done, 0, S.OPAQUE_FD, done_fd"), _BY_HANDLE),
    _WIN32 + "handleType-01466": (_win32("done, 0, S.OPAQUE_WIN32_KMT, name='done'"), _NAMED),
    _WIN32 + "handleType-01467": (_win32("done, 0, S.OPAQUE_WIN32, name='dune'"), _NAMED),
    _WIN32 + "handleType-01468": (_win32("done, 0, S.OPAQUE_WIN32, fence_handle"), _BY_HANDLE),
    _WIN32 + "handle-01469": (_win32("done, 0, S.OPAQUE_WIN32, done_handle, 'done'"), _BY_HANDLE),
    _WIN32 + "handle-01542": (_win32("done, 0, S.OPAQUE_WIN32, done_handle", "other_device"), _BY_HANDLE),
    _WIN32 + "name-01543": (_win32("done, 0, S.OPAQUE_WIN32, name='done'", "other_device"), _NAMED),
    _WIN32 + "handleType-03261": (_win32("done, 0, S.OPAQUE_WIN32, name='flagged'"), _NAMED),
    _WIN32 + "handleType-03262": (
        _win32("done, 0, S.OPAQUE_WIN32, name='frames'"),
        _win32("frames, 0, S.OPAQUE_WIN32, name='frames'"),
    ),
    _WIN32 + "flags-03322": (
        _win32("frames, vk.SemaphoreImportFlagBits.TEMPORARY, S.OPAQUE_WIN32, name='frames'"),
        _win32("frames, 0, S.OPAQUE_WIN32, name='frames'"),
    ),
    "EXTMEM-vkImportSemaphoreWin32HandleKHR-semaphore-inUse": (
        f"{_SUBMITTED}\n{_NAMED}",
        f"{_FINISHED}\n{_NAMED}",
    ),
    # Importing fences.
    "VUID-vkImportFenceFdKHR-fence-01463": (f"{_SUBMITTED}\n{_FENCE_OPAQUE}", f"{_FINISHED}\n{_FENCE_OPAQUE}"),
    _FENCE_FD + "handleType-01464": (_fence_fd("frame_fence, 0, F.OPAQUE_WIN32_KMT, fence_fd"), _FENCE_OPAQUE),
    _FENCE_FD + "fd-01541": (_fence_fd("frame_fence, 0, F.OPAQUE_FD, fence_fd", "other_device"), _FENCE_OPAQUE),
    _FENCE_FD + "handleType-07306": (
        _fence_fd("frame_fence, 0, F.SYNC_FD, -1"),
        _fence_fd(f"frame_fence, {_FENCE_SYNC_FD}"),
    ),
    "VUID-vkImportFenceWin32HandleKHR-fence-04448": (
        f"{_SUBMITTED}\n{_FENCE_NAMED}",
        f"{_FINISHED}\n{_FENCE_NAMED}",
    ),
    _FENCE_WIN32 + "handleType-01457": (
        "# 0x8 is D3D12_FENCE of a semaphore; fences have no such type.\n"
        + _fence_win32("frame_fence, 0, S.D3D12_FENCE, fence_handle"),
        _FENCE_BY_HANDLE,
    ),
    _FENCE_WIN32 + "handleType-01459": (
        _fence_win32("frame_fence, 0, F.OPAQUE_WIN32_KMT, name='frame fence'"),
        _FENCE_NAMED,
    ),
    _FENCE_WIN32 + "handleType-01460": (_fence_win32("frame_fence, 0, F.OPAQUE_WIN32, name='done'"), _FENCE_NAMED),
    _FENCE_WIN32 + "handleType-01461": (_fence_win32("frame_fence, 0, F.OPAQUE_WIN32, 0x1234"), _FENCE_BY_HANDLE),
    _FENCE_WIN32 + "handle-01462": (
        _fence_win32("frame_fence, 0, F.OPAQUE_WIN32, fence_handle, 'frame fence'"),
        _FENCE_NAMED,
    ),
    _FENCE_WIN32 + "handle-01539": (
        _fence_win32("frame_fence, 0, F.OPAQUE_WIN32, fence_handle", "updated_device"),
        _FENCE_BY_HANDLE,
    ),
    _FENCE_WIN32 + "name-01540": (
        _fence_win32("frame_fence, 0, F.OPAQUE_WIN32, name='frame fence'", "other_device"),
        _FENCE_NAMED,
    ),
    # Exporting semaphores.
    _GET_FD + "handleType-01132": (_get_fd("plain, S.OPAQUE_FD"), _get_fd("done, S.OPAQUE_FD")),
    _GET_FD + "semaphore-01133": (
        f"{_NAMED}\n{_SIGNALED}\n{_COPIED}  # of the payload imported by name",
        f"{_NAMED}\n" + _get_fd("done, S.OPAQUE_FD"),
    ),
    _GET_FD + "handleType-01134": (
        f"{_SIGNALED}\n{_WAITED}\n{_COPIED}",
        f"{_SIGNALED}\n{_COPIED}  # consumes the signal, as the wait would",
    ),
    _GET_FD + "handleType-01135": (f"{_COPIED}  # before its signal is submitted", f"{_SIGNALED}\n{_COPIED}"),
    _GET_FD + "handleType-01136": (_get_fd("done, S.OPAQUE_WIN32"), _NT),
    _GET_FD + "handleType-03253": (_get_fd("frames, S.SYNC_FD"), f"{_SIGNALED}\n{_COPIED}"),
    _GET_FD + "handleType-03254": (f"{_COPIED}\n{_SIGNALED}  # too late", f"{_SIGNALED}\n{_COPIED}"),
    _GET_WIN32 + "handleType-01126": (_get_win32("plain, S.OPAQUE_WIN32"), _NT),
    _GET_WIN32 + "handleType-01127": (
        f"handle = {_NT}\nsecond = {_NT}",
        f"handle = {_NT}\nsecond = handle.duplicate()",
    ),
    _GET_WIN32 + "semaphore-01128": (
        _win32("done, 0, S.OPAQUE_WIN32_KMT, number") + f"\n{_NT}",
        f"{_NAMED}\n{_NT}",
    ),
    _GET_WIN32 + "handleType-01131": (_get_win32("done, S.OPAQUE_FD"), _get_fd("done, S.OPAQUE_FD")),
    # Exporting fences.
    _GET_FENCE_FD + "handleType-01453": (
        _get_fence_fd("plain_fence, F.OPAQUE_FD"),
        _get_fence_fd("frame_fence, F.OPAQUE_FD"),
    ),
    _GET_FENCE_FD + "handleType-01454": (
        _get_fence_fd("frame_fence, F.SYNC_FD") + "  # before it is submitted",
        f"{_SUBMITTED}\n" + _get_fence_fd("frame_fence, F.SYNC_FD"),
    ),
    _GET_FENCE_FD + "fence-01455": (
        f"{_FENCE_NAMED}\n{_SUBMITTED}\n" + _get_fence_fd("frame_fence, F.SYNC_FD"),
        f"{_FENCE_NAMED}\n" + _get_fence_fd("frame_fence, F.OPAQUE_FD"),
    ),
    _GET_FENCE_FD + "handleType-01456": (
        _get_fence_fd("frame_fence, F.OPAQUE_WIN32"),
        _get_fence_fd("frame_fence, F.OPAQUE_FD"),
    ),
    _GET_FENCE_WIN32 + "handleType-01448": (_get_fence_win32("plain_fence, F.OPAQUE_WIN32"), _NT_FENCE),
    _GET_FENCE_WIN32 + "handleType-01449": (
        f"handle = {_NT_FENCE}\nsecond = {_NT_FENCE}",
        f"handle = {_NT_FENCE}\nsecond = handle.duplicate()",
    ),
    _GET_FENCE_WIN32 + "fence-01450": (
        _fence_win32("frame_fence, 0, F.OPAQUE_WIN32_KMT, number") + f"\n{_NT_FENCE}",
        f"{_FENCE_NAMED}\n{_NT_FENCE}",
    ),
    _GET_FENCE_WIN32 + "handleType-01452": (_get_fence_win32("frame_fence, F.OPAQUE_FD"), _NT_FENCE),
}
