"""The operations of semaphores, timelines, fences and submissions, for `tests.operations`.

Each returns nothing: what it made is closed, since only memory has bytes that could be checked.
"""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import extmem
from extmem import vk
from extmem.api.fence import Fence
from extmem.api.semaphore import Semaphore
from extmem.api.timeline import Timeline
from extmem.devices.sync import SyncBackend
from extmem.errors import ObjectTypeError, RuleViolation, UnsupportedError, WaitTimeoutError

__all__ = [
    "Fence",
    "Semaphore",
    "Timeline",
    "OF_TIMELINES",
    "PROTOCOLS",
    "build",
    "has_semaphores",
    "make_fence",
    "make_semaphore",
    "make_timeline",
]

SemaphoreType = vk.ExternalSemaphoreHandleTypeFlagBits
FenceType = vk.ExternalFenceHandleTypeFlagBits
_ALL = vk.PipelineStageFlagBits.ALL_COMMANDS
_EXPORTABLE = 1
_FD, _NT = 1, 2
_names = count(1)


def has_semaphores(device: Any) -> bool:
    """Return whether the device has semaphores at all."""
    return isinstance(device.backend, SyncBackend)


# Objects.


def _semaphore_types(device: Any, timeline: bool) -> int:
    kind = vk.SemaphoreTypeCreateInfo(vk.SemaphoreType.TIMELINE if timeline else vk.SemaphoreType.BINARY)
    types = 0
    for bit in (_FD, _NT):
        info = vk.PhysicalDeviceExternalSemaphoreInfo(SemaphoreType(bit), kind)
        if device.get_physical_device_external_semaphore_properties(info).external_semaphore_features & _EXPORTABLE:
            types |= bit
    return types


def _fence_types(device: Any) -> int:
    types = 0
    for bit in (_FD, _NT):
        info = vk.PhysicalDeviceExternalFenceInfo(FenceType(bit))
        if device.get_physical_device_external_fence_properties(info).external_fence_features & _EXPORTABLE:
            types |= bit
    return types


def semaphore_info(device: Any, timeline: bool = False) -> vk.SemaphoreCreateInfo:
    """Return the create info of a semaphore of all types that the device exports by fd and NT handle."""
    types = _semaphore_types(device, timeline)
    export = vk.ExportSemaphoreCreateInfo(SemaphoreType(types)) if types else None
    kind = vk.SemaphoreTypeCreateInfo(vk.SemaphoreType.TIMELINE if timeline else vk.SemaphoreType.BINARY, 0, export)
    return vk.SemaphoreCreateInfo(p_next=kind)


def fence_info(device: Any, signaled: bool = True) -> vk.FenceCreateInfo:
    """Return the create info of a fence of all types that the device exports by fd and NT handle."""
    types = _fence_types(device)
    flags = vk.FenceCreateFlagBits.SIGNALED if signaled else vk.FenceCreateFlagBits(0)
    return vk.FenceCreateInfo(flags, vk.ExportFenceCreateInfo(FenceType(types)) if types else None)


def make_timeline(device: Any) -> Timeline:
    """Return a new timeline, with a name where the device shares by name."""
    types = _semaphore_types(device, timeline=True)
    made: Timeline = device.timeline(name=f"timeline {os.getpid()} {next(_names)}" if types & _NT else None)
    return made


def make_semaphore(device: Any) -> Semaphore:
    """Return a new binary semaphore."""
    made: Semaphore = device.create_semaphore(semaphore_info(device))
    return made


def make_fence(device: Any) -> Fence:
    """Return a new fence, signaled."""
    made: Fence = device.create_fence(fence_info(device))
    return made


# Operations of a device.


@contextlib.contextmanager
def _timeline(scene: Any) -> Iterator[Timeline]:
    with make_timeline(scene.thing) as made:
        yield made


def _close(made: Any) -> None:
    if not isinstance(made, int):
        made.close()


def _raced(operation: Callable[[], object]) -> None:
    """Call an operation that another thread may have made useless: a value is reached, a fence was reset."""
    with contextlib.suppress(RuleViolation, WaitTimeoutError):
        operation()


def _exporting(types: int, bit: int) -> None:
    if not types & bit or not bit:
        raise UnsupportedError("the device exports no such handle; the library was not called")


def _destroyed(made: Any, destroy: Callable[[Any], None]) -> None:
    """Destroy an object by the command of its device, which refuses if another thread has closed the device."""
    with made:
        destroy(made)


def _semaphore_handle(scene: Any, bit: int) -> None:
    device = scene.thing
    _exporting(_semaphore_types(device, timeline=True), bit)
    with device.create_semaphore(semaphore_info(device, timeline=True)) as made:
        if bit == _FD:
            _close(device.get_semaphore_fd(vk.SemaphoreGetFdInfoKHR(made, SemaphoreType.OPAQUE_FD)))
        else:
            info = vk.SemaphoreGetWin32HandleInfoKHR(made, SemaphoreType.OPAQUE_WIN32)
            _close(device.get_semaphore_win32_handle(info))


def _fence_handle(scene: Any, bit: int) -> None:
    device = scene.thing
    _exporting(_fence_types(device), bit)
    with device.create_fence(fence_info(device)) as made:
        if bit == _FD:
            _close(device.get_fence_fd(vk.FenceGetFdInfoKHR(made, FenceType.OPAQUE_FD)))
        else:
            _close(device.get_fence_win32_handle(vk.FenceGetWin32HandleInfoKHR(made, FenceType.OPAQUE_WIN32)))


def _imported_fd(scene: Any) -> None:
    device = scene.thing
    _exporting(_semaphore_types(device, timeline=True), _FD)
    info = semaphore_info(device, timeline=True)
    with device.create_semaphore(info) as source, device.create_semaphore(info) as target:
        with source.export_handle(SemaphoreType.OPAQUE_FD) as handle:
            device.import_semaphore_fd(
                vk.ImportSemaphoreFdInfoKHR(target, handle_type=SemaphoreType.OPAQUE_FD, fd=handle)
            )


def _imported_handle(scene: Any) -> None:
    device = scene.thing
    _exporting(_semaphore_types(device, timeline=True), _NT)
    info = semaphore_info(device, timeline=True)
    with device.create_semaphore(info) as source, device.create_semaphore(info) as target:
        with source.export_handle(SemaphoreType.OPAQUE_WIN32) as handle:
            device.import_semaphore_win32_handle(
                vk.ImportSemaphoreWin32HandleInfoKHR(target, handle_type=SemaphoreType.OPAQUE_WIN32, handle=handle)
            )


def _imported_fence_fd(scene: Any) -> None:
    device = scene.thing
    _exporting(_fence_types(device), _FD)
    info = fence_info(device)
    with device.create_fence(info) as source, device.create_fence(info) as target:
        with source.export_handle(FenceType.OPAQUE_FD) as handle:
            device.import_fence_fd(vk.ImportFenceFdInfoKHR(target, handle_type=FenceType.OPAQUE_FD, fd=handle))


def _imported_fence_handle(scene: Any) -> None:
    device = scene.thing
    _exporting(_fence_types(device), _NT)
    info = fence_info(device)
    with device.create_fence(info) as source, device.create_fence(info) as target:
        with source.export_handle(FenceType.OPAQUE_WIN32) as handle:
            device.import_fence_win32_handle(
                vk.ImportFenceWin32HandleInfoKHR(target, handle_type=FenceType.OPAQUE_WIN32, handle=handle)
            )


def _submitted(scene: Any) -> None:
    device = scene.thing
    with make_timeline(device) as timeline, device.fence() as fence:
        values = vk.TimelineSemaphoreSubmitInfo([0], [1])
        device.queue_submit([vk.SubmitInfo([timeline], [_ALL], (), [timeline], values)], fence)
        fence.wait(10)


def _submitted2(scene: Any) -> None:
    device = scene.thing
    with make_timeline(device) as timeline, device.fence() as fence:
        signal = vk.SemaphoreSubmitInfo(timeline, 1, vk.PipelineStageFlagBits2.ALL_COMMANDS)
        device.queue_submit2([vk.SubmitInfo2(signal_semaphore_infos=[signal])], fence)
        fence.wait(10)


def _waited(scene: Any) -> None:
    with _timeline(scene) as timeline:
        scene.thing.wait_semaphores(vk.SemaphoreWaitInfo(semaphores=[timeline], values=[0]), 0)


def _signaled(scene: Any) -> None:
    with _timeline(scene) as timeline:
        scene.thing.signal_semaphore(vk.SemaphoreSignalInfo(timeline, 1))


def _counted(scene: Any) -> None:
    with _timeline(scene) as timeline:
        scene.thing.get_semaphore_counter_value(timeline)


def _on_fence(operation: Callable[[Any, Fence], object]) -> Callable[[Any], None]:
    def call(scene: Any) -> None:
        with scene.thing.fence(signaled=True) as fence:
            operation(scene.thing, fence)

    return call


def _awaited(scene: Any) -> None:
    """Start a wait for a value that is reached: it ends without an event loop."""
    waiting = scene.thing.wait_async(0)
    try:
        waiting.send(None)
    except StopIteration:
        pass
    finally:
        waiting.close()


def _exported(scene: Any) -> None:
    types = scene.thing.record.descriptor.handle_types
    _exporting(types, types)
    _close(scene.thing.export_handle())


def opened(scene: Any) -> None:
    """Open the timeline of a scene of timelines by its name."""
    if scene.thing.name is None:
        raise UnsupportedError("this device shares by no name; the library was not called")
    with contextlib.suppress(extmem.NameNotFoundError):  # another thread closed it
        extmem.open_timeline(scene.thing.name).close()


def refused_as_memory(scene: Any) -> None:
    """Open the name of a timeline as memory. Errors: AssertionError if that succeeds."""
    name = scene.thing.record.name
    if name is None:
        raise UnsupportedError("this device shares by no name; the library was not called")
    with contextlib.suppress(ObjectTypeError, extmem.NameNotFoundError):
        extmem.open(name).close()
        raise AssertionError(f"{name!r} is a timeline, and was opened as memory")


def _sent(scene: Any) -> None:
    """Pickle and unpickle a semaphore or fence."""
    types = scene.thing.record.descriptor.handle_types
    _exporting(types, types)
    pickle.loads(pickle.dumps(scene.thing)).close()  # it was pickled in this line


PROTOCOLS: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    ("pickle", _sent),
    ("with", lambda s: s.thing.__enter__() and None),
    ("repr", lambda s: repr(s.thing)),
)
OF_TIMELINES = (*PROTOCOLS, ("extmem.open_timeline", opened), ("extmem.open", refused_as_memory))


def build(device_class: type) -> dict[tuple[type, str], Callable[[Any], Any]]:
    """Return the calls with arguments, by class and operation."""
    return {
        (device_class, "create_semaphore"): lambda s: _close(make_semaphore(s.thing)),
        (device_class, "create_fence"): lambda s: _close(make_fence(s.thing)),
        (device_class, "destroy_semaphore"): lambda s: _destroyed(make_semaphore(s.thing), s.thing.destroy_semaphore),
        (device_class, "destroy_fence"): lambda s: _destroyed(make_fence(s.thing), s.thing.destroy_fence),
        (device_class, "timeline"): lambda s: _close(make_timeline(s.thing)),
        (device_class, "fence"): lambda s: _close(s.thing.fence()),
        (device_class, "get_physical_device_external_semaphore_properties"): lambda s: (
            s.thing.get_physical_device_external_semaphore_properties(
                vk.PhysicalDeviceExternalSemaphoreInfo(SemaphoreType.OPAQUE_FD)
            )
        ),
        (device_class, "get_physical_device_external_fence_properties"): lambda s: (
            s.thing.get_physical_device_external_fence_properties(
                vk.PhysicalDeviceExternalFenceInfo(FenceType.OPAQUE_FD)
            )
        ),
        (device_class, "get_semaphore_fd"): lambda s: _semaphore_handle(s, _FD),
        (device_class, "get_semaphore_win32_handle"): lambda s: _semaphore_handle(s, _NT),
        (device_class, "get_fence_fd"): lambda s: _fence_handle(s, _FD),
        (device_class, "get_fence_win32_handle"): lambda s: _fence_handle(s, _NT),
        (device_class, "import_semaphore_fd"): _imported_fd,
        (device_class, "import_semaphore_win32_handle"): _imported_handle,
        (device_class, "import_fence_fd"): _imported_fence_fd,
        (device_class, "import_fence_win32_handle"): _imported_fence_handle,
        (device_class, "wait_semaphores"): _waited,
        (device_class, "signal_semaphore"): _signaled,
        (device_class, "get_semaphore_counter_value"): _counted,
        (device_class, "get_fence_status"): _on_fence(lambda device, fence: device.get_fence_status(fence)),
        (device_class, "wait_for_fences"): _on_fence(lambda device, fence: device.wait_for_fences([fence], 0)),
        (device_class, "reset_fences"): _on_fence(lambda device, fence: device.reset_fences([fence])),
        (device_class, "queue_submit"): _submitted,
        (device_class, "queue_submit2"): _submitted2,
        (Timeline, "signal"): lambda s: _raced(lambda: s.thing.signal(s.thing.value + 1)),
        (Timeline, "wait"): lambda s: s.thing.wait(0),
        (Timeline, "wait_async"): _awaited,
        (Timeline, "export_handle"): _exported,
        (Semaphore, "export_handle"): _exported,
        (Fence, "export_handle"): _exported,
        (Fence, "wait"): lambda s: _raced(lambda: s.thing.wait(0)),
        (Fence, "reset"): lambda s: _raced(s.thing.reset),
    }
