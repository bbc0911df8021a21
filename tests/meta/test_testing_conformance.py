"""The conformance suite finds devices that do not conform: one planted fault each, and a correct device passes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from _pytest.mark.structures import ParameterSet

import extmem
from extmem import vk
from extmem.api import Buffer, Device, DeviceMemory
from extmem.devices.backend import Allocation, Mapping
from extmem.devices.host import HAS_FDS
from extmem.devices.host.backend import HostBackend
from extmem.devices.host.memory import HostAllocation
from extmem.devices.types import ImportRequest
from extmem.errors import ExtmemError, HandleStateError
from extmem.handles import FdHandle, NtHandle
from extmem.owning import OwnedFd
from extmem.testing import conformance
from extmem.testing.leaks import LeakError
from tests.systems import on_linux

_Feature = vk.ExternalMemoryFeatureFlagBits


class ImportsSomethingElse(HostBackend):
    """An import makes new memory of the right size."""

    def import_fd(self, request: ImportRequest[Any]) -> Any:
        super().import_fd(request).close()
        return self.allocate(request.size, request.memory_type, b"")

    def import_payload(self, request: ImportRequest[Any]) -> Any:
        request.source.close()
        return self.allocate(request.size, request.memory_type, b"")


class LeaksADescriptor(HostBackend):
    """An export makes one fd too many."""

    spare: list[int] = []

    def export_fd(self, allocation: Allocation, **options: Any) -> OwnedFd:
        fd = super().export_fd(allocation, **options)
        self.spare.append(os.dup(fd.fd))
        return fd


class LeaksAHandle(Device):
    """An export makes one NT handle too many."""

    spare: list[NtHandle] = []

    def get_memory_win32_handle(self, info: vk.MemoryGetWin32HandleInfoKHR) -> Any:
        handle = super().get_memory_win32_handle(info)
        if isinstance(handle, NtHandle):
            self.spare.append(handle.duplicate())
        return handle


class NeverFreed(HostAllocation):
    """Closing it does not release it."""

    __slots__ = ()

    def close(self) -> None:
        LeaksMemory.spare.append(self)


class LeaksMemory(HostBackend):
    """Memory is not freed."""

    spare: list[HostAllocation] = []

    def allocate(self, *arguments: Any, **options: Any) -> HostAllocation:
        allocation = super().allocate(*arguments, **options)
        allocation.__class__ = NeverFreed
        return allocation


class MappedElsewhere(HostAllocation):
    """The mapping is not of the payload."""

    def map(self, writable: bool = True) -> Mapping:
        return HostBackend().allocate(self.size, self.memory_type_index, b"").map(writable)


class LosesWrites(HostBackend):
    """A mapping is a copy."""

    def allocate(self, *arguments: Any, **options: Any) -> Any:
        real = super().allocate(*arguments, **options)
        return MappedElsewhere(real.number, real.size, real.memory_type_index, real.writable, real.shared, real.owner)


class PromisesDedication(HostBackend):
    """Buffers are reported to require dedicated memory, and real ones do not."""

    def external_buffer_properties(self, info: vk.PhysicalDeviceExternalBufferInfo) -> vk.ExternalBufferProperties:
        answer = super().external_buffer_properties(info)
        features = answer.external_memory_properties.external_memory_features
        if features and info.usage != vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST:
            answer.external_memory_properties.external_memory_features = features | _Feature.DEDICATED_ONLY
        return answer


class ForgetsItsOwnType(HostBackend):
    """compatibleHandleTypes lacks the type of the query."""

    def external_buffer_properties(self, info: vk.PhysicalDeviceExternalBufferInfo) -> vk.ExternalBufferProperties:
        answer = super().external_buffer_properties(info)
        if info.usage == vk.BufferUsageFlagBits.VERTEX_BUFFER:
            answer.external_memory_properties.compatible_handle_types = 0
        return answer


class ScribblesOnQuestions(Device):
    """A query changes its input struct."""

    def get_physical_device_external_buffer_properties(
        self, info: vk.PhysicalDeviceExternalBufferInfo
    ) -> vk.ExternalBufferProperties:
        answer = super().get_physical_device_external_buffer_properties(info)
        info.flags = vk.BufferCreateFlagBits(0x40)
        return answer


class RefusesSourcesOfTransfers(HostBackend):
    """Images for transfers in both directions are shared, and those for one direction are reported as not shareable."""

    def image_format_properties(self, info: vk.PhysicalDeviceImageFormatInfo2) -> vk.ImageFormatProperties2:
        if info.usage == vk.ImageUsageFlagBits.TRANSFER_SRC:
            raise extmem.UnsupportedError("no sources")
        return super().image_format_properties(info)


class RefusesToShareTargets(HostBackend):
    """The same fault for buffers."""

    def external_buffer_properties(self, info: vk.PhysicalDeviceExternalBufferInfo) -> vk.ExternalBufferProperties:
        answer = super().external_buffer_properties(info)
        if info.usage == vk.BufferUsageFlagBits.TRANSFER_DST:
            answer.external_memory_properties.external_memory_features = _Feature(0)
        return answer


class MakesSparseBuffers(Device):
    """A buffer is made whose feature is not enabled."""

    def create_buffer(self, info: vk.BufferCreateInfo) -> Buffer:
        return super().create_buffer(vk.BufferCreateInfo(0, info.size, info.usage, p_next=info.p_next))


class RefusesWithoutARule(Device):
    """Sparse buffers are refused without a reason."""

    def create_buffer(self, info: vk.BufferCreateInfo) -> Buffer:
        if info.flags:
            raise extmem.UnsupportedError("no")
        return super().create_buffer(info)


class RefusesToBindWhatIsShared(Device):
    """A resource can only be bound before its memory is exported."""

    def get_memory_win32_handle(self, info: vk.MemoryGetWin32HandleInfoKHR) -> Any:
        _shared.add(id(info.memory.record))  # type: ignore[union-attr]  # a DeviceMemory
        return super().get_memory_win32_handle(info)

    def bind_buffer_memory(self, buffer: Buffer, memory: DeviceMemory, offset: int = 0) -> None:
        if id(memory.record) in _shared:
            raise HandleStateError("too late")
        super().bind_buffer_memory(buffer, memory, offset)


_shared: set[int] = set()


def _handle_of(info: vk.MemoryAllocateInfo) -> Any:
    by_fd, by_handle = vk.find(info, vk.ImportMemoryFdInfoKHR), vk.find(info, vk.ImportMemoryWin32HandleInfoKHR)
    return by_fd.fd if by_fd is not None else by_handle.handle if by_handle is not None else None


class ConsumesOnFailure(Device):
    """A refused import closes the caller's handle."""

    def allocate_memory(self, info: vk.MemoryAllocateInfo) -> DeviceMemory:
        try:
            return super().allocate_memory(info)
        except ExtmemError:
            handle = _handle_of(info)
            if isinstance(handle, FdHandle | NtHandle):
                handle.close()
            raise


class TakesNtHandlesOver(Device):
    """An import closes the NT handle."""

    def allocate_memory(self, info: vk.MemoryAllocateInfo) -> DeviceMemory:
        memory = super().allocate_memory(info)
        handle = _handle_of(info)
        if isinstance(handle, NtHandle):
            handle.close()
        return memory


class LeavesTheFd(Device):
    """An import does not consume the fd."""

    def allocate_memory(self, info: vk.MemoryAllocateInfo) -> DeviceMemory:
        source = vk.find(info, vk.ImportMemoryFdInfoKHR)
        if source is not None and isinstance(source.fd, FdHandle):
            source.fd = source.fd.duplicate()
        return super().allocate_memory(info)


class AcceptsAnySize(Device):
    """An import of the wrong size makes new memory."""

    def allocate_memory(self, info: vk.MemoryAllocateInfo) -> DeviceMemory:
        try:
            return super().allocate_memory(info)
        except extmem.RuleViolation:
            return super().allocate_memory(vk.MemoryAllocateInfo(info.allocation_size, info.memory_type_index))


class OneImportOnly(Device):
    """A second import is the first one's memory object."""

    def allocate_memory(self, info: vk.MemoryAllocateInfo) -> DeviceMemory:
        memory = super().allocate_memory(info)
        if _handle_of(info) is None:
            return memory
        first = getattr(self, "first", None)
        if first is None or first.closed:
            self.first = memory
            return memory
        memory.close()
        return first


class TiesTheImporterToTheExporter(Device):
    """When an exporter's memory is freed, its importers' bytes are cleared."""

    def get_memory_fd(self, info: vk.MemoryGetFdInfoKHR) -> FdHandle:
        _wipe(info.memory)
        return super().get_memory_fd(info)

    def get_memory_win32_handle(self, info: vk.MemoryGetWin32HandleInfoKHR) -> Any:
        _wipe(info.memory)
        return super().get_memory_win32_handle(info)


def _wipe(memory: Any) -> None:
    with memory.map() as view:
        view[:] = bytes(len(view))


def backend_maker(backend: type[HostBackend]) -> conformance.MakeDevice:
    return lambda: Device(backend())


def device_maker(device: type[Device]) -> conformance.MakeDevice:
    return lambda: device(HostBackend())


FAULTS: list[tuple[Callable[[], Device], str]] = [
    (backend_maker(ImportsSomethingElse), "import_twice"),
    (backend_maker(LeaksADescriptor), "dup"),
    (device_maker(LeaksAHandle), "dup"),
    (backend_maker(LeaksMemory), "zero_handle_memory"),
    (backend_maker(LosesWrites), "import_twice"),
    (backend_maker(PromisesDedication), "buffer_info"),
    (backend_maker(ForgetsItsOwnType), "buffer_info"),
    (device_maker(ScribblesOnQuestions), "buffer_info"),
    (backend_maker(RefusesSourcesOfTransfers), "image_info"),
    (backend_maker(RefusesToShareTargets), "buffer_info"),
    (device_maker(MakesSparseBuffers), "buffer_info"),
    (device_maker(RefusesWithoutARule), "buffer_info"),
    (device_maker(RefusesToBindWhatIsShared), "export_bind_import_bind"),
    (device_maker(ConsumesOnFailure), "refused_import_keeps_the_handle"),
    (device_maker(TakesNtHandlesOver), "import_twice"),
    (device_maker(LeavesTheFd), "import_twice"),
    (device_maker(AcceptsAnySize), "refused_import_keeps_the_handle"),
    (device_maker(OneImportOnly), "import_twice"),
    (device_maker(TiesTheImporterToTheExporter), "exporter_closes_first"),
]
BY_FD = {"LeaksADescriptor", "LeavesTheFd"}


def planted(make: Callable[[], Device], scenario: str) -> ParameterSet:
    """Return a fault as a parameter; faults of fds are marked as Linux's."""
    name: str = make.__closure__[0].cell_contents.__name__  # type: ignore[index]  # both are closures
    return on_linux(make, scenario, id=name) if name in BY_FD else pytest.param(make, scenario, id=name)


def failures(make: Callable[[], Device], name: str) -> Iterator[BaseException]:
    """Return what the scenario reports in each of its variants."""
    for scenario, variant in conformance.cases():
        if scenario.name == name and (HAS_FDS or variant.family is not conformance.Family.FD):
            try:
                conformance.run(scenario, variant, make, repeats=2)
            except (conformance.ConformanceError, conformance.NotSupportedError, LeakError, ExtmemError) as failure:
                yield failure


@pytest.fixture(autouse=True)
def clean_up() -> Iterator[None]:
    """The planted leaks end with their test."""
    yield
    while LeaksADescriptor.spare:
        os.close(LeaksADescriptor.spare.pop())
    while LeaksAHandle.spare:
        LeaksAHandle.spare.pop().close()
    while LeaksMemory.spare:
        HostAllocation.close(LeaksMemory.spare.pop())
    _shared.clear()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("make", "scenario"), [planted(*fault) for fault in FAULTS])
def test_planted_fault_is_caught(make: Callable[[], Device], scenario: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from extmem.testing import leaks

    monkeypatch.setattr(leaks, "PATIENCE", 0.2)  # these leaks never end, so the deadline is short
    found = list(failures(make, scenario))
    assert found, f"{scenario} let the planted fault through"


@pytest.mark.parametrize("scenario", sorted({scenario for _, scenario in FAULTS}))
def test_a_healthy_device_passes_the_same_scenarios(scenario: str) -> None:
    assert not list(failures(extmem.open_device, scenario))
