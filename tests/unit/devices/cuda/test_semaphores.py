"""Semaphores of the CUDA device: what is imported as what, and what is refused before the driver is asked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

import extmem
from extmem import vk
from extmem.api import Device
from extmem.devices.cuda.external_semaphores import NAMES, import_semaphore, type_name
from extmem.devices.sync import SemaphoreSpec, SyncSource
from extmem.testing import fake_cuda
from extmem.testing.fake_vulkan.sync_pages import SyncPage
from extmem.vk.handle_types import (
    SEMAPHORE_D3D12_FENCE,
    SEMAPHORE_OPAQUE_FD,
    SEMAPHORE_OPAQUE_WIN32,
    SEMAPHORE_OPAQUE_WIN32_KMT,
    SEMAPHORE_SYNC_FD,
    SemaphoreHandleType,
)

pytestmark = pytest.mark.linux_only("windows/cuda has the handles of Windows's drivers")

FD = vk.ExternalSemaphoreHandleTypeFlagBits.OPAQUE_FD
STREAM = 0x5000
KINDS = {False: "binary", True: "timeline"}


def driver_semaphore(device: Device, *, timeline: bool) -> Any:
    chain: Any = vk.ExportSemaphoreCreateInfo(FD) if device.kind == "vulkan" else None
    if timeline:
        chain = vk.SemaphoreTypeCreateInfo(vk.SemaphoreType.TIMELINE, 0, chain)
    return device.create_semaphore(vk.SemaphoreCreateInfo(p_next=chain))


def exported(vulkan: Device, semaphore: Any) -> Any:
    return vulkan.get_semaphore_fd(vk.SemaphoreGetFdInfoKHR(semaphore, FD))


# The type.


@pytest.mark.parametrize(
    ("handle_type", "timeline", "name"),
    [
        (SEMAPHORE_OPAQUE_FD, False, "OPAQUE_FD"),
        (SEMAPHORE_OPAQUE_FD, True, "TIMELINE_SEMAPHORE_FD"),
        (SEMAPHORE_OPAQUE_WIN32, False, "OPAQUE_WIN32"),
        (SEMAPHORE_OPAQUE_WIN32, True, "TIMELINE_SEMAPHORE_WIN32"),
        (SEMAPHORE_OPAQUE_WIN32_KMT, False, "OPAQUE_WIN32_KMT"),
        (SEMAPHORE_D3D12_FENCE, False, "D3D12_FENCE"),
        (SEMAPHORE_D3D12_FENCE, True, "D3D12_FENCE"),
    ],
)
def test_S52_each_handle_type_has_cudas_name(handle_type: SemaphoreHandleType, timeline: bool, name: str) -> None:
    assert type_name(handle_type, timeline=timeline) == name


@pytest.mark.parametrize(
    ("handle_type", "timeline"),
    [(SEMAPHORE_SYNC_FD, False), (SEMAPHORE_SYNC_FD, True), (SEMAPHORE_OPAQUE_WIN32_KMT, True)],
)
def test_S52_sync_files_and_numbers_of_timelines_are_refused(handle_type: SemaphoreHandleType, timeline: bool) -> None:
    with pytest.raises(extmem.UnsupportedError, match=f"no {KINDS[timeline]} semaphore"):
        type_name(handle_type, timeline=timeline)


@pytest.mark.parametrize("timeline", [False, True])
def test_S53_the_type_is_the_descriptors(
    timeline: bool, cuda: Device, vulkan: Device, fake: fake_cuda.FakeCuda
) -> None:
    """Whatever the importing semaphore is: the rules refuse the import into one of the other type."""
    with driver_semaphore(vulkan, timeline=timeline) as one, driver_semaphore(cuda, timeline=timeline) as other:
        cuda.import_semaphore_fd(vk.ImportSemaphoreFdInfoKHR(other, 0, FD, exported(vulkan, one)))
    assert fake.semaphore_imports == [9 if timeline else 1]


def driver_semaphore_of_cuda(cuda: Device, timeline: bool) -> Any:
    return cuda.backend.create_semaphore(SemaphoreSpec(timeline))  # type: ignore[attr-defined]


# The device, and bad handles.


def test_S57_another_gpus_semaphore_is_refused_before_cuda_is_asked(cuda: Device, fake: fake_cuda.FakeCuda) -> None:
    native = driver_semaphore_of_cuda(cuda, True)
    page = SyncPage.new("timeline", 0, b"another gpu 0001", bytes(16))
    examined = cuda.backend.examine_sync_fd(page.fd, SEMAPHORE_OPAQUE_FD, timeline=True)  # type: ignore[attr-defined]
    source = SyncSource(
        SEMAPHORE_OPAQUE_FD, timeline=True, fd=examined, device_uuid=b"another gpu 0001", device_name="Another GPU"
    )
    with pytest.raises(extmem.DriverError, match="Another GPU.*Fake Discrete GPU.*device that it was made on"):
        native.import_payload(source)
    assert not fake.semaphore_imports
    with pytest.raises(extmem.DriverError, match="CUDA_ERROR_INVALID_VALUE"):
        native.import_payload(
            msgspec.structs.replace(source, device_uuid=None)
        )  # nobody says which device: a bare error
    os.fstat(page.fd)
    page.close()
    native.close()


def test_a_file_that_is_no_semaphore_is_refused_without_harm(cuda: Device, vulkan: Device) -> None:
    fd = os.open("/dev/null", os.O_RDWR)
    with driver_semaphore(cuda, timeline=True) as one:
        with pytest.raises(extmem.DriverError, match=r"CUDA_ERROR_UNKNOWN \(999\).*does not recognize"):
            cuda.import_semaphore_fd(vk.ImportSemaphoreFdInfoKHR(one, 0, FD, fd))
        os.fstat(fd)
        with driver_semaphore(vulkan, timeline=True) as other:
            cuda.import_semaphore_fd(vk.ImportSemaphoreFdInfoKHR(one, 0, FD, exported(vulkan, other)))
    os.close(fd)


def test_a_temporary_import_is_refused(cuda: Device, vulkan: Device) -> None:
    native = driver_semaphore_of_cuda(cuda, False)
    with driver_semaphore(vulkan, timeline=False) as one, exported(vulkan, one) as handle:
        examined = cuda.backend.examine_sync_fd(int(handle), SEMAPHORE_OPAQUE_FD)  # type: ignore[attr-defined]
        with pytest.raises(extmem.UnsupportedError, match="TEMPORARY.*permanently"):
            native.import_payload(SyncSource(SEMAPHORE_OPAQUE_FD, temporary=True, fd=examined))
        native.import_payload(SyncSource(SEMAPHORE_OPAQUE_FD, fd=examined))
    native.close()


# Every type, by handle, number and name.


def test_S52_nvscisync_is_refused_with_the_reason(cuda: Device, fake: fake_cuda.FakeCuda) -> None:
    backend: Any = cuda.backend
    with pytest.raises(extmem.UnsupportedError, match="NVSCISYNC.*NvSciSync library"):
        import_semaphore(backend.device, "NVSCISYNC", SyncSource(SEMAPHORE_OPAQUE_FD), [])
    with pytest.raises(extmem.UnsupportedError, match="SOMETHING"):
        import_semaphore(backend.device, "SOMETHING", SyncSource(SEMAPHORE_OPAQUE_FD), [])
    assert not fake.semaphore_imports


@pytest.mark.parametrize("kind", [name for name in NAMES if not name.endswith("_FD")])
@pytest.mark.parametrize("by_name", [False, True], ids=["handle", "name"])
def test_S52_types_of_windows_are_given_handle_or_name(
    kind: str, by_name: bool, cuda: Device, fake: fake_cuda.FakeCuda
) -> None:
    if by_name and kind.endswith("_KMT"):
        return
    page = SyncPage.new("timeline", 0, b"", b"")
    fake.win32_semaphores = {"shared": page, 0x44: page}
    semaphore = extmem.raw.cuda_semaphore(cuda, kind, "shared" if by_name else 0x44)
    number = fake.semaphore_imports[-1]
    assert fake.module.CUexternalSemaphoreHandleType(number).name.endswith(kind)
    with semaphore:
        semaphore.signal(STREAM, 7)
        assert page.number == (1 if kind in ("OPAQUE_WIN32", "OPAQUE_WIN32_KMT") else 7)
        semaphore.wait(STREAM, 7)
    page.close()


@pytest.fixture(autouse=True)
def _finished(cuda: Device) -> Iterator[None]:
    yield
    cuda.backend.finish_submitted()  # type: ignore[attr-defined]
