"""The conformance suite of semaphores and fences finds devices that do not conform: one planted fault each.

A correct device passes the same scenarios.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

import extmem
from extmem import vk
from extmem.api import Device
from extmem.devices.host import HAS_FDS
from extmem.devices.host.backend import HostBackend
from extmem.devices.host.event_fence import HostFence
from extmem.devices.host.event_semaphore import HostBinarySemaphore
from extmem.devices.host.timeline_semaphore import HostTimeline
from extmem.devices.sync import SyncSource
from extmem.errors import ExtmemError
from extmem.handles import FdHandle, NtHandle
from extmem.testing import conformance, leaks
from extmem.testing.conformance import _sync_case, sync
from extmem.testing.conformance.sync import Payload

_FENCE, _TIMELINE, _BINARY = Payload.FENCE, Payload.TIMELINE, Payload.BINARY
_spare: list[Any] = []


# Objects with a fault. A backend below gives each object that it makes one of these classes.


class ResetsWhatWasImported(HostFence):
    """A reset acts on the temporary payload, and so on the exporter."""

    __slots__ = ()

    def reset(self) -> None:
        self.payload.consume()
        super().reset()


class ResetRestoresNothing(HostFence):
    """A reset does not end a temporary import."""

    __slots__ = ()

    def reset(self) -> None:
        self.permanent.consume()


class IsNeverReset(HostFence):
    """A reset does nothing."""

    __slots__ = ()

    def reset(self) -> None:
        self.restore()


class LosesSignalsOfFences(HostFence):
    """A signal is lost."""

    __slots__ = ()

    def submit_signal(self) -> None:
        self.check_right()


class WaitRestoresNothing(HostBinarySemaphore):
    """A wait does not end a temporary import."""

    __slots__ = ()

    def submit_wait(self, deadline: int | None = None) -> bool:
        return self.payload.take(deadline)


class WaitsConsumeNothing(HostBinarySemaphore):
    """A wait leaves the semaphore signaled."""

    __slots__ = ()

    def submit_wait(self, deadline: int | None = None) -> bool:
        taken = self.payload.take(deadline)
        self.payload.signal()
        self.restore()
        return taken


class LosesSignalsOfTimelines(HostTimeline):
    """A signal is lost."""

    __slots__ = ()

    def signal(self, value: int) -> None:
        self.check_right()


class ImportsOfTimelinesDoNothing(HostTimeline):
    """An import leaves the timeline with its own payload."""

    __slots__ = ()

    def import_payload(self, source: SyncSource) -> None:
        _spare.append(source.payload)


class ImportsOfFencesDoNothing(HostFence):
    """An import leaves the fence with its own payload."""

    __slots__ = ()

    def import_payload(self, source: SyncSource) -> None:
        _spare.append(source.payload)


class ImportsForGood(HostFence):
    """A temporary import is permanent."""

    __slots__ = ()

    def import_payload(self, source: SyncSource) -> None:
        super().import_payload(msgspec.structs.replace(source, temporary=False))


class ImportsForAWhile(HostFence):
    """A permanent import is temporary."""

    __slots__ = ()

    def import_payload(self, source: SyncSource) -> None:
        super().import_payload(msgspec.structs.replace(source, temporary=True))


class LeaksADescriptor(HostFence):
    """An export makes one fd too many."""

    __slots__ = ()

    def export_fd(self, handle_type: Any) -> Any:
        made = super().export_fd(handle_type)
        if made is not None:
            _spare.append(os.dup(made.fd))
        return made


class IsNeverDestroyed(HostBinarySemaphore):
    """Closing it does not release it."""

    __slots__ = ()

    def close(self) -> None:
        _spare.append(self)

    def give_back(self) -> None:
        _spare.append(self)


class CopiesActOnNothing(HostBinarySemaphore):
    """An export as SYNC_FD does not consume the signal."""

    __slots__ = ()

    def export_fd(self, handle_type: Any) -> Any:
        made = super().export_fd(handle_type)
        if made is None:
            self.payload.signal()
        return made


class StaysConnectedSemaphore(HostBinarySemaphore):
    """What is imported as SYNC_FD is the exporter's payload."""

    __slots__ = ()

    def export_fd(self, handle_type: Any) -> Any:
        return _connecting(self, super().export_fd(handle_type))

    def import_payload(self, source: SyncSource) -> None:
        super().import_payload(source)
        _connect(self, source)


class StaysConnectedFence(HostFence):
    """What is imported as SYNC_FD is the exporter's payload."""

    __slots__ = ()

    def export_fd(self, handle_type: Any) -> Any:
        return _connecting(self, super().export_fd(handle_type))

    def import_payload(self, source: SyncSource) -> None:
        super().import_payload(source)
        _connect(self, source)


def _connecting(exporter: Any, made: Any) -> Any:
    if made is None:
        _spare.append(exporter.payload)
    return made


def _connect(importer: Any, source: SyncSource) -> None:
    if source.signaled:
        importer._temporary = _spare.pop()  # the payload that was exported last
        importer._temporary.signal()


# Devices with a fault.


class ConsumesOnFailure(Device):
    """A refused import closes the caller's handle."""

    def import_semaphore_fd(self, info: vk.ImportSemaphoreFdInfoKHR) -> None:
        _closing(super().import_semaphore_fd, info, info.fd)

    def import_fence_fd(self, info: vk.ImportFenceFdInfoKHR) -> None:
        _closing(super().import_fence_fd, info, info.fd)


def _closing(command: Callable[[Any], None], info: Any, handle: object) -> None:
    try:
        command(info)
    except (ExtmemError, TypeError):
        if isinstance(handle, FdHandle):
            handle.close()
        raise


class LeavesTheFd(Device):
    """An import does not consume the fd."""

    def import_semaphore_fd(self, info: vk.ImportSemaphoreFdInfoKHR) -> None:
        super().import_semaphore_fd(_with_copy(info))

    def import_fence_fd(self, info: vk.ImportFenceFdInfoKHR) -> None:
        super().import_fence_fd(_with_copy(info))


def _with_copy(info: Any) -> Any:
    if isinstance(info.fd, FdHandle):
        info.fd = info.fd.duplicate()
    return info


class TakesNtHandlesOver(Device):
    """An import closes the NT handle."""

    def import_semaphore_win32_handle(self, info: vk.ImportSemaphoreWin32HandleInfoKHR) -> None:
        super().import_semaphore_win32_handle(info)
        if isinstance(info.handle, NtHandle):
            info.handle.close()


class ForgetsItsOwnType(HostBackend):
    """compatibleHandleTypes lacks the type of the query."""

    def external_semaphore_properties(
        self, info: vk.PhysicalDeviceExternalSemaphoreInfo
    ) -> vk.ExternalSemaphoreProperties:
        answer = super().external_semaphore_properties(info)
        answer.compatible_handle_types = vk.ExternalSemaphoreHandleTypeFlagBits(0)
        return answer


def objects(kind: type) -> conformance.MakeDevice:
    """Return a maker of devices whose semaphores, timelines or fences are of this class."""

    class Backend(HostBackend):
        def create_semaphore(self, spec: Any) -> Any:
            return _as(super().create_semaphore(spec))

        def create_fence(self, spec: Any) -> Any:
            return _as(super().create_fence(spec))

    def _as(made: Any) -> Any:
        if issubclass(kind, type(made)):
            made.__class__ = kind
        return made

    return lambda: Device(Backend())


FAULTS: list[tuple[str, conformance.MakeDevice, str, Payload]] = [
    *(
        (kind.__name__, objects(kind), scenario, payload)
        for kind, scenario, payload in (
            (ResetsWhatWasImported, "reset", _FENCE),
            (ResetRestoresNothing, "reset", _FENCE),
            (IsNeverReset, "reset", _FENCE),
            (LosesSignalsOfFences, "signal_export_import_wait", _FENCE),
            (WaitRestoresNothing, "restored_by_the_wait", _BINARY),
            (WaitsConsumeNothing, "import_twice", _BINARY),
            (LosesSignalsOfTimelines, "signal_export_import_wait", _TIMELINE),
            (ImportsOfTimelinesDoNothing, "export_import_signal_wait", _TIMELINE),
            (ImportsOfFencesDoNothing, "export_import_signal_wait", _FENCE),
            (ImportsForGood, "reset", _FENCE),
            (ImportsForAWhile, "reset", _FENCE),
            (LeaksADescriptor, "import_twice", _FENCE),
            (IsNeverDestroyed, "import_twice", _BINARY),
            (CopiesActOnNothing, "transference", _BINARY),
            (StaysConnectedSemaphore, "transference", _BINARY),
            (StaysConnectedFence, "transference", _FENCE),
        )
    ),
    *(
        (kind.__name__, lambda kind=kind: kind(HostBackend()), scenario, payload)
        for kind, scenario, payload in (
            (ConsumesOnFailure, "refused_import_keeps_the_handle", _TIMELINE),
            (ConsumesOnFailure, "refused_import_keeps_the_handle", _FENCE),
            (LeavesTheFd, "import_twice", _BINARY),
            (LeavesTheFd, "import_twice", _FENCE),
            (TakesNtHandlesOver, "signal_export_import_wait", _TIMELINE),
        )
    ),
    ("ForgetsItsOwnType", lambda: Device(ForgetsItsOwnType()), "info", _BINARY),
]


def failures(make: conformance.MakeDevice, name: str, payload: Payload) -> Iterator[BaseException]:
    """Return what the scenario reports in each of its variants of this kind of object."""
    for scenario, variant in sync.cases():
        with_fds = variant.family is conformance.Family.FD
        if scenario.name == name and variant.payload is payload and (HAS_FDS or not with_fds):
            if not HAS_FDS and payload is _TIMELINE and variant.family is conformance.Family.WIN32_KMT:
                continue  # timelines have no KMT numbers on Windows
            try:
                sync.run(scenario, variant, make, repeats=2)
            except (conformance.ConformanceError, leaks.LeakError, ExtmemError) as failure:
                yield failure


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What never comes is waited for shortly; the planted leaks end with their test."""
    monkeypatch.setattr(leaks, "PATIENCE", 0.2)
    monkeypatch.setattr(_sync_case, "PATIENCE_NS", 200_000_000)
    yield
    while _spare:
        kept = _spare.pop()
        if isinstance(kept, int):
            os.close(kept)
        elif isinstance(kept, HostBinarySemaphore):
            kept.__class__ = HostBinarySemaphore
            kept.close()


@pytest.mark.linux_only("the planted objects are those of Linux's host device")
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("make", "scenario", "payload"), [pytest.param(*fault, id=f"{name}-{fault[2].value}") for name, *fault in FAULTS]
)
def test_planted_fault_is_caught(make: conformance.MakeDevice, scenario: str, payload: Payload) -> None:
    found = list(failures(make, scenario, payload))
    assert found, f"{scenario} let the planted fault through"


def open_host() -> Device:
    return extmem.open_device(kind="host")


@pytest.mark.parametrize(
    ("scenario", "payload"),
    sorted({(scenario, payload) for _, _, scenario, payload in FAULTS}, key=lambda pair: (pair[0], pair[1].value)),
)
def test_a_healthy_device_passes_the_same_scenarios(scenario: str, payload: Payload) -> None:
    assert not list(failures(open_host, scenario, payload))
